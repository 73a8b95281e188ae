"""Defences that change the image before it is coded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nic_helpers.defences.base import Defence


@dataclass(frozen=True)
class BitDepth(Defence):
    """Samples rounded to ``bits`` (1 to 8) before coding (arXiv 2112.08691)."""

    differentiable: ClassVar[bool] = False
    bits: int = 5

    def __post_init__(self):
        if self.bits not in range(1, 9):
            raise ValueError(f"bits must be a whole number from 1 to 8, got {self.bits!r}")

    def before(self, x: Tensor, k: int) -> Tensor:
        """Rounded to 2^bits − 1 equal steps."""
        steps = 2**self.bits - 1
        return torch.round(x * steps) / steps
