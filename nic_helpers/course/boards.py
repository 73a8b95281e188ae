"""Large tables as pictures: colours without numbers, with the groups of their rows and columns named and ruled off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import pandas as pd

from nic_helpers.codecs.registry import ARCHITECTURES

#: Three shades from light to dark: coarse, middle and fine quality.
SHADES = ("#9ecae1", "#4292c6", "#08306b")
FAMILIES = ("GDN", "residual", "attention", "other", "classical")
_FAMILY_OF = {"cheng2020": "residual", "zou2022": "attention", "liu2023": "attention", "song2021": "other", "cai2022": "other"}


def short(codec: str, quality: float | None = None) -> str:
    """A codec and its quality in few letters: CompressAI's name without bmshj2018."""
    name = codec.removeprefix("bmshj2018-")
    return name if quality is None else f"{name} q{quality:g}"


def family(codec: str) -> str:
    """GDN, residual or (window) attention, after a learned codec's transforms, or what else it is; or classical."""
    if codec not in ARCHITECTURES:
        return "classical"
    return _FAMILY_OF.get(codec.split("-")[0], "GDN")


def shade(quality: float, qualities: Sequence[float]) -> str:
    """The shade of a quality among all that a picture shows."""
    order = sorted(set(qualities))
    return SHADES[min(2, round(2 * order.index(quality) / max(1, len(order) - 1)))]


def spread(values: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights for labels, each at its value or so far above the one below that they do not meet."""
    places: dict[str, float] = {}
    floor = -float("inf")
    for label, value in sorted(values.items(), key=lambda pair: pair[1]):
        places[label] = floor = max(value, floor + gap)
    return places


def board(ax, table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], label: str, room: float = 0.06, **options):
    """A table as colours. ``rows`` and ``columns`` name each row's and column's group; neighbours of one name are one group.

    ``room`` is kept for the row names, as a share of the width; ``options`` go to ``imshow``.
    """
    ax.set_facecolor("0.8")  # what was not measured
    shown = ax.imshow(table.to_numpy(dtype=float), aspect="auto", interpolation="nearest", **options)
    ax.grid(False)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=90, fontsize=11)
    ax.set_yticks(range(table.shape[0]), table.index, fontsize=10)
    for names, line, across in ((rows, ax.axhline, False), (columns, ax.axvline, True)):
        at = 0
        for name, group in groupby(names):
            n = len(list(group))
            if at:
                line(at - 0.5, color="white", lw=3)
            middle = at + (n - 1) / 2
            if across:
                ax.text(middle, -0.8, name, ha="center", va="bottom", fontsize=11, fontweight="bold")
            else:
                place = ax.get_yaxis_transform()
                ax.text(-room, middle, name, ha="right", va="center", fontsize=11, fontweight="bold", transform=place)
            at += n
    above = float(table.to_numpy(dtype=float).max()) > options.get("vmax", float("inf"))
    ax.figure.colorbar(shown, ax=ax, label=label, pad=0.01, extend="max" if above else "neither")
    return ax
