import itertools

import pytest
import torch

from nic_helpers import attacks, load_codec, load_images, metrics
from nic_helpers.budgets import L2rms, Linf
from nic_helpers.codecs.base import CodecOutput
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.images import to_8bit
from nic_helpers.objectives import DIRECTIONS, Distortion, Joint, Rate, Together

EPS = 8 / 255
ALL = [
    attacks.RandomNoise(EPS),
    attacks.RandomNoise(EPS, kind="sign"),
    attacks.RandomNoise(EPS, kind="coarse"),
    attacks.FGSM(EPS),
    attacks.PGD(EPS, steps=3),
    attacks.PGD(EPS, alpha=2 / 255, steps=3, restarts=2),
    attacks.IFGSM(EPS, steps=3),
    attacks.MIFGSM(EPS, steps=3),
    attacks.DIFGSM(EPS, steps=3),
    attacks.APGD(EPS, steps=5),
]
ROOT_MEAN_SQUARE = [
    attacks.RandomNoise(EPS / 2, norm="l2rms"),
    attacks.FGSM(EPS / 2, norm="l2rms"),
    attacks.PGD(EPS / 2, steps=3, norm="l2rms"),
    attacks.MIFGSM(EPS / 2, steps=3, norm="l2rms"),
    attacks.APGD(EPS / 2, steps=5, norm="l2rms"),
    attacks.SRDA(EPS / 2, steps=3, angle=0.0),
    attacks.SRDA(EPS / 2, steps=3, angle=90.0),
]


@pytest.fixture(scope="module")
def crops():
    """Four 96×96 crops [4, 3, 96, 96] of the bundled images."""
    return torch.stack([im[:, 64:160, 64:160] for im in load_images("bundled")[:4]])


def damage(codec, x, attack, objective=None):
    """PSNR between the outputs, mean over images: lower is stronger."""
    result = attack(codec, x, objective)
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(result.x_adv)).mean().item()


# --------------------------------------------------------------------------------------------------------- budgets
@pytest.mark.parametrize("eps", [0, -1 / 255, 1.1, 8, float("nan"), "8"])
def test_eps_outside_0_to_1_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be in"):
        Linf(eps)


def test_eps_below_one_level_is_refused():
    with pytest.raises(ValueError, match="less than one 8-bit level"):
        attacks.FGSM(0.5 / 255)


@pytest.mark.parametrize("levels", range(1, 256))
def test_every_level_is_counted_exactly(levels):
    assert Linf(levels / 255).levels == levels


def test_rounding_stays_inside_the_ball():
    x = to_8bit(torch.rand(2, 3, 16, 16))
    for eps in (1 / 255, 2.9 / 255, 8 / 255):
        budget = Linf(eps)
        x_adv = budget.to_8bit(budget.project(x + torch.randn_like(x), x), x)
        assert (x_adv - x).abs().max() <= eps + 1e-6
        assert torch.equal(x_adv, to_8bit(x_adv))


def test_rounding_stays_inside_the_root_mean_square_ball_and_undoes_no_more_than_it_must():
    torch.manual_seed(0)
    x = to_8bit(torch.rand(3, 3, 24, 24))
    for eps in (0.4 / 255, 1 / 255, 8 / 255):
        budget = L2rms(eps)
        wanted = budget.project(x + torch.randn_like(x) * eps * 2, x)
        assert ((wanted - x).pow(2).mean((1, 2, 3)).sqrt() <= eps * 1.0001).all()
        x_adv = budget.to_8bit(wanted, x)
        rms = (x_adv - x).double().pow(2).mean((1, 2, 3)).sqrt()
        assert torch.equal(x_adv, to_8bit(x_adv)) and (rms <= eps * 1.0001).all()
        assert (rms > 0.9 * (wanted - x).pow(2).mean((1, 2, 3)).sqrt()).all() or eps < 1 / 255


def test_the_layout_of_a_tensor_does_not_matter_to_a_budget():
    x = to_8bit(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    x_adv, last = (x + 0.1).clamp(0, 1), torch.channels_last
    for budget in (Linf(4 / 255), L2rms(4 / 255)):
        found = budget.to_8bit(x_adv.contiguous(memory_format=last), x.contiguous(memory_format=last))
        assert torch.equal(found, budget.to_8bit(x_adv, x))


# --------------------------------------------------------------------------------------------------------- attacks
@pytest.mark.parametrize("attack", ROOT_MEAN_SQUARE, ids=str)
def test_the_root_mean_square_bounds_attacks_too(attack, hyperprior, x):
    result = attack(hyperprior, x)
    assert torch.equal(result.x_adv, to_8bit(result.x_adv)) and result.rms.max() <= EPS / 2 * 1.0001
    assert result.rms.min() > 0.9 * EPS / 2 and result.linf.max() > EPS / 2


def test_at_equal_root_mean_square_attacks_beat_noise(hyperprior, crops):
    # a random start spends the budget on noise, which steps must first undo: from the source fewer steps do more
    noise, fgsm, iterated = (
        damage(hyperprior, crops, a)
        for a in (
            attacks.RandomNoise(EPS, norm="l2rms"),
            attacks.FGSM(EPS, norm="l2rms"),
            attacks.IFGSM(EPS, steps=8, norm="l2rms"),
        )
    )
    assert iterated < fgsm < noise


@pytest.mark.parametrize(
    "attack",
    [attacks.IFGSM(EPS, steps=8), attacks.MIFGSM(EPS, steps=8), attacks.PGD(EPS, steps=8), attacks.APGD(EPS, steps=8)],
    ids=str,
)
def test_every_iterative_attack_beats_one_step(attack, hyperprior, crops):
    assert damage(hyperprior, crops, attack) < damage(hyperprior, crops, attacks.FGSM(EPS))
    assert attack(hyperprior, crops[:1]).gradients == 8


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_the_unrounded_output_against_the_rounded_reference_is_the_strongest_gradient(name, crops, request):
    # it says which way each latent was rounded; straight-through gradients do not
    codec = request.getfixturevalue(name)
    crops = crops[..., :64, :64] if name == "cheng" else crops  # whose pixels cost five times as much
    by = {s: damage(codec, crops, attacks.PGD(EPS, surrogate=s)) for s in ("ste", "noise", "identity", "auto")}
    assert by["auto"] == by["identity"] < by["ste"] - 0.5 and by["noise"] < by["ste"] - 0.5


def test_a_gradient_that_stops_at_the_output_clamp_finds_what_a_straight_through_one_hides(monkeypatch):
    # at fine qualities the synthesis runs away in places: saturated samples must not keep all of the gradient
    codec = load_codec("bmshj2018-hyperprior", 6, device="cpu")
    x = torch.stack([load_images("bundled")[k] for k in (0, 5)])
    attack = attacks.PGD(EPS, norm="l2rms")
    real = damage(codec, x, attack)

    def straight_through(self, x, surrogate="ste", rate=True):
        x_hat = self.walk(x, surrogate, rate=rate).x_hat
        return CodecOutput(x_hat + (x_hat.clamp(0, 1) - x_hat).detach(), {}, x.size(2) * x.size(3))

    monkeypatch.setattr(NeuralCodec, "__call__", straight_through)
    assert real < damage(codec, x, attack) - 2


def test_a_blind_search_does_not_beat_the_gradient(hyperprior, crops):
    x = crops[:2, :, :64, :64]
    square = damage(hyperprior, x, attacks.Square(EPS, queries=300))
    assert damage(hyperprior, x, attacks.PGD(EPS)) < square < damage(hyperprior, x, attacks.RandomNoise(EPS, kind="sign"))


def test_coarse_noise_is_grey_blobs_at_the_bound_and_codecs_damp_it_less(hyperprior, crops):
    x = (crops * 0.8 + 0.1).clamp(0, 1)  # room, so that nothing is clipped
    white, coarse = attacks.RandomNoise(EPS, kind="sign"), attacks.RandomNoise(EPS, kind="coarse")
    delta = (255 * (coarse(hyperprior, x).x_adv - to_8bit(x))).round()
    assert (delta.abs() == 8).all() and torch.equal(delta[:, :1].expand_as(delta), delta)
    alike = (delta[..., 1:] * delta[..., :-1] > 0).float().mean()
    assert 0.7 < alike < 0.95  # of neighbours; without blobs it would be half of them
    for codec in (hyperprior, load_codec("jpeg", 30)):
        assert damage(codec, x, coarse) < damage(codec, x, white) - 1


def test_noise_with_an_attacks_spectrum_has_its_size_and_spectrum_and_not_its_strength(hyperprior):
    crops = torch.stack([im[:, 64:192, 64:192] for im in load_images("bundled")[:4]])
    x = (crops * 0.8 + 0.1).clamp(0, 1)  # room, so that nothing is clipped
    attack = attacks.PGD(EPS, steps=5)
    found, noise = attack(hyperprior, x), attacks.SpectralNoise(EPS, like=attack.with_(eps=0.1))(hyperprior, x)
    assert noise.rms == pytest.approx(found.rms, rel=0.03) and noise.linf.max() > EPS
    power = [torch.fft.rfft2(r.x_adv - to_8bit(x)).abs().square() for r in (found, noise)]
    bands = [p[..., :64, :].unflatten(-2, (4, 16))[..., :64].unflatten(-1, (4, 16)).mean((0, -1, -3)) for p in power]
    assert torch.allclose(bands[1], bands[0], rtol=0.1)
    flat = [(r.x_adv - to_8bit(x)).flatten(2) for r in (found, noise)]
    covariance = [torch.einsum("bcn,bdn->cd", f, f) / f[0, 0].numel() for f in flat]
    assert torch.allclose(covariance[1], covariance[0], rtol=0.1, atol=1e-5)  # the channels go together as before
    assert noise.objective.mean() < 0.7 * found.objective.mean()
    assert torch.equal(noise.x_adv[2:], attacks.SpectralNoise(EPS, like=attack)(hyperprior, x[2:]).x_adv)


@pytest.mark.parametrize("like", [None, attacks.RandomNoise(EPS)])
def test_noise_with_a_spectrum_needs_an_attack_to_take_it_from(like):
    with pytest.raises(ValueError, match="like must be an attack that follows gradients"):
        attacks.SpectralNoise(EPS, like=like)
    with pytest.raises(ValueError, match="norm must be"):
        attacks.SpectralNoise(EPS, norm="linf", like=attacks.PGD(EPS))


def test_diverse_inputs_beat_noise(hyperprior, crops):
    # resized sources are rounded elsewhere, so this costs strength on the codec itself: it is meant to travel
    attack = attacks.DIFGSM(EPS, steps=8)
    assert damage(hyperprior, crops, attack) < damage(hyperprior, crops, attacks.FGSM(EPS, surrogate="ste"))
    assert attack(hyperprior, crops[:1]).gradients == 8


def test_apgd_s_checkpoints_are_the_paper_s():
    assert sorted(attacks.APGD(EPS, steps=100).checkpoints()) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_apgd_halves_its_step_and_goes_back_to_its_best_where_nothing_improves():
    # torchattacks' APGD judges before rounding to 8 bits, so that its steps are not ours: a function that can be followed by hand
    x, target = torch.full((1, 3, 16, 16), 128 / 255), 129 / 255

    def value(x_adv, rows=slice(None)):
        return -(x_adv - target).abs().mean((1, 2, 3))  # the best point is one level away: steps of 2·eps pass over it

    seen = []

    class Watched(attacks.Problem):
        def value_and_gradient(self, x_adv, step=0):
            seen.append(x_adv.clone())
            return super().value_and_gradient(x_adv, step)

    attack = attacks.APGD(EPS, steps=12)
    state = attack._run(Watched(to_8bit(x), Linf(EPS), value, value, False))
    moves = [float((b - a).abs().max()) * 255 for a, b in itertools.pairwise(seen)]
    assert sorted(attack.checkpoints())[0] == 3
    assert max(moves[:3]) > 8 and max(moves[-3:]) < max(moves[:3]) / 2  # from across the ball to a few levels
    best = torch.stack([value(to_8bit(s)) for s in seen]).amax(0)
    assert state.best_value >= best - 1e-6 and state.best_value > -1 / 255 and state.gradients == 12


def test_without_momentum_mi_fgsm_is_i_fgsm(hyperprior, x):
    a, b = attacks.MIFGSM(EPS, steps=3, mu=0.0)(hyperprior, x), attacks.IFGSM(EPS, steps=3)(hyperprior, x)
    assert torch.equal(a.x_adv, b.x_adv)


def test_without_diversity_di_fgsm_is_i_fgsm(hyperprior, x):
    a = attacks.DIFGSM(EPS, steps=3, probability=0.0)(hyperprior, x)
    assert torch.equal(a.x_adv, attacks.IFGSM(EPS, steps=3)(hyperprior, x).x_adv)
    resized = attacks.DIFGSM(EPS, probability=1.0, smallest=0.5)._resized(x, 3)
    assert resized.shape == x.shape and (resized == 0).any()


@pytest.mark.parametrize("attack", ALL, ids=str)
@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_results_are_8bit_images_inside_the_budget(name, attack, x, request):
    result = attack(request.getfixturevalue(name), x)
    assert result.x_adv.shape == x.shape and torch.equal(result.x_adv, to_8bit(result.x_adv))
    assert (result.x_adv - x).abs().max() <= EPS + 1e-6
    torch.testing.assert_close(result.linf, (result.x_adv - x).abs().flatten(1).amax(1).double())
    assert result.objective.shape == (len(x),)


@pytest.mark.parametrize("attack", ALL, ids=str)
def test_a_batch_equals_its_images_one_by_one_and_a_rerun(attack, hyperprior, x):
    def one_by_one():
        results = [attack(hyperprior, x[k : k + 1]) for k in range(len(x))]
        return torch.cat([r.x_adv for r in results]), torch.cat([r.objective for r in results])

    # convolutions that treat each image alike whatever the batch: not one sample may differ
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(attack(hyperprior, x).x_adv, one_by_one()[0])
    # oneDNN's differ in the last bit between batch sizes, which can flip a symbol and send an iterate another way
    together, (_, objective) = attack(hyperprior, x), one_by_one()
    assert torch.equal(together.x_adv, attack(hyperprior, x).x_adv)
    torch.testing.assert_close(together.objective, objective, rtol=0.02, atol=0)


def test_the_seed_matters(hyperprior, x):
    assert not torch.equal(
        attacks.PGD(EPS, seed=0, steps=2)(hyperprior, x).x_adv, attacks.PGD(EPS, seed=1, steps=2)(hyperprior, x).x_adv
    )


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_attacks_beat_noise_and_pgd_beats_fgsm(name, crops, request):
    codec = request.getfixturevalue(name)
    crops = crops[..., :64, :64] if name == "cheng" else crops
    uniform, sign = (damage(codec, crops, attacks.RandomNoise(EPS, kind=k)) for k in ("uniform", "sign"))
    fgsm = damage(codec, crops, attacks.FGSM(EPS))
    pgd = damage(codec, crops, attacks.PGD(EPS, steps=10))
    assert pgd < fgsm < sign < uniform


def test_the_best_iterate_is_kept(hyperprior, crops):
    # where iterates are judged at every step; steps that overshoot
    result = attacks.PGD(EPS, alpha=2 * EPS, steps=12, surrogate="ste")(hyperprior, crops)
    judged = result.trace[~result.trace.isnan().any(1)]
    assert len(judged) > 10 and (judged[-1] < judged.amax(0)).any()  # it is not always the last
    torch.testing.assert_close(result.objective.cpu(), judged.amax(0), rtol=0.02, atol=0)
    truth = (hyperprior.reconstruct(result.x_adv) - hyperprior.reconstruct(crops)).pow(2).mean((1, 2, 3))
    torch.testing.assert_close(result.objective, truth, rtol=1e-3, atol=1e-7)


def test_the_climb_can_be_watched_at_every_gradient(hyperprior, crops):
    result = attacks.IFGSM(EPS, steps=6)(hyperprior, crops[:2])
    assert result.surrogate_trace.shape == (6, 2) and (result.surrogate_trace[-1] > result.surrogate_trace[0]).all()
    assert attacks.RandomNoise(EPS)(hyperprior, crops[:2]).surrogate_trace.shape == (0, 2)


def test_restarts_never_hurt_and_cost_what_they_say(hyperprior, crops):
    one = attacks.PGD(EPS, steps=4)(hyperprior, crops)
    three = attacks.PGD(EPS, steps=4, restarts=3)(hyperprior, crops)
    assert (three.objective >= one.objective - 1e-9).all()
    assert (one.gradients, three.gradients) == (4, 12)
    assert attacks.FGSM(EPS)(hyperprior, crops[:1]).gradients == 1


def test_the_straight_through_gradient_at_the_source_is_zero_so_fgsm_starts_beside_it(hyperprior, crops):
    value = Distortion().bind(hyperprior, crops, "ste")
    problem = attacks.Problem(crops, Linf(EPS), value, value, True)
    assert problem.value_and_gradient(crops)[1].abs().max() == 0
    assert attacks.FGSM(EPS, surrogate="ste")(hyperprior, crops).linf.min() > 0
    unrounded = Distortion().bind(hyperprior, crops, "identity")
    assert attacks.Problem(crops, Linf(EPS), unrounded, value, False).value_and_gradient(crops)[1].abs().max() > 0


def test_true_rounding_gives_an_attack_nothing_to_climb(hyperprior, crops):
    result = attacks.FGSM(EPS, surrogate=None)(hyperprior, crops)
    assert result.linf.max() == 0


@pytest.mark.parametrize("reference", ["clean", "source", "own"])
def test_each_reference_is_what_its_objective_raises(reference, hyperprior, crops):
    column = {"clean": "psnr_recon", "source": "psnr_source", "own": "psnr_own"}[reference]
    rows = {}
    for name, attack in (("pgd", attacks.PGD(EPS, steps=6)), ("noise", attacks.RandomNoise(EPS))):
        x_adv = attack(hyperprior, crops, Distortion(reference)).x_adv
        rows[name] = metrics.before_after(hyperprior, crops, x_adv, real_rate=False)[column].mean()
    assert rows["pgd"] < rows["noise"]


@pytest.mark.parametrize("measure", ["luma", "ms_ssim"])
def test_each_measure_is_raised_most_by_its_own_attack(measure, hyperprior):
    x = torch.stack([im[:, :176, :176] for im in load_images("bundled")[:2]])
    value = Distortion(measure=measure).bind(hyperprior, to_8bit(x), None)
    reached = {
        m: float(value(attacks.IFGSM(EPS / 2, steps=8)(hyperprior, x, Distortion(measure=m)).x_adv).mean())
        for m in ("mse", measure)
    }
    assert reached[measure] > reached["mse"]


def test_the_six_directions_move_rate_and_distortion_as_their_names_say(hyperprior, crops):
    def measure(x_adv):
        out = hyperprior(x_adv, None)
        return float(out.bpp.mean()), float((out.x_hat - x_adv).pow(2).mean())

    clean, found = measure(crops), {}
    for name, angle in DIRECTIONS.items():
        found[name] = measure(attacks.IFGSM(EPS, steps=8)(hyperprior, crops, Joint.at(angle)).x_adv)
    rate, distortion = ({n: v[k] for n, v in found.items()} for k in (0, 1))
    assert max(rate, key=rate.get) in ("rate", "rate, quality kept", "mostly rate")
    assert max(distortion, key=distortion.get) in ("distortion", "both", "distortion, rate kept")
    assert all(rate[n] > clean[0] for n in ("rate", "mostly rate", "both", "rate, quality kept"))
    assert distortion["rate, quality kept"] < distortion["rate"]
    assert rate["distortion, rate kept"] < rate["distortion"]


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_srda_raises_what_its_angle_says_more_than_noise_of_its_size(name, crops, request):
    codec = request.getfixturevalue(name)
    crops = crops[:2, :, :64, :64] if name == "cheng" else crops  # whose pixels cost five times as much
    noise = attacks.RandomNoise(EPS / 2, norm="l2rms")(codec, crops)
    for angle in DIRECTIONS.values():
        value = Joint.at(angle).bind(codec, to_8bit(crops), None)
        result = attacks.SRDA(EPS / 2, angle=angle, steps=10)(codec, crops)
        assert value(result.x_adv).mean() > value(noise.x_adv).mean(), angle
        assert result.rms.max() <= EPS / 2 * 1.0001 and result.gradients == (30 if Joint.at(angle).b <= 0 else 10)


def test_srda_takes_any_objective_and_its_settings_are_checked(hyperprior, x):
    result = attacks.SRDA(EPS / 2, steps=4)(hyperprior, x, Distortion())
    assert result.objective.min() > 0
    for bad in ({"steps": 0}, {"optimiser": "sgd"}, {"angle": float("nan")}, {"alpha": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            attacks.SRDA(EPS, **bad)


def test_the_noise_surrogate_is_seeded_and_judged_by_the_rounding_codec(hyperprior, crops):
    attack = attacks.PGD(EPS, steps=3, surrogate="noise")
    first, second = attack(hyperprior, crops), attack(hyperprior, crops)
    assert torch.equal(first.x_adv, second.x_adv)
    truth = (hyperprior.reconstruct(first.x_adv) - hyperprior.reconstruct(crops)).pow(2).mean((1, 2, 3))
    torch.testing.assert_close(first.objective, truth, rtol=1e-3, atol=1e-7)


def test_other_precisions_come_back_as_they_went_in(hyperprior, crops):
    result = attacks.FGSM(EPS)(hyperprior, crops.double())
    assert result.x_adv.dtype == torch.float64 and result.linf.max() <= EPS + 1e-9


def test_the_rate_attack_inflates_real_bytes_more_than_noise(hyperprior, cheng, crops):
    for codec in (hyperprior, cheng):
        ratios = [
            metrics.before_after(codec, crops, attack(codec, crops, Rate()).x_adv)["bpp_ratio"].mean()
            for attack in (attacks.PGD(EPS, steps=6), attacks.RandomNoise(EPS, kind="sign"))
        ]
        assert ratios[0] > ratios[1]


def test_black_white_and_constant_images_have_room_on_one_side_only(hyperprior):
    for level in (0.0, 1.0, 0.2):
        x = to_8bit(torch.full((1, 3, 64, 64), level))
        result = attacks.PGD(EPS, steps=3)(hyperprior, x)
        assert 0 < result.linf.item() <= EPS + 1e-6 and torch.isfinite(result.x_adv).all()


def test_lists_of_different_sizes(hyperprior, x):
    images = [x[0], x[1, :, :32, :48]]
    result = attacks.FGSM(EPS)(hyperprior, images)
    assert [v.shape for v in result.x_adv] == [v.shape for v in images]
    assert result.linf.shape == (2,) and result.trace.size(1) == 2
    assert len(metrics.before_after(hyperprior, images, result.x_adv)) == 2


def test_bad_settings_and_inputs(hyperprior, x):
    for bad in ({"steps": 0}, {"restarts": 0}, {"alpha": 0}, {"alpha": -0.1}, {"alpha": 3 * EPS}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            attacks.PGD(EPS, **bad)
    for attack in (attacks.IFGSM, attacks.MIFGSM, attacks.DIFGSM, attacks.APGD):
        with pytest.raises(ValueError, match="steps"):
            attack(EPS, steps=0)
    with pytest.raises(ValueError, match="mu must"):
        attacks.MIFGSM(EPS, mu=-1)
    with pytest.raises(ValueError, match="norm must be one of linf, l2rms"):
        attacks.FGSM(EPS, norm="l1")
    with pytest.raises(ValueError, match="side below 16"):
        attacks.DIFGSM(EPS, smallest=0.2)(hyperprior, x)
    with pytest.raises(ValueError, match="kind must be"):
        attacks.RandomNoise(EPS, kind="gauss")
    with pytest.raises(ValueError, match="reference must be"):
        Distortion("other")
    with pytest.raises(ValueError, match="measure must be one of mse, luma, ms_ssim"):
        Distortion(measure="vmaf")
    with pytest.raises(ValueError, match="at least 161"):
        attacks.FGSM(EPS)(hyperprior, x, Distortion(measure="ms_ssim"))
    with pytest.raises(ValueError, match="both be 0"):
        Joint(0, 0)
    with pytest.raises(ValueError, match="NaN"):
        attacks.FGSM(EPS)(hyperprior, torch.full_like(x, float("nan")))


def test_a_classical_codec_says_how_to_attack_it(x):
    with pytest.raises(TypeError, match="BPDA"):
        attacks.FGSM(EPS)(load_codec("jpeg"), x)
    noise = attacks.RandomNoise(EPS)(load_codec("jpeg"), x)
    assert noise.linf.max() <= EPS + 1e-6 and noise.objective.min() > 0
    with pytest.raises(ValueError, match="no λ"):
        attacks.RandomNoise(EPS)(load_codec("jpeg"), x, Joint.at(45))


class WithoutFlags:
    """An objective that does not say how its gradient is to be had."""

    def bind(self, codec, x, surrogate):
        return lambda v, rows=slice(None): codec(v, surrogate).x_hat.mean((1, 2, 3))


@pytest.mark.parametrize(
    "wrong, says",
    [
        ("rate", "'rate' is no objective: there are"),
        (Rate, "Rate is a class"),
        (WithoutFlags(), "lacks surrogate and flat_at_source"),
        (lambda v: v, "no objective"),
        (0, "no objective"),
    ],
)
def test_what_is_no_objective_is_told_what_one_is(wrong, says, hyperprior, crops):
    with pytest.raises(TypeError, match=says):
        attacks.PGD(EPS, steps=1)(hyperprior, crops[:1], wrong)
    with pytest.raises(TypeError, match=says):
        Together(wrong)


def test_an_attack_takes_a_generator_of_images(hyperprior, crops):
    result = attacks.RandomNoise(EPS)(hyperprior, (image for image in crops[:2]))
    assert isinstance(result.x_adv, list) and len(result.x_adv) == 2
