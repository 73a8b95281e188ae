"""Defences that change the image before it is coded, so that less of a perturbation reaches the codec."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.codecs.base import SMALLEST_SIDE, Codec
from nic_helpers.codecs.load import load_codec
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


@dataclass(frozen=True)
class JPEGPass(Defence):
    """A JPEG file of ``quality`` (1 to 100) is made and read before coding: what an upload does to a picture anyway."""

    differentiable: ClassVar[bool] = False
    quality: int = 75

    def __post_init__(self):
        load_codec("jpeg", self.quality)  # which refuses a quality that is none

    def before(self, x: Tensor, k: int) -> Tensor:
        """What JPEG leaves."""
        return load_codec("jpeg", self.quality).reconstruct(x).to(x)


@dataclass(frozen=True)
class Resize(Defence):
    """Coded at ``scale`` (½ up to 1) of its size, and brought back by the receiver; both bicubic, the first antialiased.

    The way taken says which of the sizes that become the coded one was the picture's.
    """

    choices: ClassVar[int] = 4
    scale: float = 0.9

    def __post_init__(self):
        if not 0.5 <= self.scale < 1:
            raise ValueError(f"scale must be in [0.5, 1), got {self.scale!r}")

    @property
    def random(self) -> bool:
        """The size decides."""
        return False

    def _small(self, side: int) -> int:
        return math.ceil(side * self.scale - 1e-9)

    def _sides(self, small: int) -> list[int]:
        """The sides that become a coded one: one or two."""
        near = round(small / self.scale)
        return [side for side in range(near - 2, near + 3) if self._small(side) == small]

    def way(self, image: Tensor, codec: Codec) -> int:
        """2 · (which height) + (which width)."""
        which = [self._sides(self._small(side)).index(side) for side in image.shape[1:]]
        return 2 * which[0] + which[1]

    def before(self, x: Tensor, k: int) -> Tensor:
        """Smaller; ValueError for an image that would become too small for a codec."""
        size = [self._small(side) for side in x.shape[2:]]
        if min(size) < SMALLEST_SIDE:
            raise ValueError(
                f"images of {x.size(2)}×{x.size(3)} pixels at {self.scale:g} of their size have a side below {SMALLEST_SIDE}"
            )
        return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)

    def _size(self, height: int, width: int, k: int) -> list[int]:
        return [sides[min(n, len(sides) - 1)] for sides, n in zip(map(self._sides, (height, width)), divmod(k, 2), strict=True)]

    def pixels(self, height: int, width: int, k: int) -> int:
        """Of the picture at its own size."""
        return math.prod(self._size(height, width, k))

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """At its own size again."""
        return F.interpolate(x_hat, self._size(*x_hat.shape[2:], k), mode="bicubic").clamp(0, 1)
