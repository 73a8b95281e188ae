"""The way of an attack over the damage that it climbs, in one plane of the space of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import metrics
from nic_helpers.codecs.base import Codec


def plane(codec: Codec, x: Tensor, ends: Sequence[Tensor], points: int = 19) -> dict[str, np.ndarray]:
    """How far the output moves over the plane through x and two attacked pictures, all [1, 3, H, W].

    The axes are the first end's change and what the second's has beside it, so that the first end lies at (1, 0) and the second at
    height 1. ``a``, ``b``: the grid's values; ``apart``: PSNR between the outputs (dB) at each point, [b, a]; ``u``, ``v``: the axes.
    """
    u = ends[0] - x
    v = ends[1] - x
    v = v - (v * u).sum() / u.square().sum() * u
    a, b = np.linspace(-0.3, 1.4, points), np.linspace(-0.6, 1.4, points)
    grid = torch.cat([x + float(i) * u + float(j) * v for j in b for i in a]).clamp(0, 1)
    clean = codec.reconstruct(x)
    outs = torch.cat([codec.reconstruct(part) for part in grid.split(64)])
    apart = metrics.psnr(clean.expand_as(outs), outs).reshape(len(b), len(a)).numpy()
    return {"a": a, "b": b, "apart": apart, "u": u, "v": v}


def place(at: dict, x: Tensor, picture: Tensor) -> tuple[float, float]:
    """Where a picture [1, 3, H, W] lies in the plane, seen from straight above."""
    delta = picture - x
    return tuple(float((delta * at[k]).sum() / at[k].square().sum()) for k in ("u", "v"))


def share_within(at: dict, x: Tensor, picture: Tensor) -> float:
    """How much of a picture's change lies in the plane: the squared length of what is seen from above, over that of the change."""
    delta = picture - x
    seen = sum((delta * at[k]).sum().square() / at[k].square().sum() for k in ("u", "v"))
    return float(seen / delta.square().sum())


def paths(at: dict, x: Tensor, ways: Mapping[str, Sequence[Tensor]]) -> Figure:
    """``ways``: name -> the pictures that an attack passed, in order; they are drawn over the plane ``at``."""
    figure, ax = plt.subplots(figsize=(6.8, 4.8))
    shown = ax.contourf(at["a"], at["b"], at["apart"].clip(max=45), levels=14, cmap="viridis_r")
    figure.colorbar(shown, ax=ax, label="PSNR between the outputs (dB)")
    looks = list(zip("Dos", ("white", "#E69F00", "#CC79A7"), strict=True))
    for (name, passed), (mark, colour) in zip(ways.items(), looks[: len(ways)], strict=True):
        xy = np.array([place(at, x, p) for p in passed])
        ax.plot(*xy.T, "-", marker=mark, color=colour, ms=7, lw=2, mec="black", label=name)
    ax.plot(0, 0, "*", color="white", mec="black", ms=18)
    ax.annotate("source", (0, 0), (-8, -20), textcoords="offset points", color="white", fontsize=12)
    ax.set(xlabel="along FGSM's change", ylabel="along what PGD adds to it")
    ax.grid(False)
    ax.legend(loc="upper left", fontsize=11)
    return figure
