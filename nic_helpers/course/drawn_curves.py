"""Codecs compared: a few rate–distortion curves with their names beside them, and what each codec saves against JPEG."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers import metrics, plotting, stats
from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.course.boards import spread

LABELS = {"psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM, as −10·log₁₀(1 − MS-SSIM) (dB)"}


def named_curves(curves: Mapping[str, pd.DataFrame], names: Mapping[str, str], quality: str = "psnr", most: float = 1.0) -> Figure:
    """Rate–distortion curves up to ``most`` bits per pixel, each with its name at its end.

    ``curves``: codec -> its points, ``bpp`` and ``psnr`` or ``ms_ssim`` (means over images); ``names``: codec -> the name to write,
    of those to be drawn. Between its points a curve is interpolated as for the BD-rate's inverse, :func:`nic_helpers.stats.quality_at`.
    """
    figure, ax = plt.subplots(figsize=(8.5, 6))
    ends = []
    for codec, name in names.items():
        curve = curves[codec].sort_values("bpp")
        curve = curve.assign(shown=-10 * np.log10(1 - curve[quality]) if quality == "ms_ssim" else curve[quality])
        rate, level = curve["bpp"].to_numpy(), curve["shown"].to_numpy()
        between = [*np.geomspace(rate[0], min(most, rate[-1]), 60)[:-1].tolist(), min(most, rate[-1])]
        along = [stats.quality_at(curve, r, "shown") for r in between]
        end, height = between[-1], along[-1]
        look, classical = plotting.style(codec), codec in CLASSICAL
        line, wide = (plotting.CLASSICAL_LINE, 2) if classical else ("-", 3.5)
        ax.plot(between, along, line, lw=wide, color=look["color"])
        if not classical:
            ax.plot(rate[rate <= most], level[rate <= most], ls="", ms=10, **look)
        ends.append((height, end, name, look["color"]))
    _name(ax, ends, most)
    ax.set_xlabel("bits per pixel (real bytes)", fontsize=15)
    ax.set_ylabel(LABELS[quality], fontsize=15)
    ax.tick_params(labelsize=13)
    ax.set_xlim(0, most * 1.27)
    ax.set_xticks(np.arange(0, most + 0.01, 0.2))
    return figure


def _name(ax, ends: list[tuple[float, float, str, str]], most: float) -> None:
    """Names to the right of the ends (height, rate, name, colour), moved up where they would meet."""
    low, high = ax.get_ylim()
    places = spread({name: height for height, _, name, _ in ends}, 0.058 * (high - low))
    for height, end, name, colour in ends:
        ax.plot([end, most * 1.03], [height, places[name]], color=colour, lw=0.8, ls=":")
        ax.text(most * 1.035, places[name], name, color=colour, fontsize=15, va="center")


def beside_jpeg(pictures: Mapping, coded: Mapping, jpeg: Mapping) -> tuple[Figure, dict[str, float]]:
    """A row a picture: itself [3, H, W], what the learned codec decodes, what JPEG decodes, each with its bytes and PSNR; and by how much
    the learned one is ahead (dB). ``coded``, ``jpeg``: what ``roundtrip`` gave, by name."""
    rows, titles, ahead = [], [], {}
    for name, picture in pictures.items():
        both = {"learned": coded[name], "JPEG": jpeg[name]}
        db = {who: metrics.psnr(picture[None], c.x_hat).item() for who, c in both.items()}
        rows.append([picture, *(c.x_hat[0] for c in both.values())])
        titles.append([name, *(f"{who}: {len(c.streams[0])} bytes, {db[who]:.1f} dB" for who, c in both.items())])
        ahead[name] = db["learned"] - db["JPEG"]
    return plotting.picture_grid(rows, titles, width=3.3), ahead


def each_image(table: pd.DataFrame, codec: str, quality: float) -> pd.Series:
    """Bytes (%) that a codec at one quality saves on each image against JPEG's curve on that image."""
    jpeg = dict(iter(table[table["codec"] == "jpeg"].groupby("image")))
    mine = table[(table["codec"] == codec) & (table["quality"] == quality)]
    return pd.Series({p["image"]: -stats.rate_difference(jpeg[p["image"]], p) for _, p in mine.iterrows()})


def shared(curves: Mapping[str, pd.DataFrame]) -> dict[str, tuple[float, float]]:
    """The range that all curves reach, lowest and highest, in ``psnr`` (dB) and in ``ms_ssim``."""
    return {m: (max(c[m].min() for c in curves.values()), min(c[m].max() for c in curves.values())) for m in ("psnr", "ms_ssim")}


def savings(table: pd.DataFrame) -> Figure:
    """Bytes that each codec saves against JPEG at equal PSNR and at equal MS-SSIM, a row a codec.

    ``table``: indexed by codec, columns ``psnr`` and ``ms_ssim``: the change in bytes (%, negative: fewer).
    """
    table = -table.sort_values("psnr")
    figure, ax = plt.subplots(figsize=(8.5, 0.42 * len(table) + 1.3))
    for row, (codec, saved) in enumerate(table.iterrows()):
        colour = plotting.style(codec)["color"]
        ax.plot([saved["psnr"], saved["ms_ssim"]], [row, row], color=colour, lw=1.5, alpha=0.6)
        ax.plot(saved["psnr"], row, "o", color=colour, ms=10)
        ax.plot(saved["ms_ssim"], row, "o", markerfacecolor="white", markeredgecolor=colour, markeredgewidth=2, ms=9)
    ax.plot([], [], "o", color="0.3", ms=10, label="at equal PSNR")
    ax.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.3", markeredgewidth=2, ms=9, label="at equal MS-SSIM")
    ax.set_yticks(range(len(table)), table.index, fontsize=12)
    for label, codec in zip(ax.get_yticklabels(), table.index, strict=True):
        label.set_color(plotting.style(codec)["color"])
    ax.invert_yaxis()
    ax.set_xlabel("bytes saved against JPEG (%)", fontsize=13)
    ax.set_xlim(left=0)
    ax.legend(loc="lower right", fontsize=12)
    return figure


def point_by_point(curves: Mapping[str, pd.DataFrame], jpeg: pd.DataFrame) -> pd.DataFrame:
    """A row for each point of each curve: the bytes needed more than JPEG at its PSNR (%), and the gain at its rate (dB)."""
    return pd.DataFrame(
        {
            "codec": name,
            "quality": int(p.quality),
            **{column: p[column] for column in ("bpp", "psnr", "ms_ssim")},
            "bytes (%)": stats.rate_difference(jpeg, p),
            "gain (dB)": p.psnr - stats.quality_at(jpeg, p.bpp),
        }
        for name, curve in curves.items()
        for _, p in curve.iterrows()
    )


def savings_along(curves: pd.DataFrame, jpeg: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Bytes saved (%) against JPEG's curve at each point's own PSNR, each codec's name in a legend beside the frame.

    ``curves``, ``jpeg``: rows with ``codec``, ``bpp``, ``psnr``; ``published``: the same, drawn dotted and unfilled.
    """
    figure, ax = plt.subplots(figsize=(10, 5.2))
    plotting.saved_bytes(curves, jpeg, ax, published)
    if published is not None:
        ax.set_xlim(25.5, 39)
    ax.set_xlabel("PSNR (dB)", fontsize=13)
    ax.set_ylabel("bytes saved against JPEG (%)", fontsize=13)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=12, frameon=False)
    return figure
