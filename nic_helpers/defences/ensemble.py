"""Defences of a sender who tries several ways and keeps the best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nic_helpers.codecs.base import Codec, real_bpp
from nic_helpers.defences.base import Defence
from nic_helpers.defences.reversible import dihedral, undo_dihedral


class Best(Defence):
    """The base of those: each image takes the way that costs least, by ``cost``: "d", the mean square error, or "rd", bits per pixel
    and λ·255² times that error.

    The sender compares true reconstructions and estimated bits (of a codec without a gradient, real ones). A gradient passes the way that
    is taken, and the choice is made anew at every step: an attack on the defended codec is one through the choice.
    """

    cost: str = "d"

    def __post_init__(self):
        if self.cost not in ("d", "rd"):
            raise ValueError(f'cost must be "d" or "rd", got {self.cost!r}')

    @property
    def random(self) -> bool:
        """The cost decides."""
        return False

    def __call__(self, codec: Codec):
        """The codec behind this defence; ValueError where "rd" has no λ to weigh by."""
        if self.cost == "rd" and not math.isfinite(codec.lmbda):
            raise ValueError(f'{codec.name} has no λ to weigh rate and distortion by: cost="d", or load_codec(…, lmbda=…)')
        return super().__call__(codec)

    @torch.no_grad()
    def way(self, image: Tensor, codec: Codec) -> int:
        """The cheapest; the first where they are level."""
        costs = []
        for k in range(self.choices):
            turned = self.before(image[None], k)
            if codec.differentiable:
                out = codec(turned, None, rate=self.cost == "rd")
                x_hat, bpp = out.x_hat, float(out.bpp) if self.cost == "rd" else 0.0
            else:
                coded = codec.roundtrip(turned)
                x_hat, bpp = coded.x_hat, real_bpp(coded.streams, turned)[0]
            error = float((self.after(x_hat, k) - image[None]).square().mean())
            costs.append(error if self.cost == "d" else bpp + codec.lmbda * 255**2 * error)
        return costs.index(min(costs))


@dataclass(frozen=True)
class SelfEnsemble(Best):
    """The best of the eight turns and mirrors of the picture (Chen & Ma 2023, arXiv 2112.08691)."""

    choices: ClassVar[int] = 8
    cost: str = "d"

    def before(self, x: Tensor, k: int) -> Tensor:
        """Turned and mirrored."""
        return dihedral(x, k)

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """Back."""
        return undo_dihedral(x_hat, k)


@dataclass(frozen=True)
class TwoWay(Best):
    """The picture or the picture upside down, whichever costs less (our reading of two-way compression, Song 2024)."""

    choices: ClassVar[int] = 2
    cost: str = "rd"

    def before(self, x: Tensor, k: int) -> Tensor:
        """Way 1: turned by 180°."""
        return dihedral(x, 2 * k)

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """Back."""
        return undo_dihedral(x_hat, 2 * k)
