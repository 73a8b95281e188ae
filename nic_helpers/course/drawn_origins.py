"""Where a codec breaks: branches of its entropy model, its layers, its start, and the codec whose worst case is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers import plotting

BRANCHES = {
    "samples": "latents",
    "context": "context",
    "hyperprior": "side\ninfo",
    "samples and context": "latents,\ncontext",
}


def branches(stays: pd.DataFrame, growth: Mapping[str, float], published: Mapping[str, float]) -> Figure:
    """``stays``: share of a file's growth that stays, by (codec, counterpart) and branch replaced; ``growth``: codec -> factor of the
    file; ``published``: codec -> the same share, for the side information."""
    codecs = list(dict.fromkeys(stays.index.get_level_values(0)))
    figure, axes = plt.subplots(2, -(-len(codecs) // 2), figsize=(9.5, 6.6), sharey=True)
    for ax, codec in zip(axes.flat, codecs, strict=False):
        wide = stays.loc[codec].T.dropna().drop("none")
        wide.rename(BRANCHES).plot.bar(ax=ax, color=plotting.colours(3), width=0.75, legend=False, rot=0)
        ax.axhline(1, color="black", lw=1)
        if codec in published and "hyperprior" in wide.index:
            at = list(wide.index).index("hyperprior")
            ax.plot(at, published[codec], "D", ms=8, mfc="white", mec="black", ls="", label="Wu et al. 2024")
        ax.set(xlabel="", title=f"{codec}\nfile ×{growth[codec]:.1f}")
    for ax in axes[:, 0]:
        ax.set_ylabel("share of the growth that stays")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda k: "Wu" in labels[k])
    figure.legend(
        [handles[k] for k in order],
        [labels[k] for k in order],
        ncols=4,
        frameon=False,
        loc="outside upper center",
        title="the branch is replaced by that of",
        fontsize=11,
    )
    return figure


def _through(ax, per_layer: pd.DataFrame, kinds: pd.Series, looks: Sequence[tuple], title: str, ends: tuple[float, float]) -> None:
    for case, colour, dash, marker in looks:
        hollow = {"mfc": "none", "ms": 10} if "unrelated" in case else {}
        ax.plot(per_layer.loc[case].to_numpy(), dash, color=colour, marker=marker, label=case, **hollow)
    for k in np.flatnonzero(kinds == "IGDN"):
        ax.axvspan(k - 0.5, k + 0.5, color="0.9", zorder=0)
    ax.axhline(1, color="black", lw=1)
    ax.set(yscale="log", ylabel="LDMR", title=title)
    ax.set_yticks([0.1, 0.25, 0.5, 1, 2, 4], ["0.1", "¼", "½", "1", "2", "4"])
    ax.minorticks_off()
    ax.set_ylim(*ends)
    ax.legend(loc="lower left")


def layers(per_layer: pd.DataFrame, kinds: pd.Series, controls: Sequence[str], starts: Sequence[str], title: str) -> Figure:
    """``per_layer``: LDMR by case (rows) and layer; ``kinds``: layer -> its kind. ``controls``: two controls and two attacks, above;
    ``starts``: three cases of the two starts, below. IGDN is shaded."""
    grey, (blue, _, green, red) = "0.6", plotting.colours(4)
    above = ((grey, ":", "o"), (grey, "--", "v"), (blue, "-", "s"), (red, "-", "D"))
    below = ((red, "-", "D"), (green, "--", "o"), (green, "-", "s"))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.5, 8), sharex=True)
    looks = [(case, *look) for case, look in zip(controls, above, strict=True)]
    _through(top, per_layer, kinds, looks, f"{title}: two controls, two attacks", (0.06, 6))
    looks = [(case, *look) for case, look in zip(starts, below, strict=True)]
    _through(bottom, per_layer, kinds, looks, "hyperprior q3: one architecture, two starts, in the ball", (0.4, 3))
    bottom.set_xticks(range(len(kinds)), kinds.replace({"convolution": "conv", "quantiser": "round"}), rotation=60)
    bottom.set_xlabel("layer, from the picture to the latents (round) and back")
    return figure


def beside(apart: pd.DataFrame) -> Figure:
    """``apart``: PSNR between the outputs (dB) by case (rows, the mildest first) and codec, two or three columns. Left: more broken."""
    figure, ax = plt.subplots(figsize=(7.6, 1.2 + 0.55 * len(apart)))
    for row, values in enumerate(apart.to_numpy()):
        ax.plot([values.min(), values.max()], [row] * 2, "-", color="0.7", lw=3, zorder=1)
    for mark, colour, codec in zip("sDo", ("#D55E00", "#0072B2", "#009E73"), apart, strict=False):
        ax.plot(apart[codec], range(len(apart)), mark, color=colour, ms=11, label=codec)
    ax.set_yticks(range(len(apart)), apart.index, fontsize=13)
    ax.set_ylim(len(apart) - 0.5, -0.5)
    ax.set_xlabel("PSNR between the outputs (dB); left: more broken", fontsize=13)
    ax.legend(fontsize=12, loc="lower right")
    return figure


def known_bound(gains: Mapping[str, pd.DataFrame]) -> Figure:
    """``gains``: codec -> gain (dB: the output's change over the input's), by size of the change in 8-bit levels (rows) and way."""
    blue, orange, green = plotting.colours(3)
    looks = {
        "upper bound": ("black", "-", ""),
        "shopping list, as an image": (green, "-", "D"),
        "APGD": (orange, "-", "^"),
        "PGD": (blue, "--", "s"),
        "noise": ("0.5", ":", "o"),
    }
    figure, axes = plt.subplots(1, len(gains), figsize=(9.5, 4.4), sharey=True)
    for ax, (codec, table) in zip(axes, gains.items(), strict=True):
        for way, (colour, dash, marker) in looks.items():
            if way in table and table[way].notna().any():
                ax.plot(table.index, table[way], dash, color=colour, marker=marker, label=way)
        ax.axhline(0, color="0.7", lw=1, zorder=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(table.index, [f"{k:g}" for k in table.index])
        ax.set(title=codec, xlabel="RMS of the change (8-bit levels)")
    axes[0].set_ylabel("gain: output's change / input's (dB)")
    axes[0].legend(*axes[-1].get_legend_handles_labels(), loc="upper right")
    return figure
