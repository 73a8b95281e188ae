"""Why codecs break, in pictures: broken ones side by side, the known worst case, branches, layers, places, two starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import plotting, stats
from nic_helpers.course.boards import short, spread
from nic_helpers.course.origins import BOUND, SHOPPED

BLUE, ORANGE, GREEN, RED = plotting.colours(4)


def side_by_side(columns: Mapping[str, Tensor], notes: Mapping[str, Sequence[float]]) -> Figure:
    """``columns``: heading -> images [B, 3, H, W], a row of pictures for each image; ``notes``: heading -> a number of dB for each."""
    count = len(next(iter(columns.values())))
    figure, axes = plt.subplots(count, len(columns), figsize=(2.7 * len(columns), 2.75 * count + 0.5), squeeze=False)
    for column, (head, images) in enumerate(columns.items()):
        for row in range(count):
            ax = axes[row, column]
            plotting.picture(ax, images[row], "")
            if head in notes:
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 3}
                ax.text(0.03, 0.04, f"{notes[head][row]:.1f} dB", transform=ax.transAxes, fontsize=13, bbox=box)
        axes[0, column].set_title(head, fontsize=14)
    return figure


def known_bound(gains: Mapping[str, pd.DataFrame], learned: pd.Series, name: str) -> Figure:
    """``gains``: codec -> gain (dB), by size of the change in 8-bit levels (rows) and way: first the finely
    rounding codec, then the coarsely rounding one; ``learned``: the same of a learned codec, ``name``, under an attack."""
    looks = {
        BOUND: ("black", "-", ""),
        SHOPPED: (GREEN, "-", "D"),
        "APGD": (ORANGE, "-", "^"),
        "PGD": (BLUE, "--", "s"),
        "noise": ("0.5", ":", "o"),
    }
    figure, axes = plt.subplots(1, len(gains), figsize=(9.5, 4), sharey=True)
    for ax, rounding, (codec, table) in zip(axes, ("fine", "coarse"), gains.items(), strict=True):
        for way, (colour, dash, marker) in looks.items():
            if way in table and table[way].notna().any():
                ax.plot(table.index, table[way], dash, color=colour, marker=marker, label=way)
        ax.axhline(0, color="0.7", lw=1, zorder=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(table.index, [f"{k:g}" for k in table.index])
        ax.set(title=f"{rounding} rounding ({codec})", xlabel="RMS of the change (8-bit levels)")
    axes[-1].plot(learned.index, learned, "*", color=RED, ms=15)
    at = (learned.index[-1], learned.iloc[-1])
    axes[-1].annotate(f"{name},\nattacked", at, (6, 12), textcoords="offset points", ha="right", color=RED, fontsize=11)
    axes[0].set_ylabel("gain: output's change / input's (dB)")
    axes[0].legend(*axes[-1].get_legend_handles_labels(), loc="upper right", fontsize=11)
    return figure


def branches(groups: Mapping[str, Sequence[str]], stays: pd.DataFrame, noisy: pd.DataFrame, published: pd.Series) -> Figure:
    """``groups``: what side information tells -> codecs. ``stays``: the share of a file's growth that stays, by codec and the branch
    that is replaced by the clean image's; ``noisy``: by the noisy image's; ``published``: codec -> that for the side information."""
    marks = {"samples": ("latents", BLUE, "o"), "hyperprior": ("side information", RED, "s"), "context": ("context", "0.5", "^")}
    order = [codec for codecs in groups.values() for codec in codecs]
    figure, ax = plt.subplots(figsize=(9, 0.48 * len(order) + 1.7))
    ax.axvspan(1, 3, color="#D55E00", alpha=0.08, lw=0)
    ax.axvline(1, color="black", lw=1.2)
    for branch, (label, colour, mark) in marks.items():
        if branch in stays:
            rows = np.arange(len(order))
            ax.plot(stays.loc[order, branch], rows, mark, color=colour, ms=11, label=f"do({label} := clean)")
            ax.plot(noisy.loc[order, branch], rows, mark, mfc="none", mec=colour, ms=11)
    ax.plot([], [], "o", mfc="none", mec="0.3", ms=11, label="hollow: := the noisy picture's")
    ax.plot(
        published.to_list(),
        [order.index(codec) for codec in published.index],
        "D",
        mfc="white",
        mec="black",
        ms=8,
        label="side information, Wu et al. 2024",
    )
    edge = 0
    for told, codecs in groups.items():
        if edge:
            ax.axhline(edge - 0.5, color="0.5", lw=1)
        ax.text(1.78, edge + (len(codecs) - 1) / 2, told, fontsize=12, ha="left", va="center", color="0.25")
        edge += len(codecs)
    ax.set_yticks(range(len(order)), order, fontsize=12)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlim(-0.06, 2.4)
    ax.set_xticks([0, 0.5, 1, 1.5], ["0\nall gone", "½", "1\nno help", "1½\nlonger still"], fontsize=11)
    ax.set_xlabel("share of the growth that stays", fontsize=12)
    ax.grid(axis="y", visible=False)
    figure.legend(*ax.get_legend_handles_labels(), ncols=3, frameon=False, loc="outside upper center", fontsize=11)
    return figure


def layers(blocks: Mapping[str, pd.DataFrame], kinds: pd.Series) -> Figure:
    """``blocks``: heading -> LDMR by case (rows) and layer (columns); ``kinds``: layer -> its kind, in the signal's order."""
    heights = [len(table) for table in blocks.values()]
    figure, axes = plt.subplots(len(blocks), 1, figsize=(10.5, 0.42 * sum(heights) + 2.1), sharex=True, height_ratios=heights)
    for ax, (head, table) in zip(axes, blocks.items(), strict=True):
        shades = np.log2(table.to_numpy())
        drawn = ax.imshow(shades, cmap="RdBu_r", vmin=-1.6, vmax=1.6, aspect="auto")
        for (row, column), shade in np.ndenumerate(shades):
            if abs(shade) > np.log2(1.1):
                colour = "white" if abs(shade) > 1 else "black"
                ax.text(column, row, f"{2**shade:.1f}", ha="center", va="center", fontsize=11, color=colour)
        ax.set_yticks(range(len(table)), table.index, fontsize=11)
        ax.set_ylabel(head, fontsize=12)
        ax.grid(visible=False)
        at = list(kinds).index("quantiser")
        for edge in (at - 0.5, at + 0.5):
            ax.axvline(edge, color="black", lw=1.5)
    names = kinds.replace({"convolution": "conv", "quantiser": "round"})
    axes[-1].set_xticks(range(len(kinds)), names, rotation=60, fontsize=11)
    for tick, kind in zip(axes[-1].get_xticklabels(), kinds, strict=True):
        tick.set_fontweight("bold" if kind == "IGDN" else "normal")
    for where, part in ((at / 2 - 0.5, "analysis: picture to latents"), ((at + len(kinds)) / 2, "synthesis: latents to picture")):
        axes[0].text(where, -0.68, part, ha="center", va="bottom", fontsize=12)
    figure.align_ylabels()
    bar = figure.colorbar(drawn, ax=axes, ticks=[-1, 0, 1], shrink=0.7, pad=0.02, label="LDMR")
    bar.ax.set_yticklabels(["½ shrinks", "1 passes on", "2 magnifies"])
    return figure


def places(source: Tensor, bits: Tensor, rises: Mapping[str, Tensor]) -> Figure:
    """A picture [3, H, W], the ``bits`` that its blocks cost, and maps of what rises (red) and falls (blue): "bits", "errors"; [h, w]."""
    figure, axes = plt.subplots(1, 2 + len(rises), figsize=(12, 2.9))
    plotting.picture(axes[0], source, "source")
    plotting.heat(axes[1], bits, "what blocks cost, clean", "bits a block", "Greys", 0, bits.max().item())
    units = {"bits": "bits a block", "errors": "square error"}
    for ax, (what, rise) in zip(axes[2:], rises.items(), strict=True):
        limit = rise.abs().max().item()
        plotting.heat(ax, rise, f"where {what} rise", units[what], "RdBu_r", -limit, limit)
    return figure


def two_starts(boards: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Figure:
    """``boards``: axis label -> a table with a row a case: a column for each start (weights), and their difference ``mean``, ``low``,
    ``high``. ``names``: weights -> words."""
    most = max(map(len, boards.values()))
    figure, axes = plt.subplots(1, len(boards), figsize=(10.5, 1.5 + 0.48 * most))
    for ax, (label, table) in zip(axes, boards.items(), strict=True):
        rows = range(len(table))
        ax.hlines(rows, table[list(names)].min(axis=1), table[list(names)].max(axis=1), color="0.7", lw=3, zorder=1)
        for mark, colour, start in zip("sD", (RED, BLUE), names, strict=True):
            ax.plot(table[start], rows, mark, color=colour, ms=10, label=names[start])
        right = table[list(names)].max(axis=1)
        digits = 1 if right.max() > 10 else 2
        for row, (edge, mean, low, high) in enumerate(zip(right, table["mean"], table["low"], table["high"], strict=True)):
            said = f"{mean:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            ax.annotate(said, (edge, row), (11, 0), textcoords="offset points", va="center", fontsize=11, bbox=box)
        ax.set_yticks(rows, [f"{case}/255" for case in table.index], fontsize=12)
        ax.set_ylim(len(table) - 0.5, -0.6)
        ax.margins(x=0.08)
        low, high = ax.get_xlim()
        ax.set_xlim(low, high + (0.55 if digits == 1 else 0.8) * (high - low))
        ax.set_xlabel(label, fontsize=12)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, frameon=False, loc="outside upper center", fontsize=12)
    return figure


def gates(rows: pd.DataFrame) -> Figure:
    """``rows``: an attack and image each, with ``nonlinearity``, its ``growth`` exponent, ``case`` and ``psnr_recon`` (dB). Left: every
    image under every attack; right: the exponents."""
    kinds, cases = (list(rows[c].unique()) for c in ("nonlinearity", "case"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), width_ratios=(2.4, 1))
    for k, (kind, mark, colour) in enumerate(plotting.series(kinds)):
        part = rows[rows["nonlinearity"] == kind]
        for row, case in enumerate(cases):
            found = part.loc[part["case"] == case, "psnr_recon"]
            at = row + 0.22 * (k - (len(kinds) - 1) / 2)
            left.plot(found, [at] * len(found), mark, color=colour, alpha=0.4, ms=6)
            left.plot(found.mean(), at, mark, color=colour, ms=11, mec="white", label=kind if row == 0 else None)
        right.barh(k, part["growth"].iloc[0], color=colour, height=0.6)
        right.text(part["growth"].iloc[0], k, f" {part['growth'].iloc[0]:.1f}", va="center", fontsize=12)
    left.set_yticks(range(len(cases)), cases, fontsize=12)
    left.set(ylim=(len(cases) - 0.5, -0.5), xlabel="PSNR between the outputs (dB); left: more broken")
    right.set_yticks(range(len(kinds)), [""] * len(kinds))
    right.set(ylim=(len(kinds) - 0.5, -0.5), xlabel="growth exponent of the decoder")
    right.margins(x=0.2)
    figure.legend(*left.get_legend_handles_labels(), ncols=3, frameon=False, loc="outside upper center", fontsize=12)
    return figure


def exponents(growth: Mapping[str, float], apart: pd.DataFrame) -> Figure:
    """Each codec's growth exponent against its PSNR between the outputs (dB): means with 95 % intervals over the images.

    ``growth``: by codec; ``apart``: images by the same codecs."""
    figure, ax = plt.subplots(figsize=(9, 5.2))
    means = apart.mean()
    labels = {}
    for side in (True, False):  # each side's names are pushed apart among themselves
        labels |= spread({codec: means[codec] for codec, e in growth.items() if (e > 3) == side}, 0.32)
    for codec, exponent in growth.items():
        found, look = stats.bootstrap(apart[codec].to_numpy()), plotting.style(codec) | {"ls": "", "ms": 10}
        crowd = [c for c, e in growth.items() if abs(e - exponent) < 0.25 and abs(means[c] - means[codec]) < 0.6]
        at = exponent + 0.12 * (crowd.index(codec) - (len(crowd) - 1) / 2)  # marks of one exponent would cover each other
        ax.errorbar(at, found.mean, [[found.mean - found.low], [found.high - found.mean]], capsize=3, elinewidth=0.8, **look)
        left = exponent < 0.5  # to its right are those of exponent one
        place = (exponent - 0.2 if left else exponent + 0.45, labels[codec])
        ax.text(*place, short(codec), ha="right" if left else "left", va="center", color=look["color"], fontsize=12)
    ax.set(xlabel="growth exponent of the decoder", ylabel="PSNR between the outputs (dB): lower is worse", xlim=(-2, 10.4))
    ax.set_xticks(range(9))
    return figure
