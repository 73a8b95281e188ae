"""Attacks that step along the gradient's sign, from FGSM's one step to diverse inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.attacks.base import Attack, Iterative
from nic_helpers.attacks.loop import ascend
from nic_helpers.codecs.base import SMALLEST_SIDE


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """Fast gradient sign method (Goodfellow 2015, arXiv 1412.6572): one step of size eps from x.

    The gradient is taken at x, or, where it is zero there (straight-through gradients of the distance to the clean
    reconstruction), at x plus uniform noise in ±eps. ``restarts``: steps from gradients at so many points, the others at
    x plus noise, of which each image keeps its best.
    """

    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("restarts")

    def _run(self, p):
        ascend(p, p.x, [self.eps], self._first_gradient_at(p))
        for restart in range(1, self.restarts):
            ascend(p, p.x, [self.eps], self._beside(p, self.seed + 7919 * restart))
        return p.state


@dataclass(frozen=True, kw_only=True)
class IFGSM(Iterative):
    """Iterative FGSM, also called BIM (Kurakin 2017, arXiv 1607.02533): steps from x, each projected."""

    def _run(self, p):
        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p))


@dataclass(frozen=True, kw_only=True)
class PGD(Iterative):
    """Projected gradient descent (Madry 2018, arXiv 1706.06083), as ascent: a random start in the ball, then steps.

    ``restarts``: runs from different starts, of which each image keeps its best. Each run costs ``steps`` gradients.
    """

    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("restarts")

    def _run(self, p):
        for restart in range(self.restarts):
            ascend(p, self._beside(p, self.seed + 7919 * restart), self.step_sizes)
        return p.state


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Iterative):
    """Momentum iterative FGSM (Dong 2018, arXiv 1710.06081): steps along g ← mu·g + gradient / mean |gradient|."""

    mu: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.mu < math.inf:
            raise ValueError(f"mu must be a number, not negative, got {self.mu!r}")

    def _run(self, p):
        momentum = torch.zeros_like(p.x)

        def direction(gradient: Tensor, x_adv: Tensor) -> Tensor:
            size = gradient.abs().mean((1, 2, 3), keepdim=True)
            momentum.mul_(self.mu).add_(torch.where(size > 0, gradient / size.clamp_min(1e-30), 0.0))
            return p.budget.steepest(momentum)

        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p), direction=direction)


@dataclass(frozen=True, kw_only=True)
class DIFGSM(Iterative):
    """Diverse inputs iterative FGSM (Xie 2019, arXiv 1803.06978): each gradient is taken through a random resize to
    ``smallest`` … 1 of the size, padded with zeros at random, with the given ``probability``.

    The codec's clean reconstruction is that of the source transformed alike, so a step costs a forward pass more.
    """

    probability: float = 0.5
    smallest: float = 0.9

    judge_every: ClassVar[int] = 10  # its best iterate is often one in the middle

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.probability <= 1 or not 0 < self.smallest <= 1:
            raise ValueError(
                f"probability must be in [0, 1] and smallest in (0, 1], got {self.probability!r} and {self.smallest!r}"
            )

    def _run(self, p):
        height, width = p.x.shape[2:]
        if self.smallest * min(height, width) < SMALLEST_SIDE:
            raise ValueError(f"images of {height}×{width} resized by {self.smallest} have a side below {SMALLEST_SIDE}")
        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p), diverse=self._resized)

    def _resized(self, x: Tensor, step: int) -> Tensor:
        g = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**64)  # torch takes 64 bits
        draw = torch.rand(4, generator=g, dtype=torch.float32).tolist()
        if draw[0] >= self.probability:
            return x
        height, width = x.shape[2:]
        scale = self.smallest + (1 - self.smallest) * draw[1]
        inner = [max(SMALLEST_SIDE, round(side * scale)) for side in (height, width)]
        top, left = (round((side - s) * d) for side, s, d in zip((height, width), inner, draw[2:], strict=True))
        small = F.interpolate(x, inner, mode="bilinear", align_corners=False).clamp(0, 1)
        return F.pad(small, (left, width - inner[1] - left, top, height - inner[0] - top))
