"""Notebook 00's exercises: damage in one number, and a control that is fair."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.exercises.examples import codec_and_picture
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Rate


def apart(codec, x):
    x_adv = PGD(eps=2 / 255, steps=20)(codec, x).x_adv
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(x_adv)).mean()


def growth(codec, x):
    x_adv = PGD(eps=8 / 255, steps=20)(codec, x, Rate()).x_adv
    return metrics.before_after(codec, x, x_adv)["bpp_ratio"].mean()


def control(x, x_adv):
    rms = (x_adv - x).square().mean().sqrt()
    return to_8bit((x + rms * torch.randn_like(x).sign()).clamp(0, 1))


def judge_control(answer, codec, x):
    x_adv = PGD(eps=8 / 255, steps=5)(codec, x).x_adv
    made = answer(x, x_adv)
    if wrong := image_like(made, x):
        return wrong
    if not torch.equal(made, to_8bit(made)):
        return "an attacked image has 256 levels, and the control must have them too: round it with to_8bit"
    rms = [float((v - x).square().mean().sqrt()) * 255 for v in (x_adv, made)]
    if abs(rms[1] / rms[0] - 1) > 0.1:
        return f"the attack moves a sample by {rms[0]:.2f} of 255 in the root mean square, this by {rms[1]:.2f}: an unfair budget"
    alike = torch.nn.functional.cosine_similarity((made - x).flatten(), (x_adv - x).flatten(), 0)
    return f"it is no control, but the attack itself (cosine {alike:.2f})" if alike.abs() > 0.3 else None


def quieter(x, x_adv):
    eps = (x_adv - x).abs().max()
    return to_8bit((x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1))


def the_attack(x, x_adv):
    return x_adv


EXERCISES = [
    Number(
        "00.1",
        apart,
        0.1,
        (
            "an attack is called with a codec and x, and its result has x_adv",
            "attacks.PGD(eps=2/255, steps=20)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
        ),
        codec_and_picture,
    ),
    Number(
        "00.2",
        growth,
        0.02,
        (
            "the third argument of an attack is its objective",
            "objectives.Rate() is the objective; metrics.before_after(codec, x, x_adv) has the column 'bpp_ratio'",
        ),
        codec_and_picture,
    ),
    Write(
        "00.3",
        control,
        judge_control,
        (
            "a fair control has the attack's root mean square, and nothing of its pattern",
            "signs drawn at random, times the root mean square of x_adv − x",
            "to_8bit((x + rms * torch.randn_like(x).sign()).clamp(0, 1))",
        ),
        {"uniform in ±ε": quieter, "the attack itself": the_attack},
        codec_and_picture,
    ),
]
