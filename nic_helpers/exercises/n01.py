"""Notebook 01's exercises: where the bits go, and what a channel of the latents is worth."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture


def side_information(codec, x):
    streams = [codec.unpack(stream).strings for stream in codec.encode(x)]
    return 8 * sum(len(z) for _, z in streams) / (x.numel() / 3)


@torch.no_grad()
def without_each(codec, x) -> list[float]:
    """PSNR (dB) of what is decoded without one channel of ŷ, for each channel."""
    y_hat, found = codec.walk(x, None).y_hat, []
    for k in range(y_hat.size(1)):
        left = y_hat.clone()
        left[:, k] = 0
        found.append(float(metrics.psnr(x, codec.model.g_s(left).clamp(0, 1)).mean()))
    return found


def dearest(codec, x):
    found = without_each(codec, x)
    return found.index(min(found))


def judge_dearest(answer, codec, x):
    k, found = answer(codec, x), without_each(codec, x)
    if isinstance(k, torch.Tensor) and k.numel() == 1:
        k = k.item()
    if k not in range(len(found)):
        return f"the number of a channel is asked for, from 0 to {len(found) - 1}, and this is {k!r}"
    if found[k] > min(found) + 0.01:
        return f"without channel {k} there are {found[k]:.1f} dB left, and without another one {min(found):.1f}"
    return None


def counted_from_one(codec, x):
    return dearest(codec, x) + 1


def cheapest(codec, x):
    found = without_each(codec, x)
    return found.index(max(found))


def bits(y, scale):
    normal = torch.distributions.Normal(0.0, scale)
    return -torch.log2(normal.cdf(y + 0.5) - normal.cdf(y - 0.5))


def judge_bits(answer):
    y, scale = torch.tensor([0.0, 1.0, -2.0, 3.0]), torch.tensor([0.5, 1.0, 1.0, 2.0])
    found, right = answer(y, scale), bits(y, scale)
    if not isinstance(found, torch.Tensor) or found.shape != y.shape:
        return f"for a tensor of {len(y)} symbols it must give a tensor of as many bits"
    off = (found - right).abs()
    k = int(off.argmax())
    said = f"a symbol {y[k]:g} where the scale is {scale[k]:g} costs {right[k]:.3f} bits, and this says {found[k]:.3f}"
    return f"{said}; the probability is the mass from y − ½ to y + ½, and the logarithm has base 2" if off[k] > 0.01 else None


def density(y, scale):
    return -torch.distributions.Normal(0.0, scale).log_prob(y) / torch.log(torch.tensor(2.0))


def nats(y, scale):
    return bits(y, scale) * torch.log(torch.tensor(2.0))


EXERCISES = [
    Number(
        "01.1",
        side_information,
        1e-3,
        (
            "a stream holds a string for y and one for z",
            "codec.unpack(stream).strings is (y string, z string); divide by the original pixels, x.numel() / 3",
        ),
        codec_and_picture,
    ),
    Write(
        "01.2",
        dearest,
        judge_dearest,
        (
            "an intervention: set one channel to zero, decode, measure; then the next",
            "codec.walk(x, None).y_hat is [1, channels, h, w]; clone it before you change it",
            "metrics.psnr(x, codec.model.g_s(left).clamp(0, 1)) for each channel; the least one's number, under torch.no_grad()",
        ),
        {"counted from one": counted_from_one, "the least dear": cheapest},
        codec_and_picture,
    ),
    Write(
        "01.3",
        bits,
        judge_bits,
        (
            "a rounded value stands for everything that rounds to it",
            "the Gaussian's mass from y − ½ to y + ½ is a difference of two cumulative distribution functions",
            "torch.distributions.Normal(0.0, scale).cdf(…), and −torch.log2 of the mass",
        ),
        {"the density": density, "nats": nats},
    ),
]
