"""Defences that the receiver undoes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nic_helpers.defences.base import Defence


@dataclass(frozen=True)
class Flip(Defence):
    """One of the four flips at random (up–down, left–right, both, none), undone by the receiver (arXiv 2411.11795)."""

    choices: ClassVar[int] = 4
    seed: int = 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """Bit 0 of k: up–down; bit 1: left–right."""
        return x.flip([axis for axis, bit in ((2, 1), (3, 2)) if k & bit])

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """The same again."""
        return self.before(x_hat, k)
