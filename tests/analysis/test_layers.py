"""Layer by layer: the two controls that the ratio must pass, and what it says where a picture breaks."""

import pytest
import torch

from nic_helpers import analysis, attacks, load_codec, load_images
from nic_helpers.attacks import uniform_noise


@pytest.fixture(scope="module")
def factorized():
    return load_codec("bmshj2018-factorized", 6, device="cpu")


@pytest.fixture(scope="module")
def crops():
    return torch.stack([image[:, :128, :128] for image in load_images("bundled")[:3]])


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean", "cheng2020-anchor", "zou2022-wacnn"])
def test_two_unrelated_images_give_one_at_every_layer(name, crops):
    codec = load_codec(name, 6, device="cpu")
    before = {n: len(m._forward_hooks) for n, m in codec.model.named_modules()}
    table = analysis.ldmr(codec, crops[:2], crops[1:])
    assert table["ldmr"].between(0.93, 1.07).all() and table["cdmr"].between(0.93, 1.07).all()
    assert table["layer"].iloc[0] == "g_a.0" and "quantiser" in set(table["layer"])
    assert {n: len(m._forward_hooks) for n, m in codec.model.named_modules()} == before  # as it was


def test_noise_ends_below_one_and_where_a_picture_breaks_the_igdns_magnify(factorized, crops):
    noisy = (crops + 8 / 255 * uniform_noise(crops, 0)).clamp(0, 1)
    last = analysis.ldmr(factorized, crops, noisy).groupby("layer", sort=False)["cdmr"].mean().iloc[-1]
    assert last < 0.9
    broken = attacks.Continuation(16 / 255, steps=20, norm="l2rms")(factorized, crops).x_adv
    by_kind = analysis.ldmr(factorized, crops, broken).groupby("kind")["ldmr"].mean()
    assert by_kind["IGDN"] > 1.4 > by_kind["GDN"]


def test_the_maps_add_up(factorized, crops):
    attacked = attacks.PGD(8 / 255, steps=3)(factorized, crops).x_adv
    bits = factorized(crops, None).bits["y"]
    torch.testing.assert_close(analysis.bit_map(factorized, crops).sum((1, 2)), bits, rtol=1e-4, atol=1.0)
    assert analysis.rate_change(factorized, crops, attacked).shape == (3, 8, 8)
    error = analysis.error_change(factorized, crops, attacked)
    own = (factorized.reconstruct(attacked) - attacked).square().mean() - (factorized.reconstruct(crops) - crops).square().mean()
    assert error.shape == (3, 128, 128) and float(error.mean()) == pytest.approx(float(own), abs=1e-6)
