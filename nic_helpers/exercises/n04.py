"""Notebook 04's exercises: steps, momentum, and what they have in common."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.attacks.sign import FGSM, IFGSM, PGD
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture


def apart(codec, x):
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(IFGSM(eps=4 / 255)(codec, x).x_adv)).mean()


def changed_alike(codec, x):
    return (FGSM(eps=8 / 255)(codec, x).x_adv == PGD(eps=8 / 255)(codec, x).x_adv).float().mean()


def momentum(g, gradient, mu):
    return mu * g + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)


def judge_momentum(answer):
    draw = torch.Generator().manual_seed(0)
    g, gradient = torch.randn(2, 2, 3, 8, 8, generator=draw)
    gradient = gradient * torch.tensor([1.0, 1e-6])[:, None, None, None]  # a picture whose gradient is a millionth of the other's
    before = g.clone()
    found, right = answer(g, gradient, 0.9), momentum(before, gradient, 0.9)
    if not torch.equal(g, before):
        return "it changes the running sum that it was given; return a new one"
    if not isinstance(found, torch.Tensor) or found.shape != right.shape:
        return f"the sum has the gradient's shape, {tuple(right.shape)}"
    off = (found - right).abs().amax((1, 2, 3)) / right.abs().amax((1, 2, 3))
    if (off < 1e-4).all():
        return None
    if off[0] > 1e-4 and off[1] > 1e-4:
        return f"both pictures' sums are off, by {100 * off[0]:.0f} % and {100 * off[1]:.0f} %: μ·g plus the gradient over its mean size"
    return "of two pictures one is right; each picture's gradient must be divided by that picture's own mean size"


def of_the_batch(g, gradient, mu):
    return mu * g + gradient / gradient.abs().mean()


def not_normalised(g, gradient, mu):
    return mu * g + gradient


def averaged(g, gradient, mu):
    return mu * g + (1 - mu) * gradient / gradient.abs().mean((1, 2, 3), keepdim=True)


EXERCISES = [
    Number(
        "04.1",
        apart,
        0.1,
        ("I-FGSM is FGSM in small steps", "attacks.IFGSM(eps=4/255)(codec, x).x_adv; ten steps are the default"),
        codec_and_picture,
    ),
    Number(
        "04.2",
        changed_alike,
        0.02,
        (
            "compare the two attacked images sample by sample",
            "(attacks.FGSM(eps=8/255)(codec, x).x_adv == attacks.PGD(eps=8/255)(codec, x).x_adv).float().mean()",
        ),
        codec_and_picture,
    ),
    Write(
        "04.3",
        momentum,
        judge_momentum,
        (
            "an old sum, shortened by μ, plus a new gradient of size one",
            "size means the mean of the absolute values, of each picture alone",
            "gradient.abs().mean((1, 2, 3), keepdim=True)",
        ),
        {"the batch's size": of_the_batch, "no size": not_normalised, "an average": averaged},
    ),
]
