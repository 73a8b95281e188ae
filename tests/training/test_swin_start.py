"""What STF's start from principal components rests on: normalisations that let features' sizes pass."""

import pytest
import torch
from test_training import folder  # noqa: F401

from nic_helpers.codecs.zou2022 import StfModel
from nic_helpers.training.data import Crops
from nic_helpers.training.start import pca_initialise
from nic_helpers.training.swin_start import _lift, _pattern, _room

WIDTHS = (6, 4, 2, 8, 2)


@torch.no_grad()
def _halved(model, x):
    """How far the latents of half the contrast are from half the latents, in their own size."""
    middle = x.mean((0, 2, 3), keepdim=True)
    y, low, none = (model.g_a(middle + share * (x - middle)) for share in (1, 0.5, 0))
    return float(((low - none) - (y - none) / 2).square().mean().sqrt() / (low - none).square().mean().sqrt())


def test_the_analysis_is_closer_to_linear_than_stf_s_own_weights(folder):  # noqa: F811
    x = Crops(folder).batch(8, 64, 0, 1)
    torch.manual_seed(0)
    model = StfModel(*WIDTHS)
    own = _halved(model, x)
    pca_initialise("zou2022-stf", model, x, 0.0067)
    assert own > 0.35 and _halved(model, x) < 0.22


@pytest.mark.parametrize("n", [3, 8, 9])
def test_a_lifted_normalisation_passes_all_but_the_mean_and_the_pattern(n):
    torch.manual_seed(0)
    room, norm, bias = _room(n), torch.nn.LayerNorm(n), torch.zeros(n)
    torch.testing.assert_close(room.T @ room, torch.eye(n - 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(room.T @ torch.stack((torch.ones(n), _pattern(n)), 1), torch.zeros(n - 2, 2), atol=1e-6, rtol=0)
    v = torch.randn(2, n - 2, 4, 4).movedim(1, 3) @ room.T
    with torch.no_grad():
        _lift(bias, norm, v.movedim(3, 1))
        error = norm(v + bias) - v
    assert error.square().mean() < 0.05 * v.square().mean()
