import pytest
import torch

from nic_helpers import attacks, load_codec, load_images, metrics
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Descending, Distortion, Rate

EPS = 8 / 255


@pytest.fixture(scope="module")
def fine():
    """The hyperprior at quality 6, where pictures break."""
    return load_codec("bmshj2018-hyperprior", 6, device="cpu")


@pytest.fixture(scope="module")
def crops():
    """Two 128×128 crops [2, 3, 128, 128] of the bundled images."""
    return torch.stack([im[:, 64:192, 64:192] for im in load_images("bundled")[:2]])


def apart(codec, x, found):
    """PSNR between the outputs, mean over images."""
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(found.x_adv)).mean()


# ---------------------------------------------------------------------------------------------------- continuation
def test_continuation_finds_a_branch_that_ordinary_starts_do_not(fine, crops):
    found = attacks.Continuation(EPS, steps=60)(fine, crops)
    direct = attacks.Strongest(EPS, attacks=(attacks.PGD(EPS, steps=60), attacks.APGD(EPS, steps=60)))(fine, crops)
    assert apart(fine, crops, found) < apart(fine, crops, direct) - 0.5
    assert found.gradients == 60 and direct.gradients == 120


@pytest.mark.parametrize("norm", ["linf", "l2rms"])
def test_continuation_ends_inside_its_own_budget_and_counts_its_restarts(norm, fine, crops):
    found = attacks.Continuation(EPS, steps=4, restarts=2, norm=norm)(fine, crops)
    size = found.linf if norm == "linf" else found.rms
    assert size.max() <= EPS * 1.0001 and torch.equal(found.x_adv, to_8bit(found.x_adv))
    assert found.gradients == attacks.Continuation(EPS, steps=4, restarts=2).planned_gradients() == 8


def test_continuation_begins_above_its_target(fine, crops):
    for begin in (EPS, EPS / 2, 0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="begin must be in"):
            attacks.Continuation(EPS, begin=begin)
    with pytest.raises(ValueError, match="target"):
        attacks.Continuation(4 / 255, begin=10 / 255).with_(eps=12 / 255)
    with pytest.raises(ValueError, match="at least 2"):
        attacks.Continuation(EPS, steps=1)
    assert attacks.Continuation(0.8, steps=2)(fine, crops[:1]).linf <= 0.8 + 1e-6  # where 2·eps would be above 1


# ------------------------------------------------------------------------------------------------------- strongest
def test_strongest_keeps_each_image_s_best_and_adds_up_what_it_cost(hyperprior, x):
    members = (attacks.FGSM(EPS), attacks.PGD(EPS, steps=3), attacks.PGD(EPS, steps=3, seed=1))
    alone = [a(hyperprior, x) for a in members]
    best = attacks.Strongest(EPS, attacks=members)(hyperprior, x)
    assert torch.equal(best.objective, torch.stack([r.objective for r in alone]).amax(0))
    assert best.gradients == 7 and best.judged == sum(r.judged for r in alone)
    truth = Distortion().bind(hyperprior, to_8bit(x), None)(best.x_adv)
    torch.testing.assert_close(best.objective, truth, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(best.linf, (best.x_adv - to_8bit(x)).abs().amax((1, 2, 3)).double())


def test_strongest_gives_its_budget_norm_and_seed_to_its_members():
    both = attacks.Strongest(2 / 255, norm="l2rms", seed=5, attacks=(attacks.PGD(EPS), attacks.SRDA(EPS, seed=1)))
    assert [(a.eps, a.norm, a.seed) for a in both.members()] == [(2 / 255, "l2rms", 5), (2 / 255, "l2rms", 6)]
    for bad in ((), attacks.PGD(EPS), ("PGD",), (attacks.PGD(EPS), attacks.Square(EPS))):
        with pytest.raises((ValueError, TypeError)):
            attacks.Strongest(EPS, attacks=bad)
    with pytest.raises(ValueError, match="begin"):
        attacks.Strongest(EPS, attacks=(attacks.Continuation(2 / 255, begin=4 / 255),))


# ------------------------------------------------------------------------------------------------------ surrogates
@pytest.mark.parametrize("name, steps", [("hyperprior", 4), ("cheng", 2)])
def test_attacks_on_the_rate_go_through_every_surrogate_and_keep_each_image_s_best(name, steps, x, request):
    codec, attack = request.getfixturevalue(name), attacks.PGD(EPS, steps=steps)
    each = [attack.with_(surrogate=s)(codec, x, Rate()).objective for s in ("identity", "ste", "noise")]
    best = attack(codec, x, Rate())
    assert torch.equal(best.objective, torch.stack(each).amax(0)) and best.gradients == 3 * steps
    assert attack.planned_gradients(Rate()) == 3 * steps and attack.planned_gradients() == steps
    assert torch.equal(attack.with_(surrogate="all")(codec, x, Rate()).x_adv, best.x_adv)


def test_what_judges_an_attack_is_counted_beside_its_gradients(hyperprior, x):
    # with every iterate judged an attack keeps more: APGD must look, so it is said what that costs
    by = {a: a(hyperprior, x[:1]) for a in (attacks.PGD(EPS, steps=10), attacks.APGD(EPS, steps=10))}
    assert [(r.gradients, r.judged) for r in by.values()] == [(10, 1), (10, 11)]
    assert attacks.PGD(EPS, steps=3, surrogate="ste")(hyperprior, x[:1]).judged == 1
    assert attacks.RandomNoise(EPS)(hyperprior, x[:1]).judged == 1


# --------------------------------------------------------------------------------------------------------- descend
def test_the_wrong_sign_does_less_than_noise(hyperprior, crops):
    noise = attacks.RandomNoise(EPS, kind="sign")
    for like in (attacks.FGSM(EPS), attacks.PGD(EPS, steps=4)):
        wrong = attacks.Descend(EPS, like=like)
        assert apart(hyperprior, crops, wrong(hyperprior, crops)) > apart(hyperprior, crops, noise(hyperprior, crops))
        assert wrong.planned_gradients() == like.planned_gradients()
    rates = [a(hyperprior, crops, Rate()).objective.mean() for a in (attacks.FGSM(EPS), attacks.Descend(EPS, like=like))]
    assert rates[1] < rates[0]


def test_descending_turns_the_gradient_round_and_not_the_value(hyperprior, x):
    near = (to_8bit(x) + 2 / 255).clamp(0, 1).requires_grad_(True)
    values, slopes = [], []
    for objective in (Distortion(), Descending(Distortion())):
        value = objective.bind(hyperprior, to_8bit(x), "identity")(near)
        values.append(value.detach())
        slopes.append(torch.autograd.grad(value.sum(), near)[0])
    assert torch.equal(*values) and torch.equal(slopes[0], -slopes[1])


def test_descend_needs_an_attack_that_follows_gradients():
    for bad in (None, attacks.RandomNoise(EPS), "PGD"):
        with pytest.raises(ValueError, match="follows gradients"):
            attacks.Descend(EPS, like=bad)
