"""How a decoder grows with its latents."""

import pytest
import torch
from conftest import untrained

from nic_helpers import analysis, load_codec


@pytest.mark.parametrize(
    "name, low, high", [("bmshj2018-hyperprior", 7.5, 8.5), ("zou2022-wacnn", 5, 8.5), ("zou2022-stf", -0.1, 0.1)]
)
def test_three_igdn_cube_and_normalised_layers_do_not_grow(x, name, low, high):
    assert low < analysis.growth_exponent(load_codec(name, 3, device="cpu"), x[:1, :, :64, :64]) < high


def test_a_linear_synthesis_has_one(x, monkeypatch):
    codec = untrained("bmshj2018-factorized")
    weights = torch.ones(3, codec.walk(x[:1], None, synthesis=False).y_hat.shape[1], 1, 1)
    monkeypatch.setattr(type(codec.arch), "synthesis", lambda self, y: torch.nn.functional.conv2d(y, weights))
    assert analysis.growth_exponent(codec, x[:1]) == pytest.approx(1)


def test_what_overflows_is_said(x, monkeypatch):
    codec = untrained("bmshj2018-factorized")
    monkeypatch.setattr(type(codec.arch), "synthesis", lambda self, y: y * float("inf"))
    with pytest.raises(ValueError, match="no finite numbers"):
        analysis.growth_exponent(codec, x[:1])
