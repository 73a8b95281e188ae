"""Notebook 03's exercises: one gradient step."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.attacks.sign import FGSM
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.exercises.examples import codec_and_picture
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion


def apart(codec, x):
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(FGSM(eps=3 / 255)(codec, x).x_adv)).mean()


def aimed_at_the_source(codec, x):
    x_adv = FGSM(eps=8 / 255)(codec, x, Distortion("source")).x_adv
    return metrics.psnr(x, codec.reconstruct(x_adv)).mean()


def my_fgsm(codec, x, eps):
    v = x.clone().requires_grad_(True)
    loss = (codec(v, "identity", rate=False).x_hat - codec.reconstruct(x)).square().mean()
    (gradient,) = torch.autograd.grad(loss, v)
    return to_8bit((x + eps * gradient.sign()).clamp(0, 1))


def judge_fgsm(answer, codec, x):
    eps = 6 / 255
    found = answer(codec, x, eps)
    if wrong := image_like(found, x):
        return wrong
    right = FGSM(eps=eps)(codec, x).x_adv
    if (largest := float((found - x).abs().max())) > eps + 1e-4:
        return f"the budget is {255 * eps:g} of 255, and a sample moved by {255 * largest:.1f}"
    same = (found == right).float().mean()
    if same > 0.99:
        return None
    damage = [float(metrics.psnr(codec.reconstruct(x), codec.reconstruct(v)).mean()) for v in (right, found)]
    said = f"{100 * same:.0f} % of the samples are those of attacks.FGSM; its outputs are {damage[0]:.1f} dB apart, yours {damage[1]:.1f}"
    if not torch.equal(found, to_8bit(found)):
        return f"{said}; an attacked image has 256 levels: to_8bit"
    opposite = (found - x).sign() == -(right - x).sign()
    return f"{said}; most samples go the other way: the loss must rise" if opposite.float().mean() > 0.8 else said


def descends(codec, x, eps):
    return to_8bit((2 * x - my_fgsm(codec, x, eps)).clamp(0, 1))


def unrounded(codec, x, eps):
    return (my_fgsm(codec, x, eps) + 0.0011).clamp(0, 1)


def no_sign(codec, x, eps):
    v = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((codec(v, "identity", rate=False).x_hat - codec.reconstruct(x)).square().mean(), v)
    return to_8bit((x + eps * gradient / gradient.abs().max()).clamp(0, 1))


EXERCISES = [
    Number(
        "03.1",
        apart,
        0.05,
        (
            "attack, then decode both, then compare the outputs",
            "attacks.FGSM(eps=3/255)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
        ),
        codec_and_picture,
    ),
    Number(
        "03.2",
        aimed_at_the_source,
        0.05,
        (
            "the third argument of an attack says what it raises",
            "objectives.Distortion('source') raises the distance to the source; then metrics.psnr(x, codec.reconstruct(x_adv))",
        ),
        codec_and_picture,
    ),
    Write(
        "03.3",
        my_fgsm,
        judge_fgsm,
        (
            "three steps: a leaf tensor that takes a gradient, a loss, a step of its sign",
            "the loss is the mean square of codec(v, 'identity', rate=False).x_hat minus codec.reconstruct(x)",
            "torch.autograd.grad(loss, v), then to_8bit((x + eps * gradient.sign()).clamp(0, 1))",
        ),
        {"descends": descends, "no sign": no_sign, "past the budget": unrounded},
        codec_and_picture,
    ),
]
