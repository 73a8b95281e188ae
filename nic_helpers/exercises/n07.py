"""Notebook 07's exercises: equal visibility."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.attacks.perceptual import SSAH, haar_low
from nic_helpers.attacks.sign import PGD
from nic_helpers.budgets import rms_at
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture


def apart(codec, x):
    x_adv = PGD(eps=rms_at(36), norm="l2rms", steps=5)(codec, x).x_adv
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(x_adv)).mean()


def low_share(codec, x):
    delta = SSAH(eps=rms_at(38), steps=10, smoothness=0)(codec, x).x_adv - x
    return haar_low(delta).pow(2).sum() / delta.pow(2).sum()


def dissolved(delta):
    spectrum = torch.fft.rfft2(delta)
    phases = torch.fft.rfft2(torch.randn_like(delta))
    return torch.fft.irfft2(spectrum.abs() * phases / phases.abs().clamp_min(1e-12), s=delta.shape[2:])


def judge_dissolved(answer, codec, x):
    delta = PGD(eps=rms_at(36), norm="l2rms", steps=5)(codec, x).x_adv - x
    torch.manual_seed(0)
    found = answer(delta)
    if not isinstance(found, torch.Tensor) or found.shape != delta.shape or not found.is_floating_point():
        return f"real numbers of the shape {tuple(delta.shape)} are asked for"
    alike = float(torch.nn.functional.cosine_similarity(found.flatten(), delta.flatten(), 0))
    if abs(alike) > 0.2:
        return f"the pattern is still there: its cosine with the attack's is {alike:.2f}"
    sizes = [torch.fft.rfft2(v).abs() for v in (delta, found)]
    off = float((sizes[1] - sizes[0]).abs().sum() / sizes[0].sum())
    return f"the spectrum is not the attack's: its sizes differ by {100 * off:.0f} %" if off > 0.1 else None


def shuffled(delta):
    return delta.flatten(2)[:, :, torch.randperm(delta.shape[2] * delta.shape[3])].reshape(delta.shape)


def negative(delta):
    return -delta


def white(delta):
    return torch.randn_like(delta) * delta.std()


EXERCISES = [
    Number(
        "07.1",
        apart,
        0.05,
        (
            "visibility is given in dB, and the budget as a root mean square",
            "attacks.PGD(eps=rms_at(36), norm='l2rms', steps=5)(codec, x).x_adv, then metrics.psnr of the two outputs",
        ),
        codec_and_picture,
    ),
    Number(
        "07.2",
        low_share,
        0.01,
        (
            "the low half-band is what haar_low keeps",
            "haar_low(delta).pow(2).sum() / delta.pow(2).sum() for delta = x_adv − x of attacks.SSAH(…, smoothness=0)",
        ),
        codec_and_picture,
    ),
    Write(
        "07.3",
        dissolved,
        judge_dissolved,
        (
            "a Fourier transform has sizes and phases: the sizes are the spectrum, the phases the pattern",
            "keep the sizes of delta's transform, and take the phases of white noise's, which belong to a real picture",
            "torch.fft.rfft2, and torch.fft.irfft2(…, s=delta.shape[2:])",
        ),
        {"shuffled pixels": shuffled, "negative": negative, "white noise": white},
        codec_and_picture,
    ),
]
