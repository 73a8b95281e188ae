"""Pictures of attacks on the file: where its bits go, how it grows with the budget, and the plane of rate and quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import plotting

ATTACKED, NOISE = "#D55E00", "0.45"
#: The named directions, in few words.
SHORT = {"distortion, rate kept": "rate kept", "rate, quality kept": "quality kept"}
PER_BLOCK = "bits per 16×16 pixels"


def where_bits_go(
    pictures: Mapping[str, Tensor], maps: Sequence[Tensor], decoded: Sequence[Tensor], sizes: Sequence[int], dotted: Tensor
) -> Figure:
    """A row for each of two ``pictures`` (name -> [3, H, W]): the picture, its map of bits [h, w] on one scale, what is decoded.

    ``sizes``: the files, in bytes; ``dotted``: the blocks [h, w] that get a dot.
    """
    figure, axes = plt.subplots(len(maps), 3, figsize=(11, 3.7 * len(maps)))
    norm = PowerNorm(0.5, 0, max(m.max().item() for m in maps))
    colours = ("black", ATTACKED)
    for row, (name, x), bits, out, size, colour in zip(axes, pictures.items(), maps, decoded, sizes, colours, strict=True):
        plotting.picture(row[0], x, "")
        shown = row[1].imshow(bits.cpu(), cmap="magma", norm=norm, interpolation="nearest")
        down, across = dotted.cpu().nonzero(as_tuple=True)
        row[1].plot(across, down, ".", color="white", ms=4, alpha=0.8)
        plotting.picture(row[2], out, "")
        row[0].text(-0.06, 0.5, name, fontsize=19, rotation=90, ha="right", va="center", transform=row[0].transAxes)
        row[1].set_title(f"file: {size / 1000:.1f} kB", fontsize=19, color=colour)
        row[1].axis("off")
    axes[0, 0].set_title("goes in", fontsize=19)
    axes[0, 2].set_title("comes out", fontsize=19)
    bar = figure.colorbar(shown, ax=axes[:, 1], location="bottom", shrink=0.9, pad=0.02)
    bar.set_label(PER_BLOCK, fontsize=16)
    bar.set_ticks([v for v in (0, 50, 200, 500, 1000, 2000, 4000) if v <= norm.vmax])
    bar.ax.tick_params(labelsize=14)
    return figure


def growth(ladder: pd.DataFrame, attack: str, labels: Sequence[str]) -> Figure:
    """How files grow with ε, on a log axis: a dot an image, a line the mean; the image that grows most is named.

    ``ladder``: rows with ``codec_label``, ``attack`` (``attack`` and one control), ``eps_255``, ``image`` and ``bpp_ratio``.
    """
    figure, axes = plt.subplots(1, len(labels), figsize=(5.2 * len(labels), 4.4), sharey=True)
    for ax, label in zip(axes, labels, strict=True):
        for name, part in ladder[ladder["codec_label"] == label].groupby("attack", sort=False):
            colour = ATTACKED if name == attack else NOISE
            ax.plot(part["eps_255"], part["bpp_ratio"], "o", color=colour, alpha=0.45, ms=6)
            mean = part.groupby("eps_255")["bpp_ratio"].mean()
            ax.plot(mean.index, mean, color=colour, lw=2.5)
            if ax is axes[0]:
                above = 1.15 * part.loc[part["eps_255"].isin(mean.index[:3]), "bpp_ratio"].max()
                at, va = (above, "bottom") if name == attack else (0.93, "top")
                ax.text(mean.index[0], at, name, color=colour, fontsize=13, va=va)
            if name == attack:
                top = part.loc[part["bpp_ratio"].idxmax()]
                said = f"{top['image'].split('.')[0]} ×{top['bpp_ratio']:.1f}  "
                ax.text(top["eps_255"], top["bpp_ratio"], said, ha="right", va="center", fontsize=12, color=colour)
        _levels(ax, sorted(ladder["eps_255"].unique()), ladder["bpp_ratio"].max())
        ax.set_title(label, fontsize=14)
    axes[0].set_ylabel("file, attacked / clean (real bytes)", fontsize=12)
    return figure


def _levels(ax, levels: Sequence[float], most: float) -> None:
    """Log axes with the budgets and doublings as their ticks."""
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(levels, [f"{v:g}" for v in levels], fontsize=12)
    doublings = [2**k for k in range(int(np.ceil(np.log2(max(most, 2)))) + 1)]
    ax.set_yticks(doublings, [f"×{v}" for v in doublings], fontsize=12)
    ax.set_ylim(0.7, 1.25 * max(most, 2))
    ax.set_xlabel("ε (/255)", fontsize=12)


def files_of(codecs: Sequence, pictures: Mapping[str, Mapping], names: Sequence[str], parts: Callable) -> pd.DataFrame:
    """A row a codec, kind and image: what ``parts(codec, picture)`` counts. ``pictures``: kind (clean, attacked) -> label -> images."""
    return pd.DataFrame(
        {"codec": c.name, "codec_label": c.label, "image": name, "kind": kind} | parts(c, picture)
        for c in codecs
        for kind, of in pictures.items()
        for name, picture in zip(names, of[c.label], strict=True)
    )


def estimates(bits: pd.DataFrame) -> Figure:
    """Left the estimate against the real bytes, a point an image; right what the files of all images consist of.

    ``bits``: rows with ``codec``, ``codec_label``, ``kind`` (clean, attacked), bits ``y``, ``z``, ``header``, ``coded``
    (y and z), ``estimated``, and ``pixels``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.2))
    for (label, kind), g in bits.groupby(["codec_label", "kind"], sort=False):
        look = plotting.style(g["codec"].iloc[0]) | ({"markerfacecolor": "none"} if kind == "clean" else {})
        left.plot(g["estimated"] / g["pixels"], g["coded"] / g["pixels"], ls="", ms=9, label=f"{label}, {kind}", **look)
    end = [0, 1.1 * (bits[["coded", "estimated"]].max(axis=1) / bits["pixels"]).max()]
    left.plot(end, end, color="black", lw=1)
    left.set_xlabel("estimated (bits per pixel)", fontsize=12)
    left.set_ylabel("real bytes of y and z (bits per pixel)", fontsize=12)
    left.legend(fontsize=10, loc="upper left")
    total = bits.groupby(["codec_label", "kind"], sort=False)[["y", "z", "header", "pixels"]].sum()
    share = total[["y", "z", "header"]].div(total["pixels"], axis=0)
    share.index = [f"{label}\n{kind}" for label, kind in share.index]
    share.plot.barh(stacked=True, ax=right, color=["0.6", "black", "0.85"], width=0.75)
    right.invert_yaxis()
    right.tick_params(labelsize=11)
    right.set_xlabel("real file (bits per pixel)", fontsize=12)
    right.legend(fontsize=11)
    return figure


def paid(bits: pd.DataFrame) -> pd.DataFrame:
    """A row a codec, of all images: real bits over estimated ones, clean and attacked, how y and z grew, and y's share of the new
    bits. ``bits``: as of :func:`estimates`."""
    total = bits.groupby(["kind", "codec_label"], sort=False)[["y", "z", "coded", "estimated"]].sum()
    before, after = total.loc["clean"], total.loc["attacked"]
    return pd.DataFrame(
        {
            "real / estimated, clean": before["coded"] / before["estimated"],
            "real / estimated, attacked": after["coded"] / after["estimated"],
            "y ×": after["y"] / before["y"],
            "z ×": after["z"] / before["z"],
            "y's share of the new bits": (after["y"] - before["y"]) / (after["coded"] - before["coded"]),
        }
    )


def degrees(angle: float) -> str:
    """An angle in words, with a minus sign."""
    return f"{angle:g}°".replace("-", "−")


def direction(points: pd.DataFrame, here: float, bits: Tensor, top: float) -> Figure:
    """One angle: its point on the path of all in the plane of rate and quality, and the map of the bits [h, w] beside it.

    ``points``: by angle (degrees), columns ``bpp_ratio`` and ``delta_own`` (dB lost). ``top``: the colours' end.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.7), width_ratios=(1.35, 1))
    _path(left, points)
    p = points.loc[here]
    left.annotate("", (p["bpp_ratio"], -p["delta_own"]), (1, 0), arrowprops={"arrowstyle": "-|>", "color": ATTACKED, "lw": 3})
    left.plot(p["bpp_ratio"], -p["delta_own"], "o", color=ATTACKED, ms=12)
    _map(right, bits, top)
    return figure


def path(points: pd.DataFrame, maps: Mapping[float, Tensor], top: float) -> Figure:
    """The static form of :func:`direction`: the path with its angles named, and the maps of some of them."""
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(4.8 + 2.6 * len(maps), 3.9), width_ratios=(1.8, *[1] * len(maps)))
    _path(axes[0], points)
    for angle, p in points[points.index % 45 == 0].iterrows():
        right = (8, 4 if p["delta_own"] < 0 else -12)  # away from the path
        away = {"xytext": (-8, -4), "ha": "right"} if p["bpp_ratio"] < 1 else {"xytext": right, "ha": "left"}
        axes[0].annotate(degrees(angle), (p["bpp_ratio"], -p["delta_own"]), textcoords="offset points", fontsize=11, **away)
    for ax, (angle, bits) in zip(axes[1:], maps.items(), strict=True):
        shown = _map(ax, bits, top)
        ax.set_title(f"φ = {degrees(angle)}: file ×{points.loc[angle, 'bpp_ratio']:.2f}", fontsize=12)
    figure.colorbar(shown, ax=axes[-1], label=PER_BLOCK, fraction=0.05)
    return figure


def _path(ax, points: pd.DataFrame) -> None:
    ax.plot(points["bpp_ratio"], -points["delta_own"], "o-", color="0.6", ms=6, lw=1)
    ax.plot(1, 0, "+", color="black", ms=14, mew=2.5)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.axvline(1, color="0.3", lw=0.8)
    ax.set_xlabel("file, attacked / clean", fontsize=12)
    ax.set_ylabel("own PSNR, attacked − clean (dB)", fontsize=12)
    ax.margins(0.12)


def _map(ax, bits: Tensor, top: float):
    shown = ax.imshow(bits.cpu(), cmap="magma", norm=PowerNorm(0.5, 0, top), interpolation="nearest")
    ax.set_title(PER_BLOCK, fontsize=12)
    ax.axis("off")
    return shown


def six_directions(plane: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """What each attack did to each codec, means over images, each point named; a panel for each of ``labels``.

    ``plane``: rows with ``codec_label``, ``attack``, ``image``, ``bpp_ratio`` and ``delta_own``.
    """
    figure, axes = plt.subplots(1, len(labels), figsize=(4.6 * len(labels), 4.6), sharey=True, sharex=True)
    most = plane.groupby(["codec_label", "attack"])["bpp_ratio"].mean().max()
    for ax, label in zip(axes, labels, strict=True):
        part = plane[plane["codec_label"] == label]
        mean = part.groupby("attack", sort=False)[["bpp_ratio", "delta_own"]].mean()
        ax.plot(1, 0, "+", color="black", ms=14, mew=2.5)
        for name, (ratio, lost) in mean.iterrows():
            colour = NOISE if name == "noise" else ATTACKED
            ax.plot([1, ratio], [0, -lost], color=colour, lw=1, alpha=0.5)
            ax.plot(ratio, -lost, "o", color=colour, ms=9)
            where = (8, -4) if ratio >= 1 else (-8, -4)
            ha = "left" if ratio >= 1 else "right"
            ax.annotate(SHORT.get(name, name), (ratio, -lost), where, textcoords="offset points", fontsize=11, ha=ha)
        ax.set_xscale("log", base=2)
        ticks = [t for t in ((1, 1.2, 1.5, 2) if most < 2.2 else (1, 2, 4, 8, 16)) if t <= 1.15 * most]
        ax.set_xticks(ticks, [f"×{t:g}" for t in ticks], fontsize=11)
        ax.minorticks_off()
        ax.margins(0.36, 0.12)
        ax.set_title(label, fontsize=14)
        ax.set_xlabel("file, attacked / clean", fontsize=12)
    axes[0].set_ylabel("own PSNR, attacked − clean (dB)", fontsize=12)
    return figure
