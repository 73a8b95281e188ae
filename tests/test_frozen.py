"""What the package computes does not move while its inside is rebuilt (tests/frozen.py compares bit for bit)."""

import frozen
import numpy as np
import pytest
import torch

from nic_helpers.codecs.base import has_bfloat16
from nic_helpers.settings import PROJECT


@pytest.fixture(scope="module")
def both():
    """Every number that is frozen: name -> (stored, of this program).

    A processor without bfloat16 computes it in other steps, and an attack in it (FTDA) ends elsewhere: what such a one made is frozen
    beside the rest.
    """
    found, folder = frozen.numbers(), PROJECT / "tests" / "data"
    with np.load(folder / "frozen.npz") as stored, np.load(folder / "frozen_without_bfloat16.npz") as emulated:
        assert set(stored) - {"program"} == set(found) and set(emulated) < set(found)
        own = stored if has_bfloat16(torch.device("cpu")) else emulated
        return {k: (own[k] if k in emulated else stored[k], found[k]) for k in found}


def test_outputs_and_bits_are_those_stored(both):
    for name, (stored, found) in both.items():
        if "x_hat" in name or name.endswith("reconstruct"):
            # where a latent lies on a rounding boundary another processor may round it the other way
            assert (np.abs(stored - found) < 2e-3).mean() > 0.97, name
        elif "/bits" in name:
            np.testing.assert_allclose(found, stored, rtol=5e-3, atol=0.5, err_msg=name)


def test_streams_are_as_long_and_begin_alike(both):
    for name, (stored, found) in both.items():
        if "/stream" in name:
            assert abs(len(stored) - len(found)) <= 2 + 0.01 * len(stored), name
            assert np.array_equal(stored[:8], found[:8]), name


def test_attacks_find_the_same_images(both):
    for name, (stored, found) in both.items():
        if name.endswith("x_adv"):
            assert (stored == found).mean() > 0.9, name
        elif name.endswith("objective"):
            np.testing.assert_allclose(found, stored, rtol=0.03, err_msg=name)


def test_rows_say_the_same(both):
    for name, (stored, found) in both.items():
        if name.endswith("rows"):
            np.testing.assert_allclose(found, stored, rtol=0.03, atol=0.1, err_msg=name)
