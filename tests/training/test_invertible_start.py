"""What Cai's start from principal components rests on: rotations that lose nothing, and means of groups that keep the most."""

import math

import pytest
import torch
from test_training import folder  # noqa: F401

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.cai2022 import Cai2022
from nic_helpers.training.data import Crops
from nic_helpers.training.invertible_start import _in_groups
from nic_helpers.training.start import pca_initialise


@pytest.fixture(scope="module")
def begun(folder):  # noqa: F811
    """A small model at its start, and images that it has seen."""
    torch.manual_seed(0)
    model, x = Cai2022.build(6, 48, 4, 1), Crops(folder).batch(8, 128, 0, 1)
    pca_initialise("cai2022", model, x, LAMBDAS[3])
    return model, x


def test_every_rotation_stays_one(begun):
    for level in begun[0].g_a[1:]:
        weight = level.operations[1].weight.detach()
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-4, rtol=0)


def test_the_means_of_groups_are_the_largest_components_over_the_groups_root():
    parts = torch.linalg.qr(torch.randn(12, 12, generator=torch.manual_seed(0)))[0]
    mixed = _in_groups(parts, 4)
    torch.testing.assert_close(mixed @ mixed.T, torch.eye(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.view(4, 3, 12).mean(0), parts[:3] / 2)


@torch.no_grad()
def test_latents_grow_with_the_quality_and_what_is_decoded_hardly_changes(begun):
    model, x = begun
    spread, decoded = {}, {}
    for q in (1, 3, 6):
        arch = Cai2022(model, q)
        y = arch.analysis(x)
        spread[q], decoded[q] = float(y.std((0, 2, 3)).norm()), arch.synthesis(y)
    assert 0.5 < spread[6] / spread[1] / math.sqrt(LAMBDAS[6] / LAMBDAS[1]) < 1.5
    assert spread[1] < spread[3] < spread[6]
    assert -10 * math.log10(float((decoded[1] - x).square().mean())) > 24
    torch.testing.assert_close(decoded[1], decoded[6], atol=0.05, rtol=0)
