"""Quality maps to learn from, as Song et al. 2021 draw them (theirs by classes of a segmentation are left out)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def draw_maps(n: int, size: int, level: float, seed: tuple[int, int]) -> Tensor:
    """n maps [n, 1, size, size] in [0, 1]: the first half uniform at ``level``, of the others a third ramps, the rest hills.

    They depend on the seed alone.
    """
    rng = np.random.default_rng((*seed, 1))  # not as the crops, which are drawn from the seed itself
    maps = [np.full((size, size), level)] * ((n + 1) // 2)
    maps += [_ramp(rng, size) if rng.random() < 1 / 3 else _hills(rng, size) for _ in range(n // 2)]
    return torch.from_numpy(np.stack(maps)).float()[:, None]


def _ramp(rng: np.random.Generator, size: int) -> np.ndarray:
    """From one level to another along one axis."""
    row = np.broadcast_to(np.linspace(*rng.random(2), size), (size, size))
    return row.T if rng.random() < 0.5 else row


def _hills(rng: np.random.Generator, size: int) -> np.ndarray:
    """A sum of 1 to 20 Gaussians of 1000 to 3000 square pixels, its peak between ½ and 1."""
    at = np.arange(size)
    total = np.zeros((size, size))
    for _ in range(rng.integers(1, 21)):
        column, row = (np.exp(-((at - rng.uniform(0, size)) ** 2) / (2 * rng.uniform(1000, 3000))) for _ in range(2))
        total += np.outer(column, row)
    return total * rng.uniform(0.5, 1) / total.max()
