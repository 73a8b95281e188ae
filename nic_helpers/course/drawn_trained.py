"""Codecs before and after adversarial training: what each is worth on clean pictures, and on the worst attacked ones."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers import plotting
from nic_helpers.course.boards import short

CLEAN, ATTACKED = "#0072B2", "#D55E00"
LOSS, GROWTH = "own loss (dB)", "file, attacked / clean"


def worst(rows: pd.DataFrame, picture: list[str], file: list[str]) -> pd.DataFrame:
    """A row for each set of weights, means over the images, each image under the attack that does most to it.

    ``rows``: of one codec and ε; ``picture``, ``file``: names of the attacks on either. Columns: PSNR to the picture that was sent (dB)
    and bits per pixel, both clean and attacked.
    """
    by = ["weights", "image"]
    own = rows[rows["attack"].isin(picture)].groupby(by)["psnr_own"].min()
    grown = rows[rows["attack"].isin(file)].groupby(by)["bpp_attacked"].max()
    clean = rows.groupby(by)[["psnr_clean", "bpp_clean"]].first()
    return clean.assign(psnr_attacked=own, bpp_attacked=grown).groupby("weights").mean()


def before_after(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """``table`` as :func:`worst` makes it, a line for each of ``names`` (weights -> words): from its clean value to its attacked one."""
    shown = table.loc[[w for w in names if w in table.index]]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 0.7 + 0.62 * len(shown)), sharey=True)
    for ax, value, label in zip(axes, ("psnr", "bpp"), ("PSNR to what was sent (dB)", "bits per pixel"), strict=True):
        for row, (clean, attacked) in enumerate(zip(shown[f"{value}_clean"], shown[f"{value}_attacked"], strict=True)):
            ax.annotate("", (attacked, row), (clean, row), arrowprops={"arrowstyle": "-|>", "color": "0.55", "lw": 2})
            ax.plot(clean, row, "o", color=CLEAN, ms=9, label="clean" if row == 0 else None)
            ax.plot(attacked, row, "D", color=ATTACKED, ms=9, label="attacked" if row == 0 else None)
            digits = 1 if value == "psnr" else 2
            ax.text(attacked, row - 0.3, f"{attacked:.{digits}f}", ha="center", va="center", fontsize=11, color=ATTACKED)
        ax.set_xlabel(label, fontsize=12)
        ax.margins(x=0.12)
        ax.set_ylim(len(shown) - 0.5, -0.7)
    axes[0].set_yticks(range(len(shown)), [names[w] for w in shown.index], fontsize=12)
    axes[1].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=11, frameon=False)
    return figure


def losses(rows: pd.DataFrame, picture: list[str], file: list[str]) -> pd.DataFrame:
    """What each codec loses before and after training under attack: a row a codec and image, under the attack that does most to it.

    ``rows``: of one ε, with the weights "bundled" and "robust"; a codec that has not met every attack with both of them is left
    out. Columns: (own loss in dB, "bundled"), …, (file, attacked / clean, "robust").
    """
    by = ["codec", "quality", "image", "weights"]
    rows = rows[rows["attack"].isin({*picture, *file})]
    met = rows.groupby(by)["attack"].transform("nunique")
    rows = rows[met == len({*picture, *file})]
    own = rows[rows["attack"].isin(picture)].groupby(by)["delta_own"].max().unstack()
    grown = rows[rows["attack"].isin(file)].groupby(by)["bpp_ratio"].max().unstack()
    found = pd.concat({LOSS: own, GROWTH: grown}, axis=1).dropna().reset_index()
    label = [short(c, q) for c, q in zip(found.pop("codec"), found.pop("quality"), strict=True)]
    return found.assign(label=label).set_index(["label", "image"])


def spared(found: pd.DataFrame) -> Figure:
    """``found`` as :func:`losses` makes it: a line a codec, from what it lost before to what it loses after."""
    means = found.groupby("label", sort=False).mean()
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 1 + 0.6 * len(means)), sharey=True)
    for ax, what in zip(axes, (LOSS, GROWTH), strict=True):
        for row, (before, after) in enumerate(zip(means[what]["bundled"], means[what]["robust"], strict=True)):
            ax.annotate("", (after, row), (before, row), arrowprops={"arrowstyle": "-|>", "color": "0.55", "lw": 2})
            ax.plot(before, row, "D", color=ATTACKED, ms=9, label="as it was" if row == 0 else None)
            ax.plot(after, row, "o", color=CLEAN, ms=9, label="trained under attack" if row == 0 else None)
        ax.set_xlabel(what, fontsize=12)
        ax.margins(x=0.12)
        ax.set_ylim(len(means) - 0.5, -0.7)
    axes[0].set_yticks(range(len(means)), means.index, fontsize=12)
    axes[1].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=11, frameon=False)
    return figure


def by_attack(rows: pd.DataFrame, names: Mapping[str, str], seen: Mapping[str, bool]) -> Figure:
    """The own loss and the file under each attack of ``seen``, means over images, a mark a set of weights of ``names``, each a little
    below the one before, so that none hides another. Attacks that training saw are marked so."""
    wide = {
        label: rows.pivot_table(index="attack", columns="weights", values=v)
        for label, v in ((LOSS, "delta_own"), (GROWTH, "bpp_ratio"))
    }
    boards = {label: t.loc[[a for a in seen if a in t.index], [w for w in names if w in t.columns]] for label, t in wide.items()}
    figure, axes = plt.subplots(1, len(boards), figsize=(12, 6.4), sharey=True)
    for ax, (label, table) in zip(axes, boards.items(), strict=True):
        lower = np.linspace(-0.32, 0.32, table.shape[1])
        for (w, mark, colour), down in zip(plotting.series(list(table.columns)), lower, strict=True):
            ax.plot(table[w], np.arange(len(table)) + down, mark, color=colour, label=names[w], ms=6.5)
        for row in range(1, len(table)):
            ax.axhline(row - 0.5, color="0.85", lw=0.8)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"{label}: left is better", fontsize=12)
        ax.set_yticks(range(len(table)), [f"{a}{' (seen)' if seen[a] else ''}" for a in table.index], fontsize=12)
    axes[0].invert_yaxis()
    axes[-1].legend(fontsize=10)
    return figure


def with_steps(curve: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """``curve``: PSNR between the outputs (dB) by steps of an attack (rows) and weights (columns); a line each."""
    figure, ax = plt.subplots(figsize=(9.5, 4.4))
    order = [w for w in names if w in curve]
    for w, mark, colour in plotting.series(order):
        ax.plot(curve.index, curve[w], mark + "-", color=colour, label=names[w])
    ax.set(xscale="log", xlabel="steps of PGD in the ball of 8/255", ylabel="PSNR between the outputs (dB)")
    ax.set_xticks(curve.index, [str(n) for n in curve.index])
    ax.legend(fontsize=10, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
