"""A learned codec drawn: the way of a picture through it, a range coder's narrowing interval, and what a symbol costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from nic_helpers import plotting
from nic_helpers.images import to_uint8

LATENTS, SIDE, GREY = "#0072B2", "#E69F00", "0.25"


def diagram(pictures: Mapping[str, Tensor], y: Tensor, z: Tensor, scales: Tensor, sizes: Mapping[str, int]) -> Figure:
    """The way of a picture through a codec with a hyperprior, with what is really there at each place.

    ``pictures``: "source" and "decoded", [3, H, W] in [0, 1]; ``y``, ``z``: rounded latents [C, h, w], of which the strongest
    channel is shown; ``scales``: those of y's Gaussians [C, h, w]; ``sizes``: bytes of "y" and "z" in the file, and of "all" of it.
    """
    figure, ax = plt.subplots(figsize=(12, 6))
    ax.set(xlim=(-0.2, 26.4), ylim=(-1.4, 11.6), aspect="equal")
    ax.axis("off")
    for name, left in (("source", 0.0), ("decoded", 22.0)):
        _tile(ax, to_uint8(pictures[name]), (left, 6, 4), GREY)
        ax.text(left + 2, 10.2, name, ha="center", va="bottom", fontsize=16)
    _tile(ax, _strongest(y), (7, 6, 4), LATENTS, "RdBu")
    _tile(ax, _strongest(z), (7.3, 0, 3.4), SIDE, "RdBu")
    _tile(ax, scales.mean(0), (15, 0, 3.4), SIDE, "magma")
    ax.text(9, 10.2, "ŷ: latents", ha="center", va="bottom", fontsize=16, color=LATENTS)
    ax.text(9, -0.2, "ẑ: side information", ha="center", va="top", fontsize=16, color="#9A6A00")
    ax.text(16.7, -0.2, "σ: what to expect", ha="center", va="top", fontsize=16, color="#9A6A00")
    _file(ax, sizes)
    _arrow(ax, (4.2, 8), (6.8, 8), "$g_a$,\nround")
    _arrow(ax, (11.2, 8), (14.8, 8), "range\ncoder")
    _arrow(ax, (18.6, 8), (21.8, 8), "range\ndecoder,\n$g_s$")
    _arrow(ax, (5.4, 7.8), (7.5, 3.6), "$h_a$ of |y|,\nround", side="left")
    _arrow(ax, (10.9, 1.7), (14.8, 1.7), "$h_s$")
    _arrow(ax, (10.9, 3.2), (14.8, 6.3), "", SIDE)
    _arrow(ax, (16.7, 3.6), (16.7, 5.8), "says which numbers\nare likely", side="right")
    return figure


def _strongest(v: Tensor) -> Tensor:
    return v[v.pow(2).mean((1, 2)).argmax()]


def _tile(ax, values, place: tuple[float, float, float], colour: str, cmap: str | None = None) -> None:
    left, low, side = place
    limit = float(torch.as_tensor(values).abs().max()) if cmap == "RdBu" else None
    ax.imshow(
        values if cmap is None else torch.as_tensor(values).detach().cpu(),
        extent=(left, left + side, low, low + side),
        cmap=cmap,
        vmin=None if limit is None else -limit,
        vmax=limit,
        interpolation="nearest",
        zorder=2,
    )
    ax.add_patch(Rectangle((left, low), side, side, fill=False, edgecolor=colour, lw=3, zorder=3))
    ax.set(xlim=(-0.2, 26.4), ylim=(-1.4, 11.6))  # imshow moves them


def _file(ax, sizes: Mapping[str, int]) -> None:
    """The file as a box, its parts as high as they are long: ŷ, ẑ, and the header at the bottom."""
    low, rest = 6.0, sizes["all"] - sizes["y"] - sizes["z"]
    for size, colour in ((rest, GREY), (sizes["z"], SIDE), (sizes["y"], LATENTS)):
        ax.add_patch(Rectangle((15, low), 3.4, high := 4 * size / sizes["all"], facecolor=colour))
        low += high
    ax.add_patch(Rectangle((15, 6), 3.4, 4, fill=False, edgecolor=GREY, lw=1.5))
    ax.text(16.7, 8.2, f"ŷ\n{sizes['y']} bytes", ha="center", va="center", fontsize=15, color="white")
    ax.text(18.7, 6.1, f"ẑ {sizes['z']} bytes", ha="left", va="center", fontsize=14, color="#9A6A00")
    ax.text(16.7, 10.2, f"the file, {sizes['all']} bytes", ha="center", va="bottom", fontsize=16)


def _arrow(ax, start, end, text: str, colour: str = GREY, side: str = "above") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.5, "mutation_scale": 20})
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    if side == "above":
        ax.text(x, y + 0.25, text, ha="center", va="bottom", fontsize=14)
    else:
        ax.text(
            x + (0.3 if side == "right" else -0.3), y, text, ha="left" if side == "right" else "right", va="center", fontsize=14
        )


def narrowing(message: Sequence[int], table: Mapping[int, float]) -> Figure:
    """A range coder's interval, a row a symbol: each row is the part chosen in the row above, drawn at full width.

    ``message``: the symbols to code; ``table``: symbol -> how likely it is (sum 1).
    """
    figure, ax = plt.subplots(figsize=(9, 1.15 * len(message) + 0.7))
    low, width = 0.0, 1.0
    for row, symbol in enumerate(message):
        at = 0.0
        for other, share in table.items():
            chosen = other == symbol
            ax.barh(-row, share, left=at, height=0.5, color=LATENTS if chosen else "0.88", edgecolor="white", lw=2)
            if share > 0.04:
                ax.text(
                    at + share / 2, -row, f"{other:d}", ha="center", va="center", fontsize=13, color="white" if chosen else "0.3"
                )
            if chosen:
                edges = (at, at + share)
            at += share
        low, width = low + width * edges[0], width * (edges[1] - edges[0])
        bits = -np.log2(width)
        ax.text(1.02, -row, f"{bits:.1f} bits for {f'these {row + 1}' if row else 'it'}", va="center", fontsize=12)
        if row + 1 < len(message):
            for edge, end in zip(edges, (0, 1), strict=True):
                ax.plot([edge, end], [-row - 0.27, -row - 0.73], color="0.6", lw=1, ls=":")
    ax.set(xlim=(0, 1.25), ylim=(-len(message) + 0.6, 0.5))
    ax.axis("off")
    return figure


def prices(scales: Sequence[float], most: int = 4) -> Figure:
    """Bits that the whole numbers from −``most`` to ``most`` cost under Gaussians of mean 0 and these scales, each named."""
    figure, ax = plt.subplots(figsize=(7.5, 4))
    values = torch.arange(-most, most + 1, dtype=torch.float64)
    for scale, marker, colour in plotting.series(scales):
        normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), scale)
        mass = normal.cdf(-values.abs() + 0.5) - normal.cdf(-values.abs() - 0.5)
        bits = -torch.log2(mass)
        ax.plot(values, bits, color=colour, marker=marker, lw=2)
        inside = bits <= 15
        last = int(inside.nonzero()[-1])
        leaves = last + 1 < len(values)  # through the frame's top
        at = (float(np.interp(14, bits[last : last + 2], values[last : last + 2])), 14) if leaves else (values[last], bits[last])
        ax.annotate(f"σ = {scale:g}", at, (8, 0), textcoords="offset points", color=colour, fontsize=13, va="center")
    ax.set(xlabel="value of the number", ylabel="price (bits)", ylim=(0, 15.5), xlim=(-most - 0.3, most + 1.3))
    return figure
