"""Checks of the notebooks' exercises: each computes its solution and compares it with the reader's answer.

An exercise not yet answered (``...``) prints its hint and raises nothing, so that the headless run goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nic_helpers import metrics
from nic_helpers.analysis.exact import worst_case
from nic_helpers.analysis.layers import ldmr
from nic_helpers.attacks.noise import RandomNoise
from nic_helpers.attacks.perceptual import MADC, SSAH, haar_low
from nic_helpers.attacks.rate_distortion import ARDA, SRDA
from nic_helpers.attacks.sign import FGSM, IFGSM, MIFGSM, PGD
from nic_helpers.budgets import rms_at
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.load import load_codec
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


def _low_share(delta) -> float:
    return float(haar_low(delta).pow(2).sum() / delta.pow(2).sum())


def _jpeg_apart(x, x_adv) -> float:
    jpeg = load_codec("jpeg", 30)
    return _psnr_mean(jpeg.reconstruct(x), jpeg.reconstruct(x_adv))


def _share_of_z(codec, x) -> float:
    """z's share (%) of all the bytes of real files."""
    streams = codec.encode(x)
    return 100 * sum(len(codec.unpack(s).strings[1]) for s in streams) / sum(map(len, streams))


def _with_coarse(codec) -> list:
    """A codec and the coarsest of its kind."""
    return [codec, load_codec(codec.name, 1, codec.weights.source, codec.device)]


def _growth_elsewhere(codec, x, x_adv) -> float:
    """By what factor the coarsest codec's file grows."""
    return float(metrics.before_after(_with_coarse(codec)[1], x, x_adv)["bpp_ratio"].mean())


def _growth_with_noisy_z(codec, x) -> float:
    """By what share the attacked file grows whose side information is that of the source with noise."""
    x_adv = PGD(eps=8 / 255, steps=5, surrogate="ste")(codec, x, Rate()).x_adv
    noisy = RandomNoise(eps=8 / 255)(codec, x).x_adv
    with torch.no_grad():
        set_to = {"z": codec.walk(noisy, None).taps["z"]}
        bits = [sum(w.bits().values()) for w in (codec.walk(x_adv, None, set_to=set_to), codec.walk(x, None))]
    return float((bits[0] / bits[1] - 1).mean())


def _ratio_of_a_layer(codec, x, layer: str = "g_s.1") -> float:
    """LDMR of one layer under PGD in the ball."""
    table = ldmr(codec, x, PGD(eps=16 / 255, steps=10, norm="l2rms")(codec, x).x_adv)
    return float(table[table["layer"] == layer]["ldmr"].mean())


EXERCISES: dict[str, Exercise] = {
    "00.1": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(PGD(eps=2 / 255, steps=20)(codec, x).x_adv)),
        0.1,
        "attacks.PGD(eps=2/255, steps=20)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
    ),
    "00.2": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, PGD(eps=8 / 255, steps=20)(codec, x, Rate()).x_adv)["bpp_ratio"].mean()
        ),
        0.02,
        "pass objectives.Rate() as the third argument of the attack; the column is 'bpp_ratio'",
    ),
    "00.3": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(RandomNoise(eps=8 / 255, kind="sign")(codec, x).x_adv)),
        0.1,
        "attacks.RandomNoise(eps=8/255, kind='sign')(codec, x).x_adv",
    ),
    "01.1": Exercise(
        lambda codec, x: 8 * sum(len(codec.unpack(s).strings[1]) for s in codec.encode(x)) / (x.numel() / 3),
        1e-3,
        "codec.unpack(stream).strings is (y string, z string); divide by the original pixels, x.numel() / 3",
    ),
    "01.2": Exercise(
        lambda codec, x: float((codec.walk(x, None).y_hat == 0).float().mean()),
        1e-3,
        "codec.walk(x, None).y_hat, and the mean of where it is 0",
    ),
    "01.3": Exercise(
        lambda codec, x: _psnr_mean(x, codec(x, "identity", rate=False).x_hat.detach()),
        0.05,
        "codec(x, 'identity', rate=False).x_hat is the reconstruction with no rounding at all",
    ),
    "02.1": Exercise(
        lambda table: float(
            table[table["codec"] == "bmshj2018-hyperprior"].groupby("quality")["psnr"].mean().diff().dropna().iloc[0]
        ),
        0.02,
        "table[table['codec'] == …].groupby('quality')['psnr'].mean()",
    ),
    "02.2": Exercise(
        lambda curves: rate_at(curves["jpeg"], float(curves["bmshj2018-hyperprior"]["psnr"].iloc[0])),
        0.005,
        "stats.rate_at(curves['jpeg'], value) with the psnr of curves['bmshj2018-hyperprior'].iloc[0]",
    ),
    "02.3": Exercise(
        lambda x: max(real_bpp(load_codec("jpeg", 30).encode(x), x)),
        0.005,
        "codecs.real_bpp(load_codec('jpeg', 30).encode(x), x) gives one rate per image",
    ),
    "03.1": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(FGSM(eps=3 / 255)(codec, x).x_adv)),
        0.05,
        "attacks.FGSM(eps=3/255)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
    ),
    "03.2": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, FGSM(eps=8 / 255)(codec, x, Distortion("source")).x_adv, real_rate=False)[
                "psnr_source"
            ].mean()
        ),
        0.05,
        "pass objectives.Distortion('source') as the third argument; the column is 'psnr_source'",
    ),
    "03.3": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(FGSM(eps=8 / 255, surrogate="ste")(codec, x).x_adv)),
        0.1,
        "attacks.FGSM(eps=8/255, surrogate='ste')(codec, x).x_adv",
    ),
    "04.1": Exercise(
        lambda codec, x: _psnr_mean(codec.reconstruct(x), codec.reconstruct(IFGSM(eps=4 / 255)(codec, x).x_adv)),
        0.1,
        "attacks.IFGSM(eps=4/255)(codec, x).x_adv; ten steps are the default",
    ),
    "04.2": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, MIFGSM(eps=8 / 255)(codec, x).x_adv, real_rate=False)["delta_amp"].mean()
        ),
        0.1,
        "metrics.before_after(codec, x, attacks.MIFGSM(eps=8/255)(codec, x).x_adv)['delta_amp']",
    ),
    "04.3": Exercise(
        lambda codec, x: float((FGSM(eps=8 / 255)(codec, x).x_adv == PGD(eps=8 / 255)(codec, x).x_adv).float().mean()),
        0.02,
        "the mean of where the two x_adv are equal",
    ),
    "05.1": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, SRDA(eps=4 / 255, angle=0.0, steps=5)(codec, x).x_adv)["bpp_ratio"].mean()
        ),
        0.02,
        "attacks.SRDA(eps=4/255, angle=0.0, steps=5)(codec, x).x_adv; the column is 'bpp_ratio'",
    ),
    "05.2": Exercise(
        lambda codec, x: _share_of_z(codec, PGD(eps=8 / 255, steps=5)(codec, x, Rate()).x_adv),
        0.5,
        "codec.unpack(stream).strings is (y string, z string) for each stream of codec.encode(x_adv); sum over images",
    ),
    "05.3": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, SRDA(eps=8 / 255, angle=-45.0, steps=5)(codec, x).x_adv, real_rate=False)[
                "delta_own"
            ].mean()
        ),
        0.1,
        "attacks.SRDA(eps=8/255, angle=-45.0, steps=5)(codec, x).x_adv; the column is 'delta_own'",
    ),
    "06.1": Exercise(
        lambda codec, x: _growth_elsewhere(codec, x, SRDA(eps=4 / 255, angle=0.0, steps=4)(codec, x).x_adv),
        0.02,
        "attack codec with attacks.SRDA(eps=4/255, angle=0.0, steps=4); measure 'bpp_ratio' with codec q1",
    ),
    "06.2": Exercise(
        lambda codec, x: _growth_elsewhere(codec, x, SRDA(eps=4 / 255, angle=0.0, steps=4)(_with_coarse(codec), x).x_adv),
        0.02,
        "give the attack the list [codec, coarse] in place of the codec",
    ),
    "06.3": Exercise(
        lambda codec, x: _growth_elsewhere(
            codec, x, ARDA(eps=4 / 255, angle=0.0, steps=4, temperature=0.01)(_with_coarse(codec), x).x_adv
        ),
        0.06,
        "attacks.ARDA(eps=4/255, angle=0.0, steps=4, temperature=0.01)([codec, coarse], x).x_adv",
    ),
    "07.1": Exercise(
        lambda codec, x: _psnr_mean(
            codec.reconstruct(x), codec.reconstruct(PGD(eps=rms_at(36), norm="l2rms", steps=5)(codec, x).x_adv)
        ),
        0.05,
        "attacks.PGD(eps=rms_at(36), norm='l2rms', steps=5)(codec, x).x_adv, then metrics.psnr of the two outputs",
    ),
    "07.2": Exercise(
        lambda codec, x: _low_share(SSAH(eps=rms_at(38), steps=10, smoothness=0)(codec, x).x_adv - x),
        0.01,
        "haar_low(delta).pow(2).sum() / delta.pow(2).sum() for delta = x_adv − x of attacks.SSAH(…, smoothness=0)",
    ),
    "07.3": Exercise(
        lambda codec, x: float(
            metrics.before_after(codec, x, MADC(eps=rms_at(38), steps=10)(codec, x, Distortion("source")).x_adv, real_rate=False)[
                "delta_source"
            ].mean()
        ),
        0.05,
        "attacks.MADC(eps=rms_at(38), steps=10)(codec, x, objectives.Distortion('source')); column 'delta_source'",
    ),
    "08.1": Exercise(
        lambda strongest: float((strongest["attack"] == "APGD").mean()),
        1e-3,
        "the mean of strongest['attack'] == 'APGD'",
    ),
    "08.2": Exercise(lambda main: float(main["bpp_ratio"].max()), 0.01, "main['bpp_ratio'].max()"),
    "08.3": Exercise(
        lambda at_eps: float(at_eps.groupby("attack")["psnr_recon"].mean()[["sign noise", "PGD"]].diff().abs().iloc[1]),
        0.02,
        "at_eps.groupby('attack')['psnr_recon'].mean(), and the difference of two of its entries",
    ),
    "09.1": Exercise(
        lambda matrix: float(matrix.loc["cheng2020-anchor 3", "bmshj2018-hyperprior 3"]),
        0.01,
        "matrix.loc[attack made for, coded by]",
    ),
    "09.2": Exercise(
        lambda matrix: float(sum(matrix.loc[n, n] for n in matrix.index) / len(matrix)),
        0.01,
        "the mean of matrix.loc[n, n] for n in matrix.index",
    ),
    "09.3": Exercise(
        lambda codec, x: _jpeg_apart(x, PGD(eps=8 / 255)(codec, x).x_adv),
        0.05,
        "attacks.PGD(eps=8/255)(source, example).x_adv, then metrics.psnr of load_codec('jpeg', 30).reconstruct of both",
    ),
    "10.1": Exercise(
        _growth_with_noisy_z,
        0.02,
        "bits(y of the attacked image, z of the noisy one) / bits(y and z of the source) − 1; hints below the question",
    ),
    "10.2": Exercise(
        _ratio_of_a_layer,
        0.02,
        "M is a quotient of two distances; LDMR is M before the layer over M after it; hints below the question",
    ),
    "10.3": Exercise(
        lambda linear, x: 20 * math.log10(float(worst_case(linear, x, 16 / 255)) * 255 / 16),
        0.05,
        "put second and third steps on the list, each with its own price and worth; hints below the question",
    ),
}


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
