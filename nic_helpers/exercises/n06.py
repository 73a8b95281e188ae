"""Notebook 06's exercises: one picture against several codecs, and the minimum that has a gradient."""

from __future__ import annotations

import math

import torch

from nic_helpers import metrics
from nic_helpers.attacks.rate_distortion import SRDA
from nic_helpers.codecs.load import load_codec
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture


def coarsest(codec):
    return load_codec(codec.name, 1, codec.weights.source, codec.device)


def grows_elsewhere(codec, x):
    x_adv = SRDA(eps=4 / 255, angle=0.0, steps=4)(codec, x).x_adv
    return metrics.before_after(coarsest(codec), x, x_adv)["bpp_ratio"].mean()


def grows_with_both(codec, x):
    both = [codec, coarsest(codec)]
    x_adv = SRDA(eps=4 / 255, angle=0.0, steps=4)(both, x).x_adv
    return metrics.before_after(both[1], x, x_adv)["bpp_ratio"].mean()


def soft_minimum(values, T):
    return -T * (torch.logsumexp(-values / T, 0) - math.log(len(values)))


def judge_soft_minimum(answer):
    values = torch.tensor([0.3, 0.1, 0.9], requires_grad=True)
    for T, right, name in ((1e-4, 0.1, "the minimum"), (1e3, 1.3 / 3, "the mean")):
        found = answer(values, T)
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            return "one number is asked for, as a tensor, so that it has a gradient"
        if not math.isfinite(float(found.detach())):
            return f"at T = {T:g} it is {float(found.detach())}: the exponentials under- or overflow; take torch.logsumexp"
        if abs(float(found.detach()) - right) > 0.01:
            return f"of 0.3, 0.1 and 0.9 at T = {T:g} it should come near {name}, {right:.3f}, and is {float(found.detach()):.3f}"
    if not answer(values, 0.1).requires_grad:
        return "its gradient is lost: an attack could not follow it"
    return None


def no_mean(values, T):
    return -T * torch.logsumexp(-values / T, 0)


def overflows(values, T):
    return -T * torch.log(torch.exp(-values / T).mean())


def maximum(values, T):
    return T * (torch.logsumexp(values / T, 0) - math.log(len(values)))


def hard(values, T):
    return values.detach().min()


EXERCISES = [
    Number(
        "06.1",
        grows_elsewhere,
        0.02,
        (
            "made against one codec, measured on another",
            "attack codec with attacks.SRDA(eps=4/255, angle=0.0, steps=4); measure 'bpp_ratio' with the coarse codec",
        ),
        codec_and_picture,
    ),
    Number(
        "06.2",
        grows_with_both,
        0.02,
        ("an attack takes a list of codecs, too", "attacks.SRDA(eps=4/255, angle=0.0, steps=4)([codec, coarse], x).x_adv"),
        codec_and_picture,
    ),
    Write(
        "06.3",
        soft_minimum,
        judge_soft_minimum,
        (
            "the smallest value has the largest exp(−value / T)",
            "take the mean of the exponentials, its logarithm, times −T",
            "−T · (torch.logsumexp(−values / T, 0) − log of how many there are)",
        ),
        {"sum in place of mean": no_mean, "underflows": overflows, "the maximum": maximum, "without gradient": hard},
    ),
]
