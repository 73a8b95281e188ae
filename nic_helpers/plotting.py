"""One theme, one colour and marker per codec, and a function for each kind of figure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.images import to_uint8
from nic_helpers.stats import rate_difference, summarise

# Okabe and Ito's colour-blind safe palette
_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY, _YELLOW, _BROWN, _BLACK, _GREY = (
    f"#{code}" for code in ["0072B2", "E69F00", "009E73", "D55E00", "CC79A7", "56B4E9", "B8A900", "8B5A2B", "000000", "7F7F7F"]
)
_DIM = "#5A5A5A"
#: codec -> (colour, marker); never changed from figure to figure. Learned codecs have colours, classical ones are grey.
STYLES: dict[str, tuple[str, str]] = {
    "bmshj2018-factorized": (_SKY, "v"),
    "bmshj2018-hyperprior": (_BLUE, "o"),
    "mbt2018-mean": (_GREEN, "s"),
    "mbt2018": (_YELLOW, "D"),
    "cheng2020-anchor": (_RED, "^"),
    "cheng2020-attn": (_PURPLE, "P"),
    "bmshj2018-hyperprior-vbr": (_BROWN, "*"),
    "zou2022-wacnn": ("#44AA99", "h"),
    "zou2022-stf": ("#882255", "p"),
    "liu2023": ("#117733", ">"),
    "song2021": ("#AA4499", "<"),
    "cai2022": ("#332288", "X"),
    "jpeg": (_BLACK, "x"),
    "jpeg-plain": (_DIM, "+"),
    "jpeg2000": (_DIM, "1"),
    "webp": (_DIM, "2"),
    "avif": (_DIM, "3"),
    "jpegxl": (_DIM, "4"),
    "hevc": (_DIM, "|"),
    "vvc": (_DIM, "_"),
}
CLASSICAL_LINE = "--"


def style(codec: str) -> dict:
    """Matplotlib's colour and marker of a codec, also by its short name (without bmshj2018) and with a quality behind it."""
    name = re.sub(r" q[\d.]+$", "", codec)
    colour, marker = STYLES.get(name) or STYLES.get(f"bmshj2018-{name}", (_GREY, "."))
    return {"color": colour, "marker": marker}


def colours(count: int) -> list[str]:
    """The palette's first colours, at most six, for what is no codec and no attack."""
    return [_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY][:count]


def series(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """(name, marker, colour) for each of at most nine series of a figure; ValueError for more, which nobody could tell apart."""
    palette = [*colours(6), _BLACK, _GREY, _BROWN]
    if len(names) > len(palette):
        raise ValueError(f"a figure has at most {len(palette)} series, got {len(names)}: {', '.join(map(str, names))}")
    return list(zip(names, "osD^vP*Xh", palette, strict=False))


def set_theme() -> None:
    """The look of every figure."""
    sns.set_theme(context="notebook", style="whitegrid", palette=colours(6))
    plt.rcParams.update(
        {
            "figure.dpi": 90,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "legend.fontsize": 9,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "pdf.fonttype": 42,
            "lines.markersize": 6,
        }
    )


def save(figure: Figure, path: Path) -> None:
    """Write ``path``.png and ``path``.pdf."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"))
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def caption(figure: Figure, text: str) -> None:
    """A line of small print under a figure: what it is based on."""
    figure.supxlabel(text, fontsize=9, color="0.3")


def picture_grid(rows: Sequence[Sequence[Tensor | None]], titles: Sequence[Sequence[str]], width: float = 3.0) -> Figure:
    """A grid of images [3, H, W], each with its title; None leaves a place empty."""
    columns = max(len(r) for r in rows)
    height, w = next(im for r in rows for im in r if im is not None).shape[1:]
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(width * columns, (width * height / w + 0.45) * len(rows)), squeeze=False
    )
    for i, row in enumerate(rows):
        for j in range(columns):
            axes[i, j].axis("off")
            if j < len(row) and row[j] is not None:
                picture(axes[i, j], row[j], titles[i][j])
    return figure


def picture(ax, x: Tensor, title: str) -> None:
    """One image [3, H, W] on given axes."""
    ax.imshow(to_uint8(x), interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.axis("off")


def amplified(difference: Tensor, gain: float) -> Tensor:
    """A perturbation [3, H, W] as a picture: ½ + gain·difference, clamped."""
    return (0.5 + gain * difference).clamp(0, 1)


def rd_curves(table: pd.DataFrame, quality: str = "psnr", ax=None, published: pd.DataFrame | None = None):
    """Rate–distortion curves, a line a codec, each point the mean over images at one quality.

    ``table``: rows with ``codec``, ``quality``, ``bpp``, ``psnr``, ``ms_ssim`` …; ``published``: rows with ``name``,
    ``codec`` (whose colour to take), ``bpp`` and the quality, drawn thin and unfilled.
    """
    ax = ax or plt.subplots(figsize=(7, 5))[1]
    means = table.groupby(["codec", "quality"], sort=False)[["bpp", quality]].mean().reset_index()
    transform = (lambda v: -10 * np.log10(1 - v)) if quality == "ms_ssim" else (lambda v: v)
    for codec, curve in means.groupby("codec", sort=False):
        curve = curve.sort_values("bpp")
        classical = codec in CLASSICAL
        ax.plot(
            curve["bpp"],
            transform(curve[quality]),
            CLASSICAL_LINE if classical else "-",
            label=codec,
            lw=1.2 if classical else 2,
            zorder=1.5 if classical else 2,
            **style(codec),
        )
    if published is not None:
        for name, curve in published.groupby("name", sort=False):
            look = style(curve["codec"].iloc[0]) | {"markerfacecolor": "none"}
            ax.plot(curve["bpp"], transform(curve[quality]), ":", lw=1, ms=4, alpha=0.8, label=name, **look)
    labels = {"psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM, as −10·log₁₀(1 − MS-SSIM) (dB)", "ssim": "SSIM"}
    ax.set(xlabel="rate (bits per pixel, real bytes)", ylabel=labels[quality])
    return ax


def name_classical(ax):
    """Write each classical codec's name on its line, within the axes' limits; call it last. Takes them out of the legend."""
    lines = [line for line in ax.lines if line.get_label() in CLASSICAL]
    low, high = ax.get_xlim()
    for k, line in enumerate(lines):
        x, y = line.get_data()
        at = low + (high - low) * (0.42 + 0.4 * k / max(1, len(lines) - 1))
        here, there = np.interp([at, at + 0.02 * (high - low)], x, y)
        slope = np.degrees(np.arctan2(there - here, 0.02 * (high - low)))
        ax.text(
            at,
            here,
            line.get_label(),
            ha="center",
            va="center",
            fontsize=8,
            color=line.get_color(),
            rotation=slope,
            rotation_mode="anchor",
            transform_rotates_text=True,
            clip_on=True,
            zorder=1.6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
        line.set_label(f"_{line.get_label()}")
    return ax


def saved_bytes(curves: pd.DataFrame, jpeg: pd.DataFrame, ax=None, published: pd.DataFrame | None = None):
    """Bytes saved (%) against JPEG's curve at each point's own PSNR, a line a codec.

    ``curves``, ``jpeg``: rows with ``codec``, ``bpp``, ``psnr``; ``published``: the same, drawn dotted and unfilled.
    """
    ax = ax or plt.subplots(figsize=(8, 5))[1]
    for table, own in ((published, False), (curves, True)):
        for codec, curve in () if table is None else table.groupby("codec", sort=False):
            curve = curve.sort_values("psnr")
            saving = [-rate_difference(jpeg, p) for _, p in curve.iterrows()]
            look = {"lw": 2, "label": codec} if own else {"lw": 1, "ms": 4, "alpha": 0.8, "markerfacecolor": "none"}
            ax.plot(curve["psnr"], saving, "-" if own else ":", **style(codec) | look)
    ax.axhline(0, color="black", lw=1)
    ax.set(xlabel="PSNR (dB)", ylabel="bytes saved against JPEG (%)")
    return ax


def ladder(table: pd.DataFrame, value: str, ylabel: str, ax=None):
    """A quantity against ε, a line for each codec and attack, with the 95 % interval over images as a band.

    ``table``: rows with ``codec``, ``codec_label``, ``eps_255``, ``attack`` and the value. The lines are labelled by the
    attack, and by the codec too where the table holds several.
    """
    ax = ax or plt.subplots(figsize=(6, 4.5))[1]
    means = summarise(table, value, ["codec", "codec_label", "attack", "eps_255"])
    dashes = {"FGSM": "-", "uniform noise": ":", "sign noise": "--", "PGD on the rate": "-"}
    several = table["codec_label"].nunique() > 1
    for (codec, name, attack), line in means.groupby(["codec", "codec_label", "attack"], sort=False):
        look = style(codec)
        label = f"{name}, {attack}" if several else attack
        ax.plot(line["eps_255"], line["mean"], dashes.get(attack, "-."), label=label, **look)
        ax.fill_between(line["eps_255"], line["low"], line["high"], color=look["color"], alpha=0.15, lw=0)
    ax.set_xscale("log", base=2)
    steps = sorted(table["eps_255"].unique())
    ax.set_xticks(steps, [str(int(s)) for s in steps])
    ax.set(xlabel="ε (8-bit levels, of 255)", ylabel=ylabel)
    return ax


#: attack -> (colour, marker), wherever attacks and not codecs are told apart.
ATTACK_STYLES: dict[str, tuple[str, str]] = {
    "FGSM": (_BLACK, "o"),
    "I-FGSM": (_BLUE, "v"),
    "PGD": (_ORANGE, "s"),
    "MI-FGSM": (_GREEN, "D"),
    "DI-FGSM": (_PURPLE, "P"),
    "APGD": (_RED, "^"),
}


def strength(table: pd.DataFrame, value: str, ax=None):
    """How strong attacks are against what they cost, a line an attack with the 95 % interval over images.

    ``table``: rows with ``attack``, ``cost`` (gradient evaluations; 0: a control without any, drawn across) and the value.
    """
    ax = ax or plt.subplots(figsize=(6, 4.5))[1]
    means = summarise(table, value, ["attack", "cost"])
    for attack, line in means.groupby("attack", sort=False):
        if line["cost"].iloc[0] == 0:
            ax.axhline(line["mean"].iloc[0], color=_GREY, ls=":", label=attack)
            continue
        colour, marker = ATTACK_STYLES.get(attack.split(",")[0], (_GREY, "."))
        ax.plot(line["cost"], line["mean"], color=colour, marker=marker, label=attack)
        ax.fill_between(line["cost"], line["low"], line["high"], color=colour, alpha=0.08, lw=0)
    ax.set_xscale("log")
    costs = sorted(set(table["cost"]) - {0})
    ax.set_xticks(costs, [str(c) for c in costs])
    ax.minorticks_off()
    ax.set(xlabel="gradient evaluations")
    return ax


def attack_plane(table: pd.DataFrame, ax, origin: str | None = "clean image"):
    """What attacks did to one codec in the plane of rate and quality: an arrow and a marker for each attack.

    ``table``: rows of one codec with ``attack``, ``bpp_ratio`` and ``delta_own``. The origin is the clean image (its own
    file size, no loss); crosses are the 95 % intervals over images. Markers go by the attacks' order of appearance.
    """
    markers = "o>psv<D^P"
    rate = summarise(table, "bpp_ratio", ["attack"])
    loss = summarise(table, "delta_own", ["attack"])
    colour = style(table["codec"].iloc[0])["color"]
    ax.plot(1, 0, "+", color="black", ms=12, mew=2, label=origin)
    for marker, (_, r), (_, d) in zip(markers[: len(rate)], rate.iterrows(), loss.iterrows(), strict=True):
        ax.annotate("", (r["mean"], -d["mean"]), (1, 0), arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35})
        ax.errorbar(
            r["mean"],
            -d["mean"],
            xerr=[[r["mean"] - r["low"]], [r["high"] - r["mean"]]],
            yerr=[[d["high"] - d["mean"]], [d["mean"] - d["low"]]],
            fmt=marker,
            color=colour,
            ms=9,
            lw=1,
            markeredgecolor="black",
            label=r["attack"],
        )
    ax.set(xlabel="file, attacked / clean (real bytes)", ylabel="own PSNR, attacked − clean (dB)")
    return ax


def heat(ax, values, title: str, label: str, cmap: str = "magma", vmin: float | None = None, vmax: float | None = None):
    """A map [h, w] as an image with its colour bar."""
    shown = ax.imshow(torch.as_tensor(values).detach().cpu(), cmap=cmap, interpolation="nearest", vmin=vmin, vmax=vmax)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
    ax.figure.colorbar(shown, ax=ax, label=label, shrink=0.8)
    return ax


def heat_table(ax, table: pd.DataFrame, label: str, digits: int = 1, **options):
    """A table of numbers as a heat map with the numbers in it; ``options`` as of seaborn's ``heatmap``."""
    sns.heatmap(
        table,
        ax=ax,
        annot=True,
        fmt=f".{digits}f",
        annot_kws={"fontsize": 8},
        linewidths=0.5,
        cbar_kws={"label": label, "pad": 0.01},
        **options,
    )
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(axis="y", rotation=0)
    return ax


def name_points(ax, x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> None:
    """Names beside points, each above or below its point by turns from left to right, so that neighbours do not meet."""
    x, y, names = list(x), list(y), list(names)
    for turn, k in enumerate(sorted(range(len(names)), key=lambda k: x[k])):
        side = 1 if turn % 2 else -1
        ax.annotate(
            names[k], (x[k], y[k]), (4, 7 * side), textcoords="offset points", fontsize=8, va="bottom" if side > 0 else "top"
        )


def intervals(ax, table: pd.DataFrame, label: str, columns: tuple[str, str, str] = ("mean", "low", "high")):
    """Means with their intervals, one below the other: ``table`` has a row for each (codec, quality), and ``columns`` for
    the mean and the two ends."""
    for y, ((codec, _), row) in enumerate(table.iterrows()):
        mean, low, high = row[list(columns)]
        error = [[mean - low], [high - mean]]
        ax.errorbar(mean, -y, xerr=error, lw=1.5, capsize=3, ms=7, markeredgecolor="black", **style(codec))
    ax.set_yticks(range(0, -len(table), -1), [f"{codec} q{quality:g}" for codec, quality in table.index])
    ax.set_xlabel(label)
    return ax


def named_intervals(ax, table: pd.DataFrame, label: str):
    """Means with their intervals, one below the other: ``table`` has columns ``mean``, ``low``, ``high``, its index their names."""
    error = [table["mean"] - table["low"], table["high"] - table["mean"]]
    rows = range(0, -len(table), -1)
    ax.errorbar(table["mean"], rows, xerr=error, fmt="o", color=_BLUE, lw=1.5, capsize=3, ms=7)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(rows, table.index)
    ax.set_xlabel(label)
    return ax
