import math

import pytest
import torch
from conftest import MODES

from nic_helpers import attacks, load_codec
from nic_helpers.analysis.gradients import MEANINGS, check_gradient, gradient_near, randomness
from nic_helpers.attacks.noise import RandomNoise
from nic_helpers.attacks.sign import PGD
from nic_helpers.codecs.base import Codec, CodecOutput
from nic_helpers.objectives import Distortion, Rate

EPS = 8 / 255


class Wrapped(Codec):
    """A codec with another forward pass and reconstruction: change(x_hat)."""

    name, quality = "wrapped", 0

    def __init__(self, codec, change):
        self._codec, self._change, self.device = codec, change, codec.device

    def __call__(self, x, surrogate="ste", rate=True):
        out = self._codec(x, surrogate, rate)
        return CodecOutput(self._change(out.x_hat), out.bits, out.pixels)

    def reconstruct(self, x):
        return self._change(self._codec.reconstruct(x))


@pytest.fixture(scope="module")
def coarse():
    """The bundled hyperprior at its lowest quality."""
    return load_codec("bmshj2018-hyperprior", 1, device="cpu")


def found(table):
    return set(table["check"][table["found"] == True])  # noqa: E712 (None is not False)


def row(table, check):
    return table.set_index("check").loc[check]


def test_the_default_attack_on_a_bundled_codec_can_be_trusted(coarse, x):
    table = check_gradient(coarse, x[:2])
    assert list(table["check"]) == list(MEANINGS) and found(table) == set()
    assert (table["meaning"] == "").all() and row(table, "masked").value < 0.9
    assert row(table, "zero gradient").value < 0.01 and row(table, "randomised").value == 0


def test_straight_through_gradients_of_a_coarse_codec_are_masked(coarse, x):
    table = check_gradient(coarse, x[:2], attack=PGD(EPS, surrogate="ste"))
    assert found(table) == {"masked"} and row(table, "masked").value > 1.1
    assert "blind search" in row(table, "masked").meaning


def test_true_rounding_has_a_zero_gradient_and_every_blind_search_beats_it(hyperprior, x):
    table = check_gradient(hyperprior, x[:1], attack=attacks.FGSM(EPS, surrogate=None), queries=20)
    assert found(table) == {"zero gradient", "no better than noise", "masked"}
    assert row(table, "zero gradient").value == 1 and row(table, "masked").value == math.inf


@pytest.mark.parametrize(("columns", "named"), [(16, False), (48, True)])
def test_a_gradient_that_is_zero_on_most_of_the_image_is_named(columns, named, hyperprior, x):
    class Partly(Wrapped):  # no gradient for the left part of its input
        def __call__(self, v, surrogate="ste", rate=True):
            return super().__call__(torch.cat((v[..., :columns].detach(), v[..., columns:]), 3), surrogate, rate)

    table = check_gradient(Partly(hyperprior, lambda v: v), x[:2], queries=5)
    assert row(table, "zero gradient").value == pytest.approx(columns / 64, abs=1e-3)
    assert ("zero gradient" in found(table)) == named


def test_a_random_codec_is_noticed_whatever_it_was_seeded_with(hyperprior, x):
    for seed in range(3):
        torch.manual_seed(seed)
        random = Wrapped(hyperprior, lambda v: v + torch.randn_like(v) / 255)
        assert randomness(random, x[:1]) >= 1
    table = check_gradient(random, x[:1], queries=20)
    assert "randomised" in found(table) and "eot" in row(table, "randomised").meaning
    assert randomness(hyperprior, x[:1]) == 0


@pytest.mark.parametrize(("name", "objective"), [("jpeg", None), ("bpda", Rate())])
def test_no_gradient_at_all_is_named_and_the_rest_left_open(name, objective, x):
    jpeg = load_codec("jpeg", 20)
    table = check_gradient(jpeg if name == "jpeg" else attacks.BPDA(jpeg), x[:1], objective)
    assert found(table) == {"not differentiable"} and "Square" in row(table, "not differentiable").meaning
    for check in ("zero gradient", "masked", "no better than noise"):
        assert row(table, check).found is None and math.isnan(row(table, check).value)


def test_a_gradient_that_is_not_finite_is_named(hyperprior, x):
    codec = Wrapped(hyperprior, lambda v: v + torch.sqrt(0 * v))
    table = check_gradient(codec, x[:1], attack=PGD(EPS, steps=2), queries=5)
    assert "no finite gradient" in found(table) and row(table, "no finite gradient").value == 1


def test_an_attack_that_is_noise_is_called_noise(hyperprior, x):
    assert "no better than noise" in found(check_gradient(hyperprior, x[:2], attack=RandomNoise(EPS), queries=20))
    assert "no better than noise" not in found(check_gradient(hyperprior, x[:2], Rate(), attack=PGD(EPS), queries=20))


def test_only_the_ball_of_the_blind_search_is_compared(hyperprior, x):
    with pytest.raises(ValueError, match="L∞"):
        check_gradient(hyperprior, x, Distortion("source"), attack=PGD(EPS / 2, norm="l2rms"))


def test_a_gradient_is_the_same_in_whatever_mode_it_is_asked_for(hyperprior, x):
    for objective in (Distortion(), Rate()):
        expected = gradient_near(hyperprior, x[:1], objective, PGD(EPS, surrogate="ste"))
        for mode in MODES.values():
            with mode():
                found = gradient_near(hyperprior, x[:1], objective, PGD(EPS, surrogate="ste"))
            assert torch.equal(found, expected)
