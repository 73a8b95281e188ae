"""Notebook 09's exercises: what travels."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.codecs.load import load_codec
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.exercises.examples import codec_and_picture


def one_cell(matrix):
    return matrix.loc["cheng2020-anchor 3", "bmshj2018-hyperprior 3"]


def small_matrix():
    names = ["bmshj2018-hyperprior 3", "cheng2020-anchor 3"]
    return {"matrix": pd.DataFrame([[1.0, 2.0], [3.0, 5.0]], index=names, columns=names)}


def apart_in_jpeg(codec, x):
    jpeg = load_codec("jpeg", 30)
    return metrics.psnr(jpeg.reconstruct(x), jpeg.reconstruct(PGD(eps=8 / 255)(codec, x).x_adv)).mean()


def travels(x, rms):
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(len(x), 1, -(-x.shape[2] // 3), -(-x.shape[3] // 3), generator=draw)
    delta = F.interpolate(coarse, x.shape[2:], mode="bilinear").expand_as(x)  # grey: JPEG halves the colours' sides
    return (x + rms * delta / delta.square().mean().sqrt()).clamp(0, 1)


def judge_travels(answer, codec, x):
    x_adv = PGD(eps=8 / 255)(codec, x).x_adv
    rms = float((x_adv - x).square().mean().sqrt())
    found = answer(x, rms)
    if wrong := image_like(found, x):
        return wrong
    if (own := float((found - x).square().mean().sqrt())) > 1.02 * rms:
        return f"the budget is {255 * rms:.2f} of 255 in the root mean square, and this takes {255 * own:.2f}"
    jpeg = load_codec("jpeg", 30)
    clean = jpeg.reconstruct(x)
    by = [float(metrics.psnr(clean, jpeg.reconstruct(v)).mean()) for v in (x_adv, found)]
    return (
        f"JPEG's outputs are {by[0]:.1f} dB apart by the attack, and {by[1]:.1f} by your noise: not further"
        if by[1] > by[0]
        else None
    )


def white(x, rms):
    return (x + rms * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def too_loud(x, rms):
    return travels(x, 2 * rms)


EXERCISES = [
    Number(
        "09.1",
        one_cell,
        0.01,
        ("rows: made for; columns: coded by", "matrix.loc['cheng2020-anchor 3', 'bmshj2018-hyperprior 3']"),
        small_matrix,
    ),
    Number(
        "09.2",
        apart_in_jpeg,
        0.05,
        (
            "make the attack with one codec, and decode it with another",
            "attacks.PGD(eps=8/255)(source, example).x_adv, then metrics.psnr of load_codec('jpeg', 30).reconstruct of both",
        ),
        codec_and_picture,
    ),
    Write(
        "09.3",
        travels,
        judge_travels,
        (
            "JPEG throws fine noise away; what does it keep?",
            "noise whose blobs are a few pixels wide passes",
            "torch.nn.functional.interpolate of noise with a third of the sides, scaled to the given rms",
        ),
        {"white noise": white, "twice the budget": too_loud},
        codec_and_picture,
    ),
]
