"""Checks of the notebooks' exercises: each computes its solution and compares it with the reader's answer.

An exercise not yet answered (``...``) prints its hint and raises nothing, so that the headless run goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nic_helpers import metrics
from nic_helpers.attacks import FGSM, PGD, RandomNoise
from nic_helpers.codecs import load_codec, real_bpp
from nic_helpers.objectives import Distortion, Rate
from nic_helpers.stats import rate_at


@dataclass(frozen=True)
class Exercise:
    """A solution as a function of what the notebook hands over, how near an answer must be, and a hint."""

    solution: Callable[..., float]
    tolerance: float  # absolute
    hint: str


def _psnr_mean(a, b) -> float:
    return float(metrics.psnr(a, b).mean())


EXERCISES: dict[str, Exercise] = {
    "00.1": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(PGD(eps=2 / 255, steps=20)(codec, x).x_adv)),
        0.1, "attacks.PGD(eps=2/255, steps=20)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
    ),
    "00.2": Exercise(
        lambda codec, x: float(metrics.before_after(codec, x, PGD(eps=8 / 255, steps=20)(codec, x, Rate()).x_adv)["bpp_ratio"].mean()),
        0.02, "pass objectives.Rate() as the third argument of the attack; the column is 'bpp_ratio'",
    ),
    "00.3": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(RandomNoise(eps=8 / 255, kind="sign")(codec, x).x_adv)),
        0.1, "attacks.RandomNoise(eps=8/255, kind='sign')(codec, x).x_adv",
    ),
    "01.1": Exercise(
        lambda codec, x: 8 * sum(len(codec.unpack(s).strings[1]) for s in codec.encode(x)) / (x.numel() / 3),
        1e-3, "codec.unpack(stream).strings is (y string, z string); divide by the original pixels, x.numel() / 3",
    ),
    "01.2": Exercise(
        lambda codec, x: float((codec.walk(x, None).y_hat == 0).float().mean()),
        1e-3, "codec.walk(x, None).y_hat, and the mean of where it is 0",
    ),
    "01.3": Exercise(
        lambda codec, x: _psnr_mean(x, codec(x, "identity", rate=False).x_hat.detach()),
        0.05, "codec(x, 'identity', rate=False).x_hat is the reconstruction with no rounding at all",
    ),
    "02.1": Exercise(
        lambda table: float(
            table[table["codec"] == "bmshj2018-hyperprior"].groupby("quality")["psnr"].mean().diff().dropna().iloc[0]
        ),
        0.02, "table[table['codec'] == …].groupby('quality')['psnr'].mean()",
    ),
    "02.2": Exercise(
        lambda curves: rate_at(curves["jpeg"], float(curves["bmshj2018-hyperprior"]["psnr"].iloc[0])),
        0.005, "stats.rate_at(curves['jpeg'], value) with the psnr of curves['bmshj2018-hyperprior'].iloc[0]",
    ),
    "02.3": Exercise(
        lambda x: max(real_bpp(load_codec("jpeg", 30).encode(x), x)),
        0.005, "codecs.real_bpp(load_codec('jpeg', 30).encode(x), x) gives one rate per image",
    ),
    "03.1": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(FGSM(eps=3 / 255)(codec, x).x_adv)),
        0.05, "attacks.FGSM(eps=3/255)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
    ),
    "03.2": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, FGSM(eps=8 / 255)(codec, x, Distortion("source")).x_adv, real_rate=False)["psnr_source"].mean()
        ),
        0.05, "pass objectives.Distortion('source') as the third argument; the column is 'psnr_source'",
    ),
    "03.3": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(FGSM(eps=8 / 255, surrogate="noise")(codec, x).x_adv)),
        0.1, "attacks.FGSM(eps=8/255, surrogate='noise')(codec, x).x_adv",
    ),
}  # fmt: skip


def is_right(number: str, answer, **given) -> bool:
    """Compare an answer with the exercise's solution, and say how it went. ``given``: what the solution needs."""
    exercise = EXERCISES[number]
    if answer is ...:
        print(f"Exercise {number}: not answered yet. Hint: {exercise.hint}.")
        return False
    value = float(answer.detach()) if isinstance(answer, torch.Tensor) else float(answer)
    right = exercise.solution(**given)
    good = math.isfinite(value) and abs(value - right) <= exercise.tolerance
    if good:
        print(f"Exercise {number}: right, {right:.4g}.")
    else:
        print(f"Exercise {number}: {value:.4g} is not it. Hint: {exercise.hint}.")
    return good


def check(number: str, answer, **given) -> None:
    """:func:`is_right` for the last line of a cell: it prints and returns nothing."""
    is_right(number, answer, **given)
