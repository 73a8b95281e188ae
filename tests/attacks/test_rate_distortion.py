import pytest
import torch

from nic_helpers import attacks, load_codec, load_images
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Joint, Together

EPS = 4 / 255


@pytest.fixture(scope="module")
def crops():
    """Three 128×128 crops [3, 3, 128, 128] of the bundled images."""
    return torch.stack([im[:, 64:192, 64:192] for im in load_images("bundled")[:3]])


@pytest.fixture(scope="module")
def qualities():
    """The hyperprior at three qualities."""
    return [load_codec("bmshj2018-hyperprior", q, device="cpu") for q in (1, 3, 6)]


def effects(codecs, x, x_adv, angle):
    """[codecs, B]: what an attack gained on each, as Together counts it."""
    objective = Joint.at(angle)
    return torch.stack([Together(objective).bind([c], to_8bit(x), None)(x_adv) for c in codecs])


def test_agnostic_lifts_the_codec_that_suffers_least(qualities, crops):
    how = {
        "angle": 0.0,
        "steps": 15,
        "surrogate": "noise",
    }  # one: the best of three is chosen by each one's own objective
    mean, least = (
        attacks.SRDA(EPS, **how)(qualities, crops),
        attacks.ARDA(EPS, temperature=0.03, **how)(qualities, crops),
    )
    soft, plain = (effects(qualities, crops, r.x_adv, 0.0).amin(0).mean() for r in (least, mean))
    assert soft > plain and least.rms.max() <= EPS * 1.0001


def test_agnostic_beats_an_attack_on_one_quality_at_its_worst(qualities, crops):
    how = {"angle": 0.0, "steps": 15, "surrogate": "noise"}
    agnostic = attacks.ARDA(EPS, temperature=0.1, **how)(qualities, crops)
    reached = effects(qualities, crops, agnostic.x_adv, 0.0).amin(0).mean()
    for codec in qualities:
        single = attacks.SRDA(EPS, **how)(codec, crops)
        assert reached > effects(qualities, crops, single.x_adv, 0.0).amin(0).mean(), codec.quality


def test_together_weighs_as_a_soft_minimum(qualities, crops):
    x = to_8bit(crops)
    x_adv = to_8bit(x + EPS * torch.sign(torch.randn(x.shape, generator=torch.Generator().manual_seed(0))))
    each = effects(qualities, x, x_adv, 45.0)
    for temperature, expected in ((float("inf"), each.mean(0)), (1e4, each.mean(0)), (1e-4, each.amin(0))):
        value = Together(Joint.at(45.0), temperature).bind(qualities, x, None)(x_adv)
        torch.testing.assert_close(value, expected, rtol=0.02, atol=1e-3)
    assert Together(Joint.at(45.0)).bind(qualities, x, None)(x).abs().max() < 1e-6


def test_any_attack_takes_a_list_of_codecs(qualities, crops):
    result = attacks.PGD(2 * EPS, steps=4)(qualities[:2], crops[:1])
    noise = attacks.RandomNoise(2 * EPS, kind="sign")(qualities[:2], crops[:1])
    assert result.objective > noise.objective and result.linf.max() <= 2 * EPS + 1e-6


def test_ftda_stays_inside_and_beats_noise(hyperprior, crops):
    result = attacks.FTDA(EPS, steps=25)(hyperprior, crops)
    value = Distortion().bind(hyperprior, to_8bit(crops), None)
    noise = attacks.RandomNoise(EPS, norm="l2rms")(hyperprior, crops)
    assert result.rms.max() <= EPS * 1.0001 and result.linf.max() <= 16 / 255 + 1e-6
    assert (value(result.x_adv) > 1.5 * value(noise.x_adv)).all()


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0])
def test_steepest_ascent_finds_more_than_adam_at_equal_cost(angle, qualities, crops):
    for codec in qualities:
        value = Joint.at(angle).bind(codec, to_8bit(crops), None)
        steepest, adam = (attacks.SRDA(2 * EPS, angle=angle, steps=12, optimiser=o)(codec, crops) for o in ("steepest", "adam"))
        assert steepest.gradients == adam.gradients == (36 if angle == 0 else 12) and adam.rms.max() <= 2 * EPS * 1.0001
        assert value(steepest.x_adv).mean() > value(adam.x_adv).mean()
        assert steepest.rms.min() > 0.98 * 2 * EPS


def test_agnostic_takes_one_codec_as_a_list_of_one(hyperprior, crops):
    one, listed = (attacks.ARDA(EPS, steps=3)(c, crops[:1]) for c in (hyperprior, [hyperprior]))
    assert torch.equal(one.x_adv, listed.x_adv)
    with pytest.raises(ValueError, match="an empty list of codecs"):
        attacks.ARDA(EPS)([], crops)


def test_bad_settings():
    with pytest.raises(ValueError, match="temperature"):
        attacks.ARDA(EPS, temperature=0)
    with pytest.raises(ValueError, match="steps"):
        attacks.FTDA(EPS, steps=0)
    with pytest.raises(ValueError, match="lr must be a positive"):
        attacks.FTDA(EPS, lr=0)
