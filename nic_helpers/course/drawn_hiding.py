"""Pictures of attacks that hide (notebook 07): zoomed crops, where a perturbation sits, four metrics, rankings, four noises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import metrics, plotting, stats
from nic_helpers.course.boards import board, short

#: What each attack does, in one word, in the order that figures list them.
GROUPS = {
    "noise": "control",
    "PGD": "free",
    "MADC": "free",
    "SSAH": "hides",
    "Chroma": "hides",
    "PGD, luma": "aims",
    "PGD, MS-SSIM": "aims",
}
_LOOKS = dict(
    zip(
        GROUPS,
        zip(("0.5", "#0072B2", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00"), "xo^sDvP", strict=True),
        strict=True,
    )
)
METRICS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "vmaf": "VMAF"}
Place = tuple[slice, slice, slice]


def look(name: str) -> dict:
    """Matplotlib's colour and marker of an attack, the same in each figure."""
    colour, marker = _LOOKS[name]
    return {"color": colour, "marker": marker}


# ---------------------------------------------------------------------------------------------------------------- crops
def busiest(change: Tensor, side: int = 56) -> Place:
    """The square of so many pixels where a change [3, H, W] has most power, for indexing a picture."""
    height, width = change.shape[1:]
    side = min(side, height, width)
    power = F.avg_pool2d(change.pow(2).sum(0)[None, None], side, stride=4)[0, 0]
    row, column = divmod(int(power.argmax()), power.shape[1])
    return slice(None), slice(4 * row, 4 * row + side), slice(4 * column, 4 * column + side)


def middle(picture: Tensor, side: int = 56) -> Place:
    """The square of so many pixels in the middle of a picture [3, H, W], for indexing it."""
    top, left = ((size - side) // 2 for size in picture.shape[1:])
    return slice(None), slice(top, top + side), slice(left, left + side)


def enlarged(picture: Tensor, times: int = 4) -> Tensor:
    """A picture [3, h, w] with each pixel as a square of times × times."""
    return picture.repeat_interleave(times, 1).repeat_interleave(times, 2)


def crops(given: Mapping[str, Tensor], decoded: Mapping[str, Tensor], place: Place, says: Mapping[str, str]) -> Figure:
    """Crops of what a codec is given, and below of what it decodes: a column for each picture [3, H, W], by name.

    ``says``: a line under each name.
    """
    rows = [[pictures[name][place] for name in given] for pictures in (given, decoded)]
    figure = plotting.picture_grid(rows, [list(given), [says[name] for name in given]], width=2.7)
    for ax in figure.axes:
        ax.title.set_fontsize(13)
    return figure


def frames(
    pictures: Mapping[str, Tensor], made: Mapping[tuple[str, str], Tensor], places: Mapping[str, Place], codec, frame: Callable
) -> dict[tuple[str, str], object]:
    """Frames by (attack, picture's name) for an explorer: a zoomed crop of source, attacked and decoded, and the numbers.

    ``pictures`` [1, 3, H, W] and ``places`` by name; ``made``: attacked pictures by (attack, name); ``frame``: the
    widgets' ``Frame``.
    """
    found, gain = {}, 8
    for name, x in pictures.items():
        clean = codec.reconstruct(x)
        out = {attack: codec.reconstruct(made[attack, name]) for attack, of in made if of == name}
        place = places[name]
        source = enlarged(x[0][place])
        for attack, coded in out.items():
            adv = made[attack, name]
            seen, apart, lost = (metrics.psnr(*pair).item() for pair in ((x, adv), (clean, coded), (x, coded)))
            text = (
                f"attacked against source: {seen:.1f} dB, largest change {255 * (adv - x).abs().max().item():.0f} levels\n"
                f"decoded against decoded clean: {apart:.1f} dB; decoded against source: {lost:.1f} dB "
                f"(not attacked: {metrics.psnr(x, clean).item():.1f} dB)"
            )
            shown = {
                "source": source,
                "attacked": enlarged(adv[0][place]),
                f"added ×{gain:g}": enlarged(plotting.amplified((adv - x)[0][place], gain)),
                "decoded": enlarged(coded[0][place]),
                f"output's change ×{gain:g}": enlarged(plotting.amplified((coded - clean)[0][place], gain)),
            }
            found[attack, name] = frame(shown, text)
    return found


# ------------------------------------------------------------------------------------------------- where it sits and goes
def sits(shares: pd.DataFrame) -> Figure:
    """Attacks as points: ``low`` and ``luma``, the shares (%) of a perturbation's power in low frequencies and in the luma."""
    figure, ax = plt.subplots(figsize=(7.2, 5))
    ax.axvline(25, color="0.6", ls=":")
    ax.axhline(100 / 3, color="0.6", ls=":")
    ax.text(26, 96, "white noise's share", color="0.45", fontsize=9, va="top")
    above = {"PGD": (-9, -4), "MADC": (9, -9), "PGD, luma": (8, 2), "PGD, MS-SSIM": (-1, 13), "Chroma": (-8, 8)}
    for name, row in shares.iterrows():
        ax.plot(row["low"], row["luma"], ls="", ms=12, **look(name))
        offset = above.get(name, (8, 6))
        side = "right" if offset[0] < 0 else "left"
        ax.annotate(name, (row["low"], row["luma"]), offset, textcoords="offset points", fontsize=12, ha=side)
    ax.set(xlim=(0, 103), ylim=(-3, 100), xlabel="power in the low frequencies (%)", ylabel="power in the luma (%)")
    return figure


def between(lines: Mapping[str, tuple[Sequence[float], Tensor]], names: Sequence[str]) -> float:
    """How far the spectra of these names lie apart: the range of their power (dB), mean over frequencies."""
    power = torch.stack([lines[n][1] for n in names])
    return (power.amax(0) - power.amin(0)).mean().item()


def spectra(curves: Mapping[str, Mapping[str, tuple[Sequence[float], Tensor]]]) -> Figure:
    """A panel for each entry of ``curves``, a line for each attack in it: frequencies and power (dB against white noise)."""
    figure, axes = plt.subplots(1, len(curves), figsize=(11.5, 4.4), sharey=True)
    for ax, (title, lines) in zip(axes, curves.items(), strict=True):
        for name, (frequencies, power) in lines.items():
            ax.plot(frequencies, power, label=name, markevery=4, lw=2, **look(name))
        ax.axhline(0, color="0.4", lw=1)
        ax.set(xlabel="frequency (cycles per pixel)", ylim=(-25, 32))
        ax.set_title(title, fontsize=13)
    axes[0].set_ylabel("power against white noise\nof the same strength (dB)")
    axes[-1].legend(loc="upper right", ncols=2, fontsize=11)
    return figure


# ------------------------------------------------------------------------------------------------------- metrics and ranks
def dumbbells(table: pd.DataFrame) -> Figure:
    """A panel a metric, a line an attack, from the inputs' mean (open) to the outputs' (filled); a colour for each codec.

    ``table``: rows with ``codec``, ``codec_label``, ``attack``, and ``{metric}_input`` and ``{metric}_recon``.
    """
    names, codecs = list(GROUPS), list(table.groupby("codec_label", sort=False))
    figure, axes = plt.subplots(1, len(METRICS), figsize=(13.5, 4.8), sharey=True)
    for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for k, (codec, part) in enumerate(codecs):
            columns = [f"{metric}_input", f"{metric}_recon"]
            means = part.groupby("attack")[columns].mean().loc[names]
            style, y = plotting.style(part["codec"].iloc[0]), [row + 0.3 * (k - 0.5) for row in range(len(names))]
            ax.hlines(y, means[columns[0]], means[columns[1]], color=style["color"], lw=2)
            ax.plot(means[columns[0]], y, ls="", mfc="white", ms=8, label=f"{codec}: inputs", **style)
            ax.plot(means[columns[1]], y, ls="", ms=8, label=f"{codec}: outputs", **style)
        ax.set_xlabel(label, fontsize=13)
    axes[0].set_yticks(range(len(names)), names, fontsize=12)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=11)
    return figure


def rankings(means: Mapping[tuple[str, float], pd.DataFrame], sides: Sequence[str]) -> Figure:
    """Ranks of attacks as one board: dark is first. ``means``: (codec, quality) -> attacks by columns, four metrics a side.

    ``sides``: what the columns' first and second half are.
    """
    ranks = pd.concat([m.rank(ascending=False) for m in means.values()], axis=1).loc[list(GROUPS)]
    per = len(METRICS)
    ranks.columns = [METRICS[m].split(" (")[0] for m in METRICS] * (ranks.shape[1] // per)
    groups = [f"{short(*codec)}\n{side}" for codec in means for side in sides for _ in range(per)]
    figure, ax = plt.subplots(figsize=(12, 5))
    board(ax, ranks, list(GROUPS.values()), groups, "rank (1: most damage)", room=0.15, cmap="cividis")
    ax.tick_params(axis="y", labelsize=12)
    ax.tick_params(axis="x", labelsize=11)
    for (row, column), rank in np.ndenumerate(ranks.to_numpy()):
        look = {"color": "white" if rank < len(ranks) / 2 else "black", "fontweight": "bold" if rank == 1 else None}
        ax.text(column, row, f"{rank:g}", ha="center", va="center", fontsize=12, **look)
    figure.axes[-1].invert_yaxis()
    return figure


def levels(table: pd.DataFrame, spread: str) -> Figure:
    """``delta_amp`` (dB) against ``psnr_target``, a line an attack with its interval over images; ``spread`` names that."""
    figure, ax = plt.subplots(figsize=(7.6, 4.4))
    lines = stats.summarise(table, "delta_amp", ["attack", "psnr_target"]).sort_values("psnr_target")
    for name, line in lines.groupby("attack"):
        ax.plot(line["psnr_target"], line["mean"], lw=2, ms=8, **look(name))
        ax.fill_between(line["psnr_target"], line["low"], line["high"], alpha=0.15, lw=0, color=look(name)["color"])
        end = line.iloc[-1]
        ax.annotate(name, (end["psnr_target"], end["mean"]), (10, 0), textcoords="offset points", va="center", fontsize=12)
    ax.axhline(0, color="0.3", lw=1)
    ax.set_xticks(sorted(table["psnr_target"].unique()))
    ax.margins(x=0.16)
    ax.set(xlabel="psnr_input (dB): smaller change →", ylabel=f"amplification (dB)\nmean and {spread}")
    return figure


# ---------------------------------------------------------------------------------------------------- pattern or spectrum
def noises(x: Tensor, made: Mapping[str, Tensor], codec, gain: float = 8) -> Figure:
    """Perturbations of one size side by side, and below what the codec's output changes by: a crop, amplified.

    ``x`` [1, 3, H, W]; ``made``: name -> perturbed picture.
    """
    clean = codec.reconstruct(x)
    outs = {name: codec.reconstruct(v) for name, v in made.items()}
    place = middle(x[0])
    figure, axes = plt.subplots(2, len(made), figsize=(2.9 * len(made), 7))
    for column, (name, v) in enumerate(made.items()):
        pairs = ((x, v), (clean, outs[name]))
        for ax, (before, after) in zip(axes[:, column], pairs, strict=True):
            picture = plotting.amplified((after - before)[0][place].cpu(), gain)
            ax.imshow(picture.permute(1, 2, 0), interpolation="nearest")
            ax.set_xlabel(f"{metrics.psnr(before, after).item():.1f} dB", fontsize=22, fontweight="bold")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        axes[0, column].set_title(name, fontsize=20, fontweight="bold")
    for ax, label in zip(axes[:, 0], ("goes in", "comes out"), strict=True):
        ax.set_ylabel(label, fontsize=22, fontweight="bold")
    return figure


def patterns(table: pd.DataFrame, blobs: Mapping[str, float]) -> Figure:
    """Amplification (dB) of attacks ``as made`` and ``dissolved``, an arrow for each; a panel for each codec.

    ``table``: rows with ``codec_label``, ``attack``, ``as made``, ``dissolved``; ``blobs``: codec -> grey blobs' amplification.
    """
    codecs = list(table.groupby("codec_label", sort=False))
    figure, axes = plt.subplots(1, len(codecs), figsize=(5.6 * len(codecs), 3.8), sharey=True, sharex=True, squeeze=False)
    for ax, (codec, part) in zip(axes[0], codecs, strict=True):
        means = part.groupby("attack", sort=False)[["as made", "dissolved"]].mean()
        for row, (name, at) in enumerate(means.iterrows()):
            ax.annotate("", (at["dissolved"], row), (at["as made"], row), arrowprops={"arrowstyle": "->", "lw": 2, "color": "0.4"})
            ax.plot(at["as made"], row, ls="", ms=11, **look(name), label="as made" if row == 1 else None)
            ax.plot(at["dissolved"], row, ls="", ms=11, mfc="white", mew=2, **look(name), label="dissolved" if row == 1 else None)
        ax.axvline(blobs[codec], color="0.35", ls="--")
        ax.text(blobs[codec] + 0.15, 0, "grey blobs", va="center", fontsize=12, color="0.25")
        ax.set_yticks(range(len(means)), means.index, fontsize=12)
        ax.set_title(codec, fontsize=13)
        ax.set_xlabel("amplification (dB)", fontsize=12)
        ax.set_ylim(len(means) - 0.4, -0.5)
    axes[0, 0].legend(loc="lower right", fontsize=11)
    return figure
