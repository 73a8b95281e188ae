import copy

import pandas as pd
import pytest
import torch
from compressai.layers import GDN
from conftest import untrained

from nic_helpers import analysis, load_codec, metrics
from nic_helpers.codecs import LinearCodec
from nic_helpers.course import origins
from nic_helpers.image_sets import load_images
from nic_helpers.images import centre_crop

PICTURES = torch.stack([centre_crop(v, 64) for v in load_images("bundled")[:2]])


@pytest.fixture(scope="module")
def linear():
    return LinearCodec(load_images("bundled"), step=32)


def test_the_shopping_list_is_an_8_bit_picture_within_its_budget_and_below_the_bound(linear):
    bought = origins.shop(linear, PICTURES, 4)
    assert torch.equal((bought * 255).round() / 255, bought) and bought.shape == PICTURES.shape
    assert (metrics.achieved(PICTURES, bought)["rms"] <= 4 / 255 + 1e-6).all()
    moved = metrics.achieved(linear.reconstruct(PICTURES), linear.reconstruct(bought))["rms"]
    bound = analysis.worst_case(linear, PICTURES, 4 / 255)
    assert (moved <= bound).all() and (moved > 0.8 * bound).all()


def test_gains_has_the_list_for_the_coarse_codec_alone(linear):
    fine = LinearCodec(load_images("bundled"), step=1, keep=24)
    table = origins.gains((fine, linear), PICTURES, ["a", "b"], (8,), 2, 0)
    means = origins.mean_gains(table)
    assert origins.SHOPPED in means[linear.label] and origins.SHOPPED not in means[fine.label]
    assert all((t.sub(t[origins.BOUND], axis=0) < 0.01).all(axis=None) for t in means.values())


def test_a_rise_is_shared_between_cheap_and_dear_blocks():
    cost = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert origins.in_cheap_half(torch.tensor([[3.0, 0.0], [1.0, -9.0]]), cost) == pytest.approx(0.75)


def test_two_starts_are_compared_image_by_image():
    rows = pd.DataFrame(
        {
            "image": ["a", "b"] * 2,
            "weights": ["bundled"] * 2 + ["random-start"] * 2,
            "attack": "PGD rate",
            "case": "box 8",
            "bpp_ratio": [2.0, 4.0, 1.0, 3.0],
        }
    )
    found = origins.compare(rows, "bpp_ratio", origins.ON_FILE).loc["box 8"]
    assert (found["bundled"], found["random-start"]) == (3, 2)
    assert found["low"] == found["mean"] == found["high"] == -1


def test_the_committed_rows_hold_both_starts_and_the_published_share_has_our_names():
    rows = origins.two_starts()
    assert {"box 16", "ball 16", "noise 16"} <= set(rows["case"])
    assert rows.groupby(["image", "attack", "case"])["weights"].nunique().eq(2).all()
    assert {"hyperprior", "mbt2018", "cheng2020-anchor"} == set(origins.published_share().index)
    assert origins.network_gain(6).gt(0).all()


def test_the_strongest_igdn_is_that_of_the_synthesis_and_none_is_nothing():
    codec = copy.deepcopy(untrained("bmshj2018-factorized"))  # the others' stays as it is
    layers = [layer for layer in codec.model.g_s if isinstance(layer, GDN)]
    with torch.no_grad():
        for k, layer in enumerate(layers):
            layer.gamma.copy_(layer.gamma_reparam.init(torch.full_like(layer.gamma, 0.1 * k)))
    assert origins.strongest_igdn(codec) == pytest.approx(0.2, rel=1e-3)
    assert origins.strongest_igdn(load_codec("zou2022-stf", 3, device="cpu")) == 0
