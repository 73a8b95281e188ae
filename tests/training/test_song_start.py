"""What Song's start from principal components rests on: the quality arrives at the decoder, and what it does there undoes what it did to
the latents."""

import math

import pytest
import torch
from test_training import folder  # noqa: F401

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.quantisers import round_true
from nic_helpers.codecs.song2021 import Song2021, level_of
from nic_helpers.training.data import Crops
from nic_helpers.training.song_start import KNOTS, STEPS_OF_Z, _pieces
from nic_helpers.training.start import pca_initialise


@pytest.fixture(scope="module")
def begun(folder):  # noqa: F811
    """A small model at its start, and images that it has seen."""
    torch.manual_seed(0)
    model, x = Song2021.build(12, 48), Crops(folder).batch(4, 128, 0, 1)
    pca_initialise("song2021", model, x, LAMBDAS[6])
    return model.eval(), x


@torch.no_grad()
def test_the_side_information_says_which_quality_was_asked_for(begun):
    model, x = begun
    for q in (1, 3, 6):
        arch = Song2021(model, q)
        said = arch.hyper(arch.analysis(x))[:, 0] / STEPS_OF_Z + 0.5
        torch.testing.assert_close(said, torch.full_like(said, level_of(LAMBDAS[q])), atol=1e-4, rtol=0)
    ramp = torch.linspace(0, 1, 128).expand(128, 128)
    arch = Song2021(model).with_map(ramp)
    said = arch.hyper(arch.analysis(x))[0, 0] / STEPS_OF_Z + 0.5
    assert said[0, 0] < 0.35 and said[0, 1] > 0.4 and torch.equal(said[0], said[1])


@torch.no_grad()
def test_latents_grow_with_the_quality_and_the_synthesis_takes_it_back(begun):
    model, x = begun
    spread, decoded, bits = {}, {}, {}
    for q in (1, 3, 6):
        arch = Song2021(model, q)
        y = arch.analysis(x)
        spread[q] = float(y.std((0, 2, 3)).norm())
        decoded[q] = walk(arch, x, lambda v, _offset=0: v).x_hat
        bits[q] = sum(float(b.sum()) for b in walk(arch, x, round_true).bits().values())
    for q in (1, 3):
        assert spread[6] / spread[q] == pytest.approx(math.sqrt(LAMBDAS[6] / LAMBDAS[q]), rel=0.05)
        assert float((decoded[q] - decoded[6]).square().mean().sqrt()) < 0.03
    assert bits[1] < bits[3] < bits[6]


def test_straight_pieces_meet_their_curve_at_the_knots():
    curve = [math.exp(2 * q) for q in (*KNOTS, 1.0)]
    start, bends = _pieces(curve)
    for q, value in zip((*KNOTS, 1.0), curve, strict=True):
        assert start + sum(b * max(0.0, q - k) for b, k in zip(bends, KNOTS, strict=True)) == pytest.approx(value)
