"""Notebook 01's exercises: where the bits go."""

from __future__ import annotations

import torch

from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture


def side_information(codec, x):
    streams = [codec.unpack(stream).strings for stream in codec.encode(x)]
    return 8 * sum(len(z) for _, z in streams) / (x.numel() / 3)


def zeros(codec, x):
    return (codec.walk(x, None).y_hat == 0).float().mean()


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
    Number(
        "01.2",
        zeros,
        1e-3,
        ("codec.walk(x, None) has the quantised latents", "(codec.walk(x, None).y_hat == 0), and its mean"),
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
