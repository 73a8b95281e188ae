"""How far an attacked image may be from its source, and how it becomes an 8-bit image inside that distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linf:
    """|x' − x| ≤ eps for every sample; eps in (0, 1], at least one 8-bit level (1/255)."""

    eps: float

    def __post_init__(self):
        if not isinstance(self.eps, Real) or not 0 < self.eps <= 1:
            raise ValueError(f"eps must be in (0, 1], got {self.eps!r}: pixels are in [0, 1], write 8/255, not 8")
        if self.levels < 1:
            raise ValueError(
                f"eps = {self.eps:.3g} is less than one 8-bit level (1/255 = {1 / 255:.3g}): nothing may change"
            )

    @property
    def levels(self) -> int:
        """Whole 8-bit levels that a sample may move."""
        return math.floor(255 * self.eps + 1e-6)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest point inside the ball around x and inside [0, 1]."""
        return torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps).clamp(0, 1)

    def to_8bit(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x' rounded to the 8-bit grid, still inside the ball around the 8-bit image x."""
        source = torch.round(x * 255)
        moved = torch.round(x_adv * 255)
        return torch.minimum(torch.maximum(moved, source - self.levels), source + self.levels).clamp(0, 255) / 255
