"""Notebook 05's exercises: files that grow, and how to refuse them."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.attacks.rate_distortion import SRDA
from nic_helpers.attacks.sign import PGD
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture
from nic_helpers.objectives import Rate


def growth(codec, x):
    x_adv = SRDA(eps=4 / 255, angle=0.0, steps=5)(codec, x).x_adv
    return metrics.before_after(codec, x, x_adv)["bpp_ratio"].mean()


def share_of_z(codec, x):
    x_adv = PGD(eps=8 / 255, steps=5)(codec, x, Rate()).x_adv
    streams = codec.encode(x_adv)
    return 100 * sum(len(codec.unpack(s).strings[1]) for s in streams) / sum(map(len, streams))


def best_of_three(codec, x, eps):
    tried = [PGD(eps=eps, steps=5, surrogate=s)(codec, x, Rate()).x_adv for s in ("noise", "ste", "identity")]
    sizes = torch.tensor([[len(stream) for stream in codec.encode(v)] for v in tried])
    return torch.stack([tried[k][i] for i, k in enumerate(sizes.argmax(0).tolist())])


def judge_best(answer, codec, x):
    pair = torch.cat([x, x.flip(3)])
    found = answer(codec, pair, 8 / 255)
    if not isinstance(found, torch.Tensor) or found.shape != pair.shape:
        return f"for two pictures it must give two, {tuple(pair.shape)}"
    sizes = [[len(s) for s in codec.encode(v)] for v in (found, best_of_three(codec, pair, 8 / 255))]
    if (found - pair).abs().max() > 8 / 255 + 1e-4:
        return "a sample moves further than eps"
    short = [f"{a} bytes where {b} can be had" for a, b in zip(*sizes, strict=True) if a < 0.98 * b]
    return f"of one picture or more another surrogate makes a larger file: {', '.join(short)}" if short else None


def noise_alone(codec, x, eps):
    return PGD(eps=eps, steps=5, surrogate="noise")(codec, x, Rate()).x_adv


def unattacked(codec, x, eps):
    return x


EXERCISES = [
    Number(
        "05.1",
        growth,
        0.02,
        (
            "an angle of 0° is the direction of the rate alone",
            "attacks.SRDA(eps=4/255, angle=0.0, steps=5)(codec, x).x_adv; the column is 'bpp_ratio'",
        ),
        codec_and_picture,
    ),
    Number(
        "05.2",
        share_of_z,
        0.5,
        (
            "a stream holds two strings, y's and z's",
            "codec.unpack(stream).strings is (y string, z string) for each stream of codec.encode(x_adv); sum over images",
        ),
        codec_and_picture,
    ),
    Write(
        "05.3",
        best_of_three,
        judge_best,
        (
            "attack three times, with each surrogate once, and look at each picture's real bytes",
            "len of each stream of codec.encode(x_adv); the best is chosen picture by picture",
            "attacks.PGD(eps=eps, steps=5, surrogate=s)(codec, x, objectives.Rate()).x_adv for s in ('noise', 'ste', 'identity')",
        ),
        {"noise alone": noise_alone, "no attack": unattacked},
        codec_and_picture,
    ),
]
