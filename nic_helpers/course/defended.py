"""The study of defences as grids: what each is worth against an attack that does not know it, and one that does (notebook 11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from nic_helpers import attacks, defences, stats
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.load import load_codec
from nic_helpers.metrics import psnr
from nic_helpers.objectives import Distortion, Rate
from nic_helpers.sweep.grid import Contestant, Grid
from nic_helpers.sweep.unit import Faced, OtherDraws

#: Name -> defence, in METHODS' order: reversible and random; chosen by the sender; lossy; checked; few-step.
DEFENCES: dict[str, Callable] = {
    "flip": defences.Flip(),
    "roll": defences.Roll(),
    "rotate": defences.Rotate(),
    "colour order": defences.ColourOrder(),
    "random ensemble": defences.RandomEnsemble(),
    "best of eight, D": defences.SelfEnsemble(),
    "best of eight, R+λD": defences.SelfEnsemble(cost="rd"),
    "two-way": defences.TwoWay(),
    "bit depth 5": defences.BitDepth(bits=5),
    "resize 0.9": defences.Resize(0.9),
    "JPEG 75": defences.JPEGPass(75),
    "purifier": defences.Purifier(),
    "safe zone": defences.SafeZone(),
    "verify": defences.VerifyOrFallBack(floor=28.0),
    "rate cap": defences.RateCap(cap=2.5),
    "refine": defences.Refine(steps=2),
    "online update": defences.OnlineUpdate(steps=5),
}
RANDOM = ("flip", "roll", "rotate", "colour order", "random ensemble")
ATTACKERS = ("static", "adaptive", "other draws")
QUICK = ("flip", "bit depth 5", "verify", "refine")


@dataclass(frozen=True)
class Target:
    """An attack on the picture or the file: ``attack``, its ``objective``, and the settings at a quarter of its gradients."""

    attack: attacks.Attack
    objective: object
    quarter: attacks.Attack


def targets(picture: int, file: int) -> dict[str, Target]:
    """The attacks at so many gradients: on the picture in the box and in the ball by continuation, on the file through each surrogate."""

    def continuation(norm: str) -> Target:
        whole = attacks.Continuation(8 / 255, steps=picture, norm=norm, precision="auto")
        return Target(whole, Distortion(), replace(whole, steps=max(2, picture // DRAWS)))

    pgd = attacks.PGD(8 / 255, steps=file, precision="auto")
    return {
        "picture": continuation("linf"),
        "file": Target(pgd, Rate(), replace(pgd, steps=max(1, file // DRAWS))),
        "picture, ball": continuation("l2rms"),
    }


#: Versions with other draws that an attacker sees who does not know the draw; he has as many gradients of the defended codec in all.
DRAWS = 4


def grids(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """Each defence against each attacker: one who attacks the bare codec, one who attacks through the defence and knows its draw, and of
    the random ones one who doesn't. The most telling budgets first."""
    quick = profile == "quick"
    full = profile == "full"
    common = {"codecs": {"bmshj2018-hyperprior": (6, 3) if full else (6,)}, "seeds": seeds, "shard": 4}
    common["weights"] = "zoo" if full else "bundled"
    if quick:
        parts = [{"images": "bundled", "crop": 96, "limit": 1}]
    else:
        parts = [{"images": "kodak", "crop": None if full else 256, "first": k, "every": 6} for k in (range(6) if full else (1, 4))]
    aims = targets(8, 2) if quick else targets(200, 60) if full else targets(40, 12)
    chosen = {k: v for k, v in DEFENCES.items() if not quick or k in QUICK}
    levels = (16,) if quick else (16, 8, 4)

    def facing(attacker: str) -> dict[str, Callable | None]:
        if attacker == "static":
            return {k: Faced(v) for k, v in chosen.items()}
        if attacker == "adaptive":
            return {"none": None, **chosen}
        return {k: Faced(v, OtherDraws(v, DRAWS)) for k, v in chosen.items() if k in RANDOM}

    def grid(aim: str, attacker: str, level: float, part: dict) -> Grid:
        target = aims[aim]
        attack = target.quarter if attacker == "other draws" else target.attack
        contestant = Contestant(attack, target.objective)
        return Grid(attacks={f"{aim}, {attacker}": contestant}, defences=facing(attacker), budgets=(level / 255,), **common, **part)

    wanted = [(aim, level) for level in levels for aim in ("picture", "file")]
    wanted[2:2] = [("picture, ball", 16)] * (not quick)
    return tuple(grid(*what, who, level, part) for part in parts for *what, level in wanted for who in ATTACKERS)


def costs(images: Mapping[str, Tensor], qualities: Sequence[int], chosen: Mapping[str, Callable] = DEFENCES) -> pd.DataFrame:
    """What each defence costs on clean images [3, H, W], beside none: a row a defence, quality and image with ``bpp`` (real bytes),
    ``psnr`` (dB) and ``seconds`` of the encoder, one image after the other."""
    rows = []
    for quality in qualities:
        bare = load_codec("bmshj2018-hyperprior", quality)
        codecs = {"none": bare, **{name: how(bare) for name, how in chosen.items()}}
        for image, x in images.items():
            bare.encode(x[None])  # warm
            for name, codec in codecs.items():
                began = time.perf_counter()
                streams = codec.encode(x[None])
                seconds = time.perf_counter() - began
                quality_of = float(psnr(x[None], codec.decode(streams)))
                row = {"defence": name, "quality": quality, "image": image, "bpp": real_bpp(streams, x[None])[0]}
                rows.append(row | {"psnr": quality_of, "seconds": seconds})
    return pd.DataFrame(rows)


def prices(found: pd.DataFrame, quality: int) -> pd.DataFrame:
    """A row a defence: what it costs at a quality in PSNR (dB) and bytes (%), as BD-rate (%) over all of them, and how many times the
    bare codec's time its encoder takes (the median over images)."""
    curves = {name: part.groupby("quality")[["bpp", "psnr"]].mean() for name, part in found.groupby("defence", sort=False)}
    seconds = found.pivot_table(index=["quality", "image"], columns="defence", values="seconds", sort=False)
    lines = {}
    for name, curve in curves.items():
        change = curve.loc[quality] - curves["none"].loc[quality]
        lines[name] = {
            "PSNR (dB)": change["psnr"],
            "bytes (%)": 100 * change["bpp"] / curves["none"].loc[quality, "bpp"],
            "BD-rate (%)": stats.bd_rate(curves["none"], curve).percent,
            "encoder ×": (seconds[name] / seconds["none"]).loc[quality].median(),
        }
    return pd.DataFrame(lines).T.drop("none").rename_axis("defence")
