"""What holds for every attack, on every kind of codec: bounds, determinism, and that it is worth its gradients."""

import warnings

import pytest
import torch
from conftest import untrained
from test_adaptive import Rolled
from test_ascent import Spoilt

from nic_helpers import attacks, load_codec, load_images
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Joint, Together
from nic_helpers.training.kinds import has_other_transforms

EPS = 8 / 255
LINF = [attacks.FGSM, attacks.IFGSM, attacks.PGD, attacks.MIFGSM, attacks.DIFGSM, attacks.APGD, attacks.Square]
RMS = [attacks.SRDA, attacks.ARDA, attacks.FTDA, attacks.MADC, attacks.SSAH, attacks.Chroma]
EVERY = pytest.mark.parametrize("attack", LINF + RMS, ids=lambda a: a.__name__)


def make(attack, eps=EPS, steps=2):
    """An attack with so many steps (Square: as many forward passes as so many gradients cost)."""
    length = {attacks.FGSM: {}, attacks.Square: {"queries": 10 * steps}}.get(attack, {"steps": steps})
    return attack(eps, **length)


def objective(attack):
    """What an attack raises unless it is told otherwise."""
    if attack is attacks.ARDA:
        return Together(Joint(0, 1), 0.01)
    return Joint(0, 1) if attack is attacks.SRDA else Distortion()


def value(attack, codec, x, x_adv):
    """The mean over images of what the attack raises."""
    codec = [codec] if attack is attacks.ARDA else codec
    return float(objective(attack).bind(codec, to_8bit(x), None)(x_adv).mean())


@pytest.fixture(scope="module")
def crops():
    """Four 96×96 crops [4, 3, 96, 96] of the bundled images."""
    return torch.stack([im[:, 64:160, 64:160] for im in load_images("bundled")[:4]])


#: An attack sees no more of an architecture than its gradient: those that take long are attacked in the shortest way alone.
SLOW = [name for name, kind in ARCHITECTURES.items() if has_other_transforms(kind)]
RUNS = [
    (attack, arch, kind)
    for attack in LINF + RMS
    for arch in ARCHITECTURES
    for kind in ("plain", "defended", "draws of a random one")
    if arch not in SLOW or (attack is attacks.SRDA and kind == "plain")
]


@pytest.mark.parametrize("attack, arch, kind", RUNS, ids=lambda v: getattr(v, "__name__", v))
def test_it_runs_on_every_codec_and_on_a_defended_one_and_stays_inside(attack, arch, kind, x):
    codec, some = untrained(arch), x[:1, :, :, :48]
    codec = {"plain": codec, "defended": Rolled(codec), "draws of a random one": attacks.eot(Rolled(codec), 2)}[kind]
    how = make(attack)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*stay as they were")  # two steps need not find anything
        result = how(codec, some)
    assert result.x_adv.shape == some.shape and torch.equal(result.x_adv, to_8bit(result.x_adv))
    assert float(result.linf if how.norm == "linf" else result.rms) <= EPS * 1.0001
    assert result.objective.isfinite().all() and result.trace.size(1) == result.surrogate_trace.size(1) == 1


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
@EVERY
def test_it_beats_uniform_and_sign_noise_of_its_budget(attack, name, crops, request):
    codec = request.getfixturevalue(name)
    crops = crops[..., :64, :64] if name == "cheng" else crops  # whose pixels cost five times as much
    how = make(attack, steps=10 if attack is not attacks.Square else 20)
    noises = [attacks.RandomNoise(EPS, norm=how.norm, kind=kind)(codec, crops).x_adv for kind in ("uniform", "sign")]
    assert value(attack, codec, crops, how(codec, crops).x_adv) > max(value(attack, codec, crops, n) for n in noises)


@EVERY
def test_it_is_stronger_with_eps_and_with_steps(attack, hyperprior, crops):
    by_eps = [value(attack, hyperprior, crops, make(attack, k / 255, 12)(hyperprior, crops).x_adv) for k in (2, 4, 8)]
    assert by_eps == sorted(by_eps)
    if attack not in (
        attacks.FGSM,
        attacks.SSAH,
    ):  # SSAH's later steps obey its penalty better, at the objective's cost
        by_steps = [value(attack, hyperprior, crops, make(attack, EPS, n)(hyperprior, crops).x_adv) for n in (2, 6)]
        assert by_steps[0] < by_eps[-1] and by_eps[-1] > 0.99 * max(by_steps)


@EVERY
def test_an_image_is_attacked_alike_alone_in_a_batch_and_again(attack, hyperprior, x):
    how = make(attack, steps=4)
    with torch.backends.mkldnn.flags(enabled=False):  # convolutions that treat an image alike whatever the batch
        together = how(hyperprior, x)
        alone = [how(hyperprior, x[k : k + 1]) for k in range(len(x))]
    assert torch.equal(together.x_adv, torch.cat([r.x_adv for r in alone]))
    torch.testing.assert_close(together.objective, torch.cat([r.objective for r in alone]), rtol=1e-5, atol=0)
    first, second = how(hyperprior, x), how(hyperprior, x)
    assert torch.equal(first.x_adv, second.x_adv) and torch.equal(first.objective, second.objective)


class FailsLate(Distortion):
    """The distortion without rounding, whose gradient is not a number from one on."""

    after = 3
    calls = 0

    def bind(self, codec, x, surrogate):
        inner = super().bind(codec, x, surrogate)

        def spoilt(x_adv, rows=slice(None)):
            if not x_adv.requires_grad:
                return inner(x_adv, rows)
            object.__setattr__(self, "calls", self.calls + 1)
            bad = torch.full((len(x_adv), 1, 1, 1), self.calls > self.after)
            return inner(Spoilt.apply(x_adv, bad), rows)

        return spoilt


@pytest.mark.parametrize(
    "attack", [a for a in LINF + RMS if a not in (attacks.FGSM, attacks.Square, attacks.ARDA)], ids=lambda a: a.__name__
)
def test_what_was_climbed_before_a_gradient_failed_is_kept(attack, hyperprior, crops):
    # where iterates are judged once in a while only, the one at which it ends must be
    with pytest.warns(UserWarning, match="its gradient is not finite"):
        stopped = make(attack, steps=12)(hyperprior, crops, FailsLate())
    noise = attacks.RandomNoise(EPS, norm=make(attack).norm, kind="sign")(hyperprior, crops)
    assert stopped.objective.mean() > noise.objective.mean()
    truth = Distortion().bind(hyperprior, to_8bit(crops), None)(stopped.x_adv)
    torch.testing.assert_close(stopped.objective, truth, rtol=1e-3, atol=1e-9)


def test_what_cannot_move_is_said(hyperprior):
    black = torch.zeros(1, 3, 64, 64)
    with pytest.warns(UserWarning, match=r"image\(s\) \[0\] of the batch stay as they were"):
        assert attacks.Chroma(EPS, steps=2)(hyperprior, black).linf == 0  # black has no other colour at its luma
    with pytest.warns(UserWarning, match="rounding to 8 bits leave room for"):
        attacks.RandomNoise(0.2 / 255, norm="l2rms")(hyperprior, black + 0.4)


ALPHAS = (None, EPS, EPS / 2, EPS / 4)  # None: falling from eps to eps/steps


def test_at_equal_cost_pgd_is_no_weaker_than_fgsm_with_restarts_and_apgd_than_pgd(crops):
    names = [("bmshj2018-hyperprior", q) for q in (1, 3, 6)] + [("cheng2020-anchor", 3)]
    gains, n = [], 10
    for name, quality in names:
        codec = load_codec(name, quality, device="cpu")
        x = crops[..., :64, :64] if name.startswith("cheng") else crops  # whose pixels cost five times as much
        found = {"FGSM": attacks.FGSM(EPS, restarts=n)(codec, x), "APGD": attacks.APGD(EPS, steps=n)(codec, x)}
        tried = [attacks.PGD(EPS, alpha=alpha, steps=n)(codec, x) for alpha in ALPHAS]
        found["PGD"] = max(tried, key=lambda r: r.objective.mean())  # at its best α; the other two have none
        assert {r.gradients for r in found.values()} == {n}
        strength = {k: float(10 * torch.log10(r.objective).mean()) for k, r in found.items()}
        gains.append((strength["PGD"] - strength["FGSM"], strength["APGD"] - strength["PGD"]))
    # on average over codecs; at the coarsest quality one step is nearly all there is, and its restarts may be ahead a little
    pgd, apgd = (sum(g) / len(g) for g in zip(*gains, strict=True))
    assert pgd > 0 and apgd > 0 and min(g for pair in gains for g in pair) > -0.2, gains
