"""What an attack on a codec is about, drawn: the rounding's staircase with its surrogates' slopes, and the square of four pictures."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

NEAREST, LATENT = 0.5, 0.3
COLOURS = {"ste": "#0072B2", "noise": "#009E73", "identity": "#D55E00"}


def staircase(ax) -> None:
    """Rounding near 0, a latent at 0.3 with its nearest boundary, and what each surrogate puts in the staircase's place."""
    y = np.linspace(-1.3, 1.3, 1041)
    steps = np.where(np.abs(y - np.round(y)) > 0.495, np.nan, np.round(y))
    ax.plot(y, steps, color="0.2", lw=2.5, label="rounding: slope 0")
    ax.plot(y, y, color=COLOURS["identity"], lw=1.8, label="identity: no rounding at all")
    ax.fill_between(y, y - 0.5, y + 0.5, color=COLOURS["noise"], alpha=0.15, label="noise: anywhere in ±½")
    ax.plot([LATENT - 0.35, LATENT + 0.35], [-0.35, 0.35], color=COLOURS["ste"], lw=1.8, ls="--", label="ste: right value, slope 1")
    ax.plot(LATENT, 0, "o", color="0.2", ms=9)
    ax.axvline(NEAREST, color="0.5", ls=":", lw=1.5)
    ax.annotate("", (NEAREST, -0.85), (LATENT, -0.85), arrowprops={"arrowstyle": "->", "color": COLOURS["identity"], "lw": 2})
    ax.text(0.52, -0.9, "the nearest boundary:\nhere it jumps by a step", fontsize=9, va="top")
    ax.set(xlabel="latent y", ylabel="ŷ, what the decoder gets", xlim=(-1.3, 1.6), ylim=(-1.45, 1.6))
    ax.legend(fontsize=8.5, loc="upper left")


def square(ax, psnr: Mapping[str, float] | None = None) -> None:
    """The four pictures and the distances between them; ``psnr``: the edges' values in dB, by METHODS.md's names."""
    places = {"x": (0, 1), "x'": (1, 1), "C(x)": (0, 0), "C(x')": (1, 0)}
    edges = {
        "psnr_input": ("x", "x'", 0.5, 1.06),
        "psnr_clean": ("x", "C(x)", -0.03, 0.5),
        "psnr_own": ("x'", "C(x')", 1.03, 0.5),
        "psnr_recon": ("C(x)", "C(x')", 0.5, -0.06),
        "psnr_source": ("x", "C(x')", 0.5, 0.54),
    }
    for name, (a, b, left, top) in edges.items():
        (x0, y0), (x1, y1) = places[a], places[b]
        ax.plot([x0, x1], [y0, y1], color=COLOURS["identity"] if name == "psnr_recon" else "0.6", lw=2.2, zorder=1)
        text = name + (f"\n{psnr[name]:.1f} dB" if psnr is not None else "")
        side = "right" if left < 0 else "left" if left > 1 else "center"
        upright = "bottom" if top > 1 else "top" if top < 0 else "center"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if name == "psnr_source" else None
        ax.text(left, top, text, ha=side, va=upright, fontsize=10, bbox=box)
    for name, (a, b) in places.items():
        ax.text(a, b, name, ha="center", va="center", fontsize=14, bbox={"boxstyle": "circle", "fc": "white", "ec": "0.3"})
    ax.set(xlim=(-0.55, 1.55), ylim=(-0.35, 1.35))
    ax.axis("off")


def one_square(psnr: Mapping[str, float]) -> Figure:
    """The square alone."""
    figure, ax = plt.subplots(figsize=(5.4, 3.6))
    square(ax, psnr)
    return figure


def one_step(towards: Mapping[str, float], flips: Mapping[str, float]) -> Figure:
    """The staircase, and beside it how many latents (%) each way moves towards their nearest boundary, and carries over one."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(1.1, 1))
    staircase(axes[0])
    axes[0].set_title("a latent and its nearest boundary", fontsize=14)
    at = np.arange(len(flips))
    colours = [COLOURS.get(n, "0.6") for n in flips]
    for shares, below, look, said in ((towards, -0.19, {"alpha": 0.35}, "towards it"), (flips, 0.19, {}, "over a boundary")):
        bars = axes[1].barh(at + below, [shares[n] for n in flips], height=0.36, color=colours, **look)
        axes[1].bar_label(bars, [f"{shares[n]:.0f} % {said}" for n in flips], padding=3, fontsize=11)
    axes[1].axvline(50, color="0.4", ls=":", lw=1.5)
    axes[1].set_yticks(at, flips, fontsize=13)
    axes[1].invert_yaxis()
    axes[1].set(xlabel="latents (%); dotted: chance", xlim=(0, 115))
    axes[1].set_title("how many latents one step moves", fontsize=14)
    return figure
