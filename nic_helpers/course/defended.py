"""The study of defences as grids: what each is worth against an attack that does not know it, and one that does (notebook 11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from torch import Tensor

from nic_helpers import attacks, defences, stats
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.load import load_codec
from nic_helpers.metrics import psnr
from nic_helpers.objectives import Distortion, Rate, Together
from nic_helpers.sweep.faced import Faced, OtherDraws
from nic_helpers.sweep.grid import Contestant, Grid

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
CHOSEN = {"best of eight, D": 8, "best of eight, R+λD": 8, "two-way": 2}  # by the sender, of so many ways
#: (what an attacker sees, how many codecs that is).
LONGER = "other draws, longer"  # with as many steps as the others, and so four times the gradients
ATTACKERS = (("static", 1), ("adaptive", 1), ("other draws", 4), ("every way", 8), ("every way", 2), (LONGER, 4))
QUICK = ("flip", "bit depth 5", "verify", "refine")


@dataclass(frozen=True)
class Target:
    """An attack on the picture or the file, and its objective."""

    attack: attacks.Attack
    objective: object

    def with_passes(self, share: float) -> attacks.Attack:
        """The same with that share of its steps."""
        least = 2 if isinstance(self.attack, attacks.Continuation) else 1
        return replace(self.attack, steps=max(least, round(self.attack.steps * share)))


def targets(picture: int, file: int) -> dict[str, Target]:
    """The attacks at so many gradients: on the picture in the box and in the ball by continuation, on the file through each surrogate."""

    def continuation(norm: str) -> Target:
        return Target(attacks.Continuation(8 / 255, steps=picture, norm=norm, precision="auto"), Distortion())

    return {
        "picture": continuation("linf"),
        "file": Target(attacks.PGD(8 / 255, steps=file, precision="auto"), Rate()),
        "picture, ball": continuation("l2rms"),
    }


def grids(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """Each defence against each attacker: one who attacks the bare codec, one who attacks through the defence and knows its draw, and of
    the random ones one who doesn't. The most telling budgets first. Standard: eight pictures at 16/255, where pictures break, and four
    of them at 8 and at 4."""
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

    def facing(attacker: str, seen: int) -> dict[str, Callable | None]:
        if attacker == "static":
            return {k: Faced(v) for k, v in chosen.items()}
        if attacker == "adaptive":
            return {"none": None, **chosen}
        if attacker in ("other draws", LONGER):
            return {k: Faced(v, OtherDraws(v, seen)) for k, v in chosen.items() if k in RANDOM}
        return {k: Faced(v, defences.EveryWay(v)) for k, v in chosen.items() if CHOSEN.get(k) == seen}

    def grid(aim: str, attacker: str, seen: int, level: float, part: dict) -> Grid:
        target, objective, share = aims[aim], aims[aim].objective, 1.0 if attacker == LONGER else 1 / seen
        if attacker == "every way":
            # a gradient through the choice is `seen` passes forward and one gradient (three passes); here each way has a gradient
            share = (seen + 3) / (3 * seen)
            objective = Together(objective, temperature=1.0)  # the sender takes the best way: those that are hit least count most
        contestant = Contestant(target.with_passes(share), objective)
        return Grid(
            attacks={f"{aim}, {attacker}": contestant}, defences=facing(attacker, seen), budgets=(level / 255,), **common, **part
        )

    wanted = [(aim, level) for level in levels for aim in ("picture", "file")]
    wanted[2:2] = [("picture, ball", 16)] * (not quick)
    every = (
        (aim, *who, level, part)
        for part in parts
        for aim, level in wanted
        if full or level == 16 or part is parts[0]
        for who in ATTACKERS
    )
    return tuple(grid(*which) for which in every if facing(*which[1:3]))


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


def damage(rows: pd.DataFrame, aim: str, level: float, value: str) -> dict[str, pd.DataFrame]:
    """Images × defences for each attacker: ``value`` under an attack on ``aim`` at a budget in 8-bit levels.

    An attacker who knows a defence knows the static attack, too, and every way of a choice: "adaptive" is the worst of them for each
    image. A defence is left out where an attacker's rows are not there yet.
    """
    named = rows["attack"].str.rsplit(", ", n=1, expand=True)
    longer = rows["attack"].str.endswith(LONGER)
    target = rows["attack"].str.removesuffix(f", {LONGER}").where(longer, named[0])
    part = rows.assign(attacker=named[1].where(~longer, LONGER))[(target == aim) & (rows["eps_255"] == level)]
    wide = part.pivot_table(index="image", columns=["attacker", "defence"], values=value)
    worse = np.minimum if value.startswith("psnr") else np.maximum
    static = wide["static"].assign(none=wide["adaptive"]["none"])
    adaptive = worse(static, wide["adaptive"].reindex(columns=static.columns)).dropna(axis=1)
    every = wide["every way"] if "every way" in wide else pd.DataFrame()
    for name in every.columns.intersection(adaptive.columns):
        adaptive[name] = worse(adaptive[name], every[name].fillna(adaptive[name]))
    found = {"static": static[adaptive.columns], "adaptive": adaptive}
    return found | {who: wide[who] for who in ("other draws", LONGER) if who in wide}


def gains(found: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, stats.Interval]]:
    """By how much each defence is better than none under each attacker, with intervals over the images."""
    bare = found["adaptive"]["none"]
    return {
        who: {n: stats.bootstrap((t[n] - bare).dropna()) for n in t.columns.drop("none", errors="ignore")}
        for who, t in found.items()
    }


def worth(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """What defences gain on the picture against the adaptive attack wherever it was made: a row a defence, a column a bound ("box of
    4/255", …, "ball of 16/255"), :class:`~nic_helpers.stats.Interval` over the images; a row "none": PSNR between the outputs (dB)."""
    found = {}
    for bound, aim in (("box", "picture"), ("ball", "picture, ball")):
        for level in sorted(rows.loc[rows["attack"] == f"{aim}, adaptive", "eps_255"].unique()):
            apart = damage(rows, aim, level, "psnr_recon")
            won = gains(apart)["adaptive"]
            column = {"none": stats.bootstrap(apart["adaptive"]["none"])} | {n: won[n] for n in names}
            found[f"{bound} of {level:g}/255"] = column
    return pd.DataFrame(found)
