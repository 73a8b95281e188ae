"""Pictures of one change against many qualities: what each quality's file does, the least of them, and the weights of a soft minimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers.course.boards import spread

ALL, ONE, MEAN = "#D55E00", "#0072B2", "#CC79A7"


def by_quality(table: pd.DataFrame, shown: Mapping[str, int | None]) -> Figure:
    """File growth by the quality at which a picture is stored, means over images, a named line an attack.

    ``table``: rows with ``attack``, ``quality``, ``bpp_ratio``. ``shown``: attack -> the quality it was made for, which is
    ringed; None: made for all of them, the last one in a colour of its own and unbroken, others in a third colour.
    """
    colours = {a: ONE if aim is not None else ALL if a == list(shown)[-1] else MEAN for a, aim in shown.items()}
    figure, ax = plt.subplots(figsize=(7.6, 4.8))
    means = table.groupby(["attack", "quality"])["bpp_ratio"].mean().unstack()
    dashes, last_named = iter(("-", "--", ":", "-.")), list(shown)[-1]
    for attack, aim in shown.items():
        line, colour = means.loc[attack], colours[attack]
        width = 4.5 if aim is None else 2
        ax.plot(line.index, line, "-" if attack == last_named else next(dashes), marker="o", ms=8, color=colour, lw=width)
        if aim is not None:
            ax.plot(aim, line[aim], "o", ms=17, mfc="none", mec="black", mew=1.8)
    lowest = means.loc[list(shown)].min(axis=1)
    for attack in {lowest.idxmin(), *(a for a, aim in shown.items() if aim is None)}:
        where, colour = (means.loc[attack].idxmin(), lowest[attack]), colours[attack]
        text = {"xytext": (-12, -4), "textcoords": "offset points", "ha": "right", "fontsize": 14, "color": colour}
        ax.annotate(f"×{lowest[attack]:.2f}", where, **text)
    first, last = means.columns[[0, -1]]
    ax.set_xlim(first - 0.25 * (last - first), last + 0.05 * (last - first))
    _names(ax, {a: means.loc[a].iloc[-1] for a in shown}, means.columns[-1], colours)
    ax.axhline(1, color="0.3", lw=1)
    ax.set_xticks(means.columns, [f"q{q:g}" for q in means.columns], fontsize=14)
    ax.yaxis.set_major_formatter(lambda v, _: f"×{v:.1f}")
    ax.tick_params(axis="y", labelsize=13)
    ax.set_xlabel("quality at which the picture is stored", fontsize=14)
    ax.set_ylabel("file, attacked / clean", fontsize=14)
    return figure


def side_by_side(tables: Mapping[str, pd.DataFrame], shown: Sequence[str]) -> Figure:
    """File growth by the quality at which a picture is stored, a panel a kind of codec: ``shown`` are attacks, the last made for all
    qualities, each other one for the quality that its name ends with, which is ringed."""
    figure, axes = plt.subplots(1, len(tables), figsize=(11, 4.4), sharey=True)
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        means = table.groupby(["attack", "quality"])["bpp_ratio"].mean().unstack()
        for attack, dash in zip(shown, ("-", "--", ":", "-"), strict=True):
            last, line = attack == shown[-1], means.loc[attack]
            ax.plot(line.index, line, dash, marker="o", ms=8, color=ALL if last else ONE, lw=4.5 if last else 2, label=attack)
            if not last:
                aim = int(attack.rsplit("q", 1)[1])
                ax.plot(aim, line[aim], "o", ms=17, mfc="none", mec="black", mew=1.8)
        ax.axhline(1, color="0.3", lw=1)
        ax.set_xticks(means.columns, [f"q{q:g}" for q in means.columns], fontsize=13)
        ax.set_title(title, fontsize=15)
        ax.set_xlabel("quality at which the picture is stored", fontsize=13)
        ax.yaxis.set_major_formatter(lambda v, _: f"×{v:.1f}")
    axes[0].set_ylabel("file, attacked / clean", fontsize=13)
    axes[-1].legend(fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _names(ax, ends: Mapping[str, float], at: float, colours: Mapping[str, str]) -> None:
    """Names at the lines' right ends, pushed apart so that none covers another."""
    for name, y in spread(ends, 0.055 * (ax.get_ylim()[1] - 1)).items():
        text = ax.annotate(name, (at, y), (26, 0), textcoords="offset points", va="center", fontsize=14, color=colours[name])
        text.set_annotation_clip(False)


def least(table: pd.DataFrame, order: Sequence[str], best: str) -> Figure:
    """The least growth among the qualities: images (rows) by attacks (columns); a dot an image, a bar the mean. ``best`` stands out."""
    figure, ax = plt.subplots(figsize=(7.6, 0.9 + 0.55 * len(order)))
    for row, attack in enumerate(order):
        colour = ALL if attack == best else ONE
        ax.plot(table[attack], [row] * len(table), "o", color=colour, alpha=0.45, ms=8)
        ax.plot(table[attack].mean(), row, "|", color=colour, ms=28, mew=4)
    ax.axvline(table[best].mean(), color=ALL, lw=1, ls=":")
    ax.set_yticks(range(len(order)), order, fontsize=13)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(lambda v, _: f"×{v:.2f}")
    ax.tick_params(axis="x", labelsize=12)
    ax.set_xlabel("growth of the file that grows least", fontsize=13)
    return figure


def weights(table: pd.DataFrame) -> Figure:
    """A soft minimum's weights: a group of bars for each temperature (rows), a bar for each quality (columns)."""
    figure, ax = plt.subplots(figsize=(7.6, 3.4))
    shades = plt.cm.cividis
    count = len(table.columns)
    for k, quality in enumerate(table.columns):
        at = [row + (k - (count - 1) / 2) * 0.8 / count for row in range(len(table))]
        bars = ax.bar(at, table[quality], width=0.75 / count, color=shades(0.1 + 0.8 * k / max(1, count - 1)))
        ax.bar_label(bars, [quality] * len(table), fontsize=11, padding=1)
    ax.set_xticks(range(len(table)), [f"T = {t:g}" for t in table.index], fontsize=13)
    ax.set_ylabel("weight", fontsize=13)
    ax.set_ylim(0, 1.12)
    ax.grid(axis="x", visible=False)
    return figure
