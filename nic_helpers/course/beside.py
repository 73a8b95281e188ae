"""Wu et al.'s tables of codecs under attack beside our rows (notebook 08): SRDA (their Table II) and ARDA (Table III)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

from nic_helpers import plotting, stats
from nic_helpers.course import reference
from nic_helpers.course.boards import short
from nic_helpers.course.robust import shared

TABLES = {"SRDA": "Table II", "ARDA": "Table III"}
#: What they report -> our column, how it is called, and in which unit.
QUANTITIES = {
    "dR_mean": ("delta_r_rel", "growth of the file", "relative: 1 is twice the size"),
    "dD_mean": ("delta_d", "rise of the codec's own error", "MSE, on 0 to 255"),
}


def complete(rows: pd.DataFrame) -> list[str]:
    """The codecs of Wu et al.'s tables that have rows of every attack at as many qualities as any, in their order."""
    cells = rows.drop_duplicates(["codec", "quality", "attack"]).groupby("codec").size()
    named = [c for c in reference.WU_NAMES if c in cells.index]
    return [c for c in named if cells[c] == cells[named].max()]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each of their quantities and each codec of theirs that we have a complete set of rows of: ``attack``, ``quantity``,
    ``codec`` (short), ``theirs`` (NaN where their table has no such row here); ours as ``ours``, ``low``, ``high``: mean over images,
    directions and qualities, each alike, with its 95 % interval over the images.

    ``rows``: of one budget. Only images that every direction of an attack has met on every codec count.
    """
    found = []
    for attack, name in TABLES.items():
        theirs = reference.published_attacks("2405.07717")
        theirs = theirs[theirs["source"].str.endswith(name)].pivot(index="codec", columns="quantity", values="attacked")
        part = rows[rows["attack"].str.startswith(attack)]
        codecs = complete(part)
        part = shared(part[part["codec"].isin(codecs)], list(part["attack"].unique()))
        for quantity, (column, *_) in QUANTITIES.items():
            each = part.groupby(["codec", "image"])[column].mean()
            for codec in codecs:
                published = theirs[quantity].get(reference.WU_NAMES[codec], float("nan"))
                ours = stats.bootstrap(each[codec].to_numpy())
                of = {"attack": attack, "quantity": quantity, "codec": short(codec), "theirs": published}
                found.append(of | {"ours": ours.mean, "low": ours.low, "high": ours.high})
    return pd.DataFrame(found)


def draw(beside: pd.DataFrame) -> plt.Figure:
    """:func:`table` as dots: a panel an attack and quantity, a line a codec, theirs hollow and ours filled."""
    names = list(dict.fromkeys(beside["codec"]))[::-1]
    size = (11, 3.2 + 0.8 * len(names))
    figure, axes = plt.subplots(len(TABLES), len(QUANTITIES), figsize=size, sharey=True, sharex="col")
    for line, attack in zip(axes, TABLES, strict=True):
        for ax, (quantity, (_, title, unit)) in zip(line, QUANTITIES.items(), strict=True):
            part = beside[(beside["attack"] == attack) & (beside["quantity"] == quantity)]
            for row in part.itertuples():
                y, look = names.index(row.codec), plotting.style(row.codec)
                ax.plot([row.theirs, row.ours], [y, y], color="0.8", lw=3, zorder=1)
                ax.plot([max(row.low, 1e-3), row.high], [y, y], color=look["color"], lw=1.5)
                ax.plot(row.theirs, y, ls="", ms=11, **look | {"markerfacecolor": "white"})
                ax.plot(row.ours, y, ls="", ms=11, **look)
            ax.set(xscale="log", title=f"{attack}: {title}")
            if attack == list(TABLES)[-1]:
                ax.set_xlabel(unit)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(-0.6, len(names) - 0.4)
    for ax, ticks in zip(axes[-1], ((0.1, 0.3, 1, 3, 10), (100, 300, 1000, 3000)), strict=True):
        ax.set_xticks(ticks, [f"{v:g}" for v in ticks])
        ax.minorticks_off()
    dots = [plt.Line2D([], [], ls="", marker="o", ms=9, color="0.3", markerfacecolor=fill) for fill in ("white", "0.3")]
    figure.legend(
        dots, ["Wu et al., full-size", "ours, compact (line: 95 % interval)"], loc="outside upper center", ncol=2, frameon=False
    )
    return figure
