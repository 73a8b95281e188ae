"""Defences in pictures: what each is worth and costs, image by image, and what a picture looks like behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log2

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import attacks, plotting
from nic_helpers.codecs.base import Codec
from nic_helpers.course.defended import CHOSEN
from nic_helpers.defences import EveryWay
from nic_helpers.metrics import psnr
from nic_helpers.objectives import Distortion, Together

STATIC, ADAPTIVE = "#0072B2", "#D55E00"
DEAR = 0.5  # dB of a clean picture: a defence that takes more is drawn hollow
FLOOR = 0.8  # a gain (dB) below this is drawn as none


def side_by_side(gain: pd.DataFrame, price: pd.DataFrame) -> Figure:
    """``gain``: columns ``static`` and ``adaptive`` (dB), a row a defence; ``price``: as of :func:`defended.prices`.

    A mark's size is the encoder's time; it is hollow where the defence takes more than half a decibel of a clean picture.
    """
    figure, ax = plt.subplots(figsize=(9, 6.4))
    high = max(gain.to_numpy().max() + 2, 4)
    ax.plot([0, high], [0, high], "--", color="0.6", lw=1.2)
    along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
    ax.text(0.25 * high, 0.26 * high, "nothing is lost", fontsize=11, color="0.4", va="bottom", **along)
    ax.axhline(0, color="0.2", lw=1.2)
    for name, row in gain.iterrows():
        hollow = price.loc[name, "PSNR (dB)"] < -DEAR
        face = "white" if hollow else STATIC
        ax.scatter(row["static"], row["adaptive"], s=_area(price.loc[name, "encoder ×"]), fc=face, ec=STATIC, lw=1.8, zorder=3)
    for names in _heaps(gain):
        _label(ax, names, gain.loc[names].mean(), _area(price.loc[names, "encoder ×"].max()), high)
    ax.set_xlabel("gain against the static attack (dB)", fontsize=13)
    ax.set_ylabel("gain left against the adaptive attack (dB)", fontsize=13)
    ax.set(ylim=(-3, gain["adaptive"].max() + 1.6), xlim=(-1.2, high))
    for times in (1, 4, 30):
        ax.scatter([], [], s=_area(times), fc=STATIC, ec=STATIC, label=f"encoder's time ×{times}")
    ax.scatter([], [], s=_area(1), fc="white", ec=STATIC, lw=1.8, label="hollow: more than ½ dB\noff clean pictures (mean)")
    ax.legend(loc="upper left", fontsize=11, labelspacing=0.9, borderpad=0.8)
    return figure


def _area(times: float) -> float:
    """A mark's area for an encoder that takes so many times as long."""
    return 70 * (1 + 1.3 * log2(max(times, 1)))


def _heaps(gain: pd.DataFrame, across: float = 0.6, up: float = 0.4) -> list[list[str]]:
    """The defences by heaps: those so near to each other (dB) that one label must do for them."""
    heaps: list[list[str]] = []
    for name, row in gain.sort_values(["adaptive", "static"]).iterrows():
        for heap in heaps:
            first = gain.loc[heap[0]]
            if abs(first["static"] - row["static"]) < across and abs(first["adaptive"] - row["adaptive"]) < up:
                heap.append(name)
                break
        else:
            heaps.append([name])
    return heaps


def _label(ax, names: Sequence[str], at: pd.Series, area: float, high: float) -> None:
    """The names of a heap beside it: below on the floor (one name slants down), above at the right edge, else to the right."""
    away, turn = area**0.5 / 2 + 4, {}
    if at["adaptive"] < FLOOR and len(names) == 1:
        offset, ha, va, turn = (away / 2, -away), "left", "center", {"rotation": -32, "rotation_mode": "anchor"}
    elif at["adaptive"] < FLOOR:
        offset, ha, va = (-5, -away), "center", "top"
    elif at["static"] > 0.82 * high:
        offset, ha, va = (0, away), "center", "bottom"
    else:
        offset, ha, va = (away, 0), "left", "center"
    place = (at["static"], at["adaptive"])
    ax.annotate("\n".join(names), place, offset, textcoords="offset points", ha=ha, va=va, fontsize=11, linespacing=1.05, **turn)


def against_time(gain: pd.Series, milliseconds: pd.Series, bare: float) -> Figure:
    """``gain``: of each defence against the adaptive attack (dB); ``milliseconds``: of its encoder, on the same names; ``bare``: of the
    encoder without a defence."""
    figure, ax = plt.subplots(figsize=(9, 5))
    ax.axhline(0, color="0.2", lw=1.2)
    ax.axvline(bare, color="0.5", ls="--", lw=1.2)
    ax.plot(milliseconds, gain[milliseconds.index], "o", color=STATIC, ms=9)
    points = pd.DataFrame({"static": 6 * milliseconds.map(log2), "adaptive": gain[milliseconds.index]})
    for names in _heaps(points, across=4.0, up=0.55):
        at = milliseconds[names].max(), gain[names].mean()
        few = names[::-1] if len(names) < 4 else [f"{len(names)} others"]
        low = gain[names].mean() < 0.3  # on the line of no gain
        ax.annotate("\n".join(few), at, (8, -11 if low else 0), textcoords="offset points", va="center", fontsize=11)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set_xlim(right=milliseconds.max() * 2.2)
    ax.text(bare, gain.max() + 0.6, "  no defence", fontsize=11, color="0.3", va="bottom")
    ax.set(ylim=(min(gain.min(), 0) - 1, gain.max() + 2))
    ax.set_xlabel("the encoder's time for a crop (ms)", fontsize=13)
    ax.set_ylabel("gain against the adaptive attack (dB)", fontsize=13)
    return figure


def by_bound(won: pd.DataFrame) -> Figure:
    """``won`` as :func:`defended.worth` makes it: a group of bars a bound, a bar a defence with its interval, and below it how far the
    outputs are apart without a defence."""
    names = won.index.drop("none")
    figure, ax = plt.subplots(figsize=(10, 4.8))
    width = 0.8 / len(names)
    for k, (name, _, colour) in enumerate(plotting.series(names)):
        means = won.loc[name].map(lambda i: i.mean)
        reach = [means - won.loc[name].map(lambda i: i.low), won.loc[name].map(lambda i: i.high) - means]
        ax.bar(
            [g + (k - (len(names) - 1) / 2) * width for g in range(won.shape[1])],
            means,
            width,
            yerr=reach,
            color=colour,
            label=name,
        )
    ax.axhline(0, color="0.2", lw=1.2)
    labels = [f"{bound}\nwithout a defence:\n{won.loc['none', bound].mean:.1f} dB apart" for bound in won.columns]
    ax.set_xticks(range(won.shape[1]), labels, fontsize=11)
    ax.set_ylabel("gain left against the\nadaptive attack (dB)", fontsize=12)
    ax.legend(fontsize=11, loc="upper left")
    return figure


def by_image(apart: pd.DataFrame) -> Figure:
    """``apart``: images × defences, ``none`` among them, PSNR between the outputs (dB) under the adaptive attack; best mean on top."""
    order = apart.mean().sort_values(ascending=False).index
    figure, ax = plt.subplots(figsize=(8, 0.33 * len(order) + 1.2))
    for row, name in enumerate(order):
        colour = ADAPTIVE if name == "none" else STATIC
        ax.plot(apart[name], [row] * len(apart), "o", color=colour, alpha=0.45, ms=7)
        ax.plot(apart[name].min(), row, "o", color=colour, mfc="none", ms=11, mew=1.6)
    ax.axvline(apart["none"].min(), color=ADAPTIVE, ls="--", lw=1.2)
    ax.set_yticks(range(len(order)), order, fontsize=11)
    ax.invert_yaxis()
    ax.set_xlabel("PSNR between the outputs (dB); a dot is an image, ringed: the worst", fontsize=11)
    return figure


def files(grown: pd.DataFrame) -> Figure:
    """``grown``: columns ``static`` and ``adaptive``, a row a defence: an attacked file over the clean one; ``none`` is a line."""
    bare = grown.loc["none", "adaptive"]
    part = grown.drop("none").sort_values("adaptive")
    figure, ax = plt.subplots(figsize=(8, 0.33 * len(part) + 1.4))
    ax.hlines(range(len(part)), part["static"], part["adaptive"], color="0.75", lw=2)
    for who, marker, colour in (("static", "o", STATIC), ("adaptive", "X", ADAPTIVE)):
        ax.plot(part[who], range(len(part)), marker, color=colour, ms=8, label=who)
    ax.axvline(bare, color="0.3", ls="--", lw=1.2)
    ax.text(bare, -0.9, " no defence, adaptive", fontsize=11, color="0.3", va="center")
    ax.set_yticks(range(len(part)), part.index, fontsize=11)
    ax.set(ylim=(len(part) - 0.4, -1.5), xlabel="file, attacked / clean (real bytes), mean")
    ax.legend(loc="center right", fontsize=11)
    return figure


def behind(
    codec: Codec, x: Tensor, chosen: Mapping[str, Callable], attack: attacks.Attack
) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """One image x [1, 3, H, W] behind defences: (defence, "static" or "adaptive") -> decoded clean and decoded attacked [1, 3, H, W].

    The static attack is that on the bare codec. The adaptive attacker has the attack on the defended codec, on every way of a sender
    who chooses, and the static one, too, and takes whichever does most.
    """
    static = attack(codec, x).x_adv
    found = {("none", "static"): (codec.reconstruct(x), codec.reconstruct(static))}
    found["none", "adaptive"] = found["none", "static"]
    for name, how in chosen.items():
        defended = how(codec).for_images(x)
        tries = [static, attack(defended, x).x_adv]
        if name in CHOSEN:
            tries.append(attack(EveryWay(how)(codec), x, Together(Distortion(), temperature=1.0)).x_adv)
        clean, *decoded = (defended.reconstruct(v) for v in (x, *tries))
        found[name, "static"] = (clean, decoded[0])
        found[name, "adaptive"] = (clean, min(decoded, key=lambda v: psnr(clean, v).item()))
    return found


def apart(found: Mapping[tuple[str, str], tuple[Tensor, Tensor]]) -> pd.DataFrame:
    """Of :func:`behind`'s pictures the PSNR between the outputs (dB), a row a defence, columns ``static`` and ``adaptive``."""
    values = pd.Series({key: psnr(*pair).item() for key, pair in found.items()})
    return values.unstack(sort=False)


def seen(found: Mapping[tuple[str, str], tuple[Tensor, Tensor]], names: Sequence[str]) -> Figure:
    """What the receiver of each of the defences sees under both attacks: the static one above."""
    dB = apart(found)
    who = ("static", "adaptive")
    pictures = [[found[name, w][1][0].cpu() for name in names] for w in who]
    titles = [[f"{name}, {w}\n{dB.loc[name, w]:.1f} dB" for name in names] for w in who]
    return plotting.picture_grid(pictures, titles, width=2.4)


def frames(found: Mapping[tuple[str, str], tuple[Tensor, Tensor]], x: Tensor, frame) -> dict:
    """Frames for the explorer, by (defence, attack): both decoded pictures, and the numbers. ``frame``: the widgets' ``Frame``."""
    dB, made = apart(found), {}
    clean = {name: found[name, "static"][0][0].cpu() for name in dB.index}
    for (name, who), pair in found.items():
        gain = dB.loc[name, who] - dB.loc["none", who]
        cost = (psnr(x, found[name, who][0]) - psnr(x, found["none", who][0])).item()
        text = f"outputs {dB.loc[name, who]:.1f} dB apart"
        if name != "none":
            text += f": {gain:+.1f} dB beside no defence · the clean picture: {cost:+.1f} dB"
        made[name, who] = frame({"not attacked": clean[name], "attacked": pair[1][0].cpu()}, text)
    return made
