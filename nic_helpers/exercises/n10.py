"""Notebook 10's exercises: a branch set from outside, a layer measured, the exact worst case."""

from __future__ import annotations

import math

import torch

from nic_helpers.analysis.exact import worst_case
from nic_helpers.analysis.layers import ldmr
from nic_helpers.attacks.noise import RandomNoise
from nic_helpers.attacks.sign import PGD
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture, picture
from nic_helpers.image_sets import load_images
from nic_helpers.objectives import Rate


def growth_with_noisy_z(codec, x):
    x_adv = PGD(eps=8 / 255, steps=5, surrogate="ste")(codec, x, Rate()).x_adv
    noisy = RandomNoise(eps=8 / 255)(codec, x).x_adv
    with torch.no_grad():
        set_to = {"z": codec.walk(noisy, None).taps["z"]}
        bits = [sum(w.bits().values()) for w in (codec.walk(x_adv, None, set_to=set_to), codec.walk(x, None))]
    return (bits[0] / bits[1] - 1).mean()


def layer_ratio(before, after):
    """``before``, ``after``: a layer's inputs and outputs for (x, x_adv) and for (C(x), C(x_adv)), each four tensors."""
    grown = [(v[2] - v[3]).norm() / (v[0] - v[1]).norm() for v in (before, after)]
    return grown[0] / grown[1]


def judge_layer_ratio(answer, codec, x):
    x_adv = PGD(eps=16 / 255, steps=4, norm="l2rms")(codec, x).x_adv
    images = [x, x_adv, codec.reconstruct(x), codec.reconstruct(x_adv)]
    with torch.no_grad():
        before = [codec.model.g_s[0](codec.walk(v, None).y_hat) for v in images]
        after = [codec.model.g_s[1](v) for v in before]
    table = ldmr(codec, x, x_adv)
    right = float(table[table["layer"] == "g_s.1"]["ldmr"].mean())
    found = float(answer(before, after))
    if abs(found - right) < 0.01 * right:
        return None
    if abs(found * right - 1) < 0.01:
        return f"upside down: it is M before the layer over M after it, {right:.3f}, and not {found:.3f}"
    return f"for the first IGDN it should be {right:.3f}, and is {found:.3f}; M is the recompressed pair's distance over the pair's"


def upside_down(before, after):
    return 1 / layer_ratio(before, after)


def first_pair_alone(before, after):
    return (after[0] - after[1]).norm() / (before[0] - before[1]).norm()


def longer_list(linear, x):
    return 20 * math.log10(float(worst_case(linear, x, 16 / 255)) * 255 / 16)


def linear_and_picture():
    return {"linear": LinearCodec(load_images("bundled"), step=32), "x": picture()}


EXERCISES = [
    Number(
        "10.1",
        growth_with_noisy_z,
        0.02,
        (
            "this codec predicts no means: `model.h_s` gives the scales alone, from side information made of |y|",
            '`codec.walk(image, None).taps["z"]` is the z of an image; '
            '`codec.walk(image, None, set_to={"z": …}).bits()` are the bits with another one',
            "bits(y of the attacked image, z of the noisy one) / bits(y and z of the source) − 1",
        ),
        codec_and_picture,
    ),
    Write(
        "10.2",
        layer_ratio,
        judge_layer_ratio,
        (
            "M is a quotient of two distances: how far apart the recompressed pair is, over how far apart the pair was",
            "M before the layer, over M after it",
            "(v[2] - v[3]).norm() / (v[0] - v[1]).norm() for v in (before, after)",
        ),
        {"upside down": upside_down, "the first pair alone": first_pair_alone},
        codec_and_picture,
    ),
    Number(
        "10.3",
        longer_list,
        0.05,
        (
            "a coefficient moved by k steps costs (near + k − 1)² in all, and brings k²; "
            "the k-th step alone costs and brings the difference to k − 1",
            "sort all steps of all coefficients by what they bring for their price; the gain is ten "
            "times the logarithm (base 10) of all that is brought over the budget",
        ),
        linear_and_picture,
    ),
]
