"""Generations in pictures: how far a picture drifts when it is compressed again and again, and what it comes to look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import plotting
from nic_helpers.analysis import again
from nic_helpers.codecs.base import Codec
from nic_helpers.course.boards import spread
from nic_helpers.metrics import psnr

DASHES = ("--", "-.", (0, (1, 1)))
TIMES = ("black", "0.55", "#E69F00", "#CC79A7")


def looks(codecs: Mapping[str, Codec], classical: Sequence[str]) -> dict[str, dict]:
    """A codec's colour and marker by its label; dashes: ``classical``; dots: quality 6; thin: trained under attack."""
    dashes = dict(zip(classical, DASHES, strict=False))
    found = {}
    for label, codec in codecs.items():
        line = dashes.get(label, ":" if "q6" in label else "-")
        thin = {"lw": 0.8, "mfc": "white"} if "robust" in label else {}
        found[label] = plotting.style(codec.name) | {"ls": line, "ms": 4, "markevery": 0.06} | thin
    return found


def _log_axis(ax, shown: Sequence[int]) -> None:
    ax.set(xscale="log", xlabel="generation")
    ax.set_xticks(shown, shown)
    ax.set_xticks([], minor=True)


def _line(ax, rows: pd.DataFrame, value: str, shown: Sequence[int], **look) -> pd.Series:
    """The mean over images against the generation, on a logarithmic axis."""
    means = rows.groupby("generation")[value].mean()
    means = means[means > 0]  # a picture that stands still has no place on a logarithmic axis
    ax.plot(means.index, means, **look)
    _log_axis(ax, shown)
    return means


def _worst(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the image that ends furthest from its source."""
    ends = rows[rows["generation"] == rows["generation"].max()]
    return rows[rows["image"] == ends.nsmallest(1, "psnr_source")["image"].item()]


def drift(
    rows: pd.DataFrame, strip: Sequence[Tensor], titles: Sequence[str], look: Mapping[str, dict], shown: Sequence[int]
) -> Figure:
    """``rows`` of :func:`analysis.recompress` for one picture, with a ``label``: a line for each label.

    Below it ``strip``: that picture [3, H, W] at some generations of one codec, with its titles.
    """
    figure = plt.figure(figsize=(9, 7.2))
    above, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    ax, ends = above.subplots(), {}
    for label, part in rows.groupby("label", sort=False):
        ends[label] = _line(ax, part, "psnr_source", shown, **look[label] | {"ms": 7, "lw": 2.4}).iloc[-1]
    gap = 0.065 * (max(ends.values()) - min(ends.values()) + 5)
    places = spread(ends, gap)
    last = rows["generation"].max()
    for label, y in places.items():
        ax.annotate(label, (last, y), (10, 0), textcoords="offset points", fontsize=12, va="center", color=look[label]["color"])
    ax.set_xlim(0.93, last * 2.1)
    ax.set_xlabel("generation", fontsize=13)
    ax.set_ylabel("PSNR to the source (dB)", fontsize=13)
    ax.tick_params(labelsize=12)
    for place, picture, title in zip(below.subplots(1, len(strip)), strip, titles, strict=True):
        plotting.picture(place, picture, title)
        place.title.set_fontsize(12)
    return figure


def clean(rows: pd.DataFrame, look: Mapping[str, dict], shown: Sequence[int]) -> Figure:
    """Of rows with a ``label``: the mean over images, the worst image of each codec, and the files."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4))
    for label, part in rows.groupby("label", sort=False):
        _line(axes[0], part, "psnr_source", shown, label=label, **look[label])
        _line(axes[1], _worst(part), "psnr_source", shown, **look[label])
        _line(axes[2], part, "bpp", shown, **look[label])
    axes[0].set(ylabel="PSNR to the source (dB)", title="mean over images")
    axes[1].set(title="the image that fares worst")
    axes[0].sharey(axes[1])  # its range holds the mean's, but for the top
    axes[1].set_ylim(top=rows.groupby(["label", "generation"])["psnr_source"].mean().max() + 1)
    axes[2].set(ylabel="rate (bits per pixel, real bytes)", title="file, mean over images")
    figure.legend(loc="outside right upper")
    return figure


def ends(rows: pd.DataFrame, last: int) -> pd.DataFrame:
    """A row a codec: the mean and the worst PSNR to the source (dB) after one generation and after the last, and the largest loss of any
    picture between the two."""
    by = rows[rows["generation"].isin([1, last])].pivot_table("psnr_source", ["label", "image"], "generation", sort=False)
    of_codec = by.groupby("label", sort=False)
    found = {
        f"{said}, generation {g}": of_codec[g].agg(how) for said, how in (("mean", "mean"), ("worst", "min")) for g in (1, last)
    }
    return pd.DataFrame(found | {"largest loss": (by[1] - by[last]).groupby("label", sort=False).max()})


Copies = Mapping[str, Mapping[int, tuple[Tensor, str]]]


def copies(codec: Codec, given: Mapping[str, Tensor], source: Tensor, shown: Sequence[int]) -> Copies:
    """Of each picture [3, H, W] that goes in, by name, its copies at the generations ``shown``, with their PSNR to the source (dB) and
    rate in words; generation 0 is the picture itself."""
    made = {}
    for name, picture in given.items():
        made[name] = {0: (picture, "goes in")}
        for g, (stream, copy) in enumerate(again(codec, picture, max(shown)), 1):
            if g in shown:
                bpp = 8 * len(stream) / source[0].numel()
                made[name][g] = copy, f"{psnr(source[None], copy[None]).item():.1f} dB, {bpp:.2f} bpp"
    return made


def grid(made: Copies) -> Figure:
    """:func:`copies`, a row for each picture that goes in."""
    pictures = [[copy for copy, _ in row.values()] for row in made.values()]
    titles = [[f"generation {g}\n{said}" if g else f"{name}: {said}" for g, (_, said) in row.items()] for name, row in made.items()]
    return plotting.picture_grid(pictures, titles, width=2.6)


def frames(made: Copies, frame: Callable) -> dict:
    """:func:`copies` to move through: (name, generation) -> a frame of "goes in" and "copy"."""
    return {
        (name, g): frame({"goes in": row[0][0], "copy": copy}, f"generation {g}: {said}")
        for name, row in made.items()
        for g, (copy, said) in row.items()
        if g
    }


def resting(rest: pd.DataFrame) -> pd.DataFrame:
    """A row a codec: how many pictures repeat themselves as far as was followed, of how many, from which generation on, and how many of
    them go round; ``rest`` as of :func:`analysis.settled`."""
    of_codec = rest.groupby("label", sort=False)["settled"]
    found = of_codec.agg(settled="count", of="size", earliest="min", latest="max")
    return found.assign(
        **{"of these going round": rest[rest["period"] > 1].groupby("label").size().reindex(found.index, fill_value=0)}
    )


def settles(rows: pd.DataFrame, rest: pd.DataFrame, look: Mapping[str, dict], shown: Sequence[int]) -> Figure:
    """How much each generation moves a picture, and how many pictures are at rest; ``rest`` as of :func:`analysis.settled`."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4))
    last = rows["generation"].max()
    for label, part in rows.groupby("label", sort=False):
        _line(axes[0], part[part["generation"] > 1], "moved", shown, label=label, **look[label])
        still = rest[rest["label"] == label]["settled"]
        share = [(still <= g).mean() for g in range(1, last + 1)]
        axes[1].step(range(1, last + 1), share, where="post", **look[label] | {"marker": ""})
    moved = "moved by one generation\n(root mean square, 8-bit levels)"
    axes[0].set(yscale="log", ylabel=moved, xlim=(1.8, None))
    axes[0].set_xticks([2, *shown[-2:]], [2, *shown[-2:]])
    axes[1].set(ylabel="share of pictures settled\n(at rest or going round)", ylim=(-0.03, 1.03))
    _log_axis(axes[1], shown)
    figure.legend(loc="outside right upper")
    return figure


def attacked(rows: pd.DataFrame, labels: Sequence[str], starts: Mapping[str, tuple[str, str]], shown: Sequence[int]) -> Figure:
    """A column a codec: quality above, the file below. ``starts``: what goes in -> colour and line."""
    figure, axes = plt.subplots(2, len(labels), figsize=(3.8 * len(labels) + 1.5, 6.4), sharey="row")
    for label, column in zip(labels, axes.T, strict=True):
        for start, (colour, line) in starts.items():
            part = rows[(rows["label"] == label) & (rows["start"] == start)]
            named = start if label == labels[0] else None
            _line(column[0], part, "psnr_source", shown, color=colour, ls=line, lw=2.2, label=named)
            _line(column[1], part, "bpp", shown, color=colour, ls=line, lw=2.2)
        column[0].set(xlabel="")
        column[0].set_title(label, fontsize=14)
    axes[0, 0].set_ylabel("PSNR to the source (dB)")
    axes[1, 0].set(ylabel="rate (bits per pixel)", yscale="log")
    axes[1, 0].set_yticks([0.3, 0.5, 1, 2], [0.3, 0.5, 1, 2])
    axes[1, 0].set_yticks([], minor=True)
    figure.legend(loc="outside right upper", fontsize=12)
    return figure


def cropped(rows: pd.DataFrame, look: Mapping[str, dict], shown: Sequence[int]) -> Figure:
    """Rows of two ``start``s beside each other: the grid left where it is, and moved each time."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True)
    for ax, (start, part) in zip(axes, rows.groupby("start", sort=False), strict=True):
        for label, line in part.groupby("label", sort=False):
            _line(ax, line, "psnr_source", shown, label=label if start == "clean" else None, **look[label])
    axes[0].set(title="the same grid each time", ylabel="PSNR to the source (dB)")
    axes[1].set(title="a row and a column cut off each time")
    figure.legend(loc="outside right upper")
    return figure


def through(rows: pd.DataFrame, ways: Sequence[str], shown: Sequence[int]) -> Figure:
    """Rows with a ``start`` for each of four ``ways``, the last of them the attack through generations: mean, and its worst image."""
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 4.4), sharey=True)
    worst = _worst(rows[rows["start"] == ways[-1]])["image"].iloc[0]
    for way, colour, line in zip(ways, TIMES, ("-", "--", "-", "-"), strict=True):
        part = rows[rows["start"] == way]
        drawn = {"color": colour, "ls": line, "marker": ".", "markevery": 0.06}
        _line(axes[0], part, "psnr_source", shown, label=way, **drawn)
        _line(axes[1], part[part["image"] == worst], "psnr_source", shown, **drawn)
    axes[0].set(ylabel="PSNR to the source (dB)", title="mean over images")
    axes[1].set(title=f"the image that fares worst under “{ways[-1]}”")
    figure.legend(loc="outside right upper", title="what goes in")
    return figure
