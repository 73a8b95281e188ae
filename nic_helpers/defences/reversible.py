"""Defences that the receiver undoes: the picture is turned before it is coded, and turned back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nic_helpers.defences.base import Defence

ORDERS = tuple(itertools.permutations(range(3)))  # of the colours, the plain one first


def dihedral(x: Tensor, k: int) -> Tensor:
    """One of the eight turns and mirrors of images [B, 3, H, W]: bit 2 of k mirrors, the rest turns by quarters."""
    return torch.rot90(x.flip(3) if k & 4 else x, k & 3, (2, 3))


def undo_dihedral(x: Tensor, k: int) -> Tensor:
    """The inverse of :func:`dihedral`."""
    turned = torch.rot90(x, -(k & 3), (2, 3))
    return turned.flip(3) if k & 4 else turned


def rolled(x: Tensor, k: int, parts: int, back: bool = False) -> Tensor:
    """Images moved round by k // parts and k % parts of ``parts`` parts of their height and width."""
    down, right = (side * n // parts for side, n in zip(x.shape[2:], divmod(k, parts), strict=True))
    return x.roll((-down, -right) if back else (down, right), (2, 3))


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


@dataclass(frozen=True)
class Roll(Defence):
    """Moved round at random by sixteenths of its height and width: what leaves on one side comes in on the other (arXiv 2411.11795)."""

    choices: ClassVar[int] = 256
    seed: int = 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """k // 16 down, k % 16 to the right."""
        return rolled(x, k, 16)

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """Back."""
        return rolled(x_hat, k, 16, back=True)


@dataclass(frozen=True)
class Rotate(Defence):
    """Turned at random by a multiple of 90° (arXiv 2411.11795)."""

    choices: ClassVar[int] = 4
    seed: int = 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """By k quarters."""
        return dihedral(x, k)

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """Back."""
        return undo_dihedral(x_hat, k)


@dataclass(frozen=True)
class ColourOrder(Defence):
    """Red, green and blue in a random order (arXiv 2411.11795)."""

    choices: ClassVar[int] = 6
    seed: int = 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """Order k."""
        return x[:, list(ORDERS[k])]

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """Back."""
        return x_hat[:, [ORDERS[k].index(c) for c in range(3)]]


@dataclass(frozen=True)
class RandomEnsemble(Defence):
    """All of them at once, each at random: turned or mirrored, moved round by halves, colours in another order (arXiv 2411.11795)."""

    choices: ClassVar[int] = 8 * 4 * 6
    seed: int = 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """Colours, then the move, then the turn."""
        colour, move, turn = k % 6, k // 6 % 4, k // 24
        return dihedral(rolled(x[:, list(ORDERS[colour])], move, 2), turn)

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """Back, in the opposite order."""
        colour, move, turn = k % 6, k // 6 % 4, k // 24
        return rolled(undo_dihedral(x_hat, turn), move, 2, back=True)[:, [ORDERS[colour].index(c) for c in range(3)]]
