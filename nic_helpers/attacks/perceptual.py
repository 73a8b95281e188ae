"""Attacks that hide: along what a mean square does not see, in high frequencies, in colour.

They have no norm ball of their own, so they are compared at equal visibility: eps is the root mean square that a target
``psnr_input`` allows (:func:`nic_helpers.budgets.rms_at`). MADC's and SSAH's iterates are scaled to it, in or out, Chroma's
in only: a few steps take it there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.attacks.base import Attack, Iterative
from nic_helpers.attacks.loop import Adam, ascend, falling, uniform_noise
from nic_helpers.budgets import onto_surface


@dataclass(frozen=True, kw_only=True)
class MADC(Iterative):
    """Maximum differentiation competition's attack, as in arXiv 2411.11795: sign steps along the part of the gradient
    that leaves the mean square of δ unchanged, δ scaled to the budget after each.

    There δ is only scaled back, into the ball. But the sign of that part is not across δ any more, and may shorten it:
    the attack would be compared at a smaller perturbation than the others.
    """

    norm: str = "l2rms"
    judge_every: ClassVar[int] = 5  # its best iterate is often one in the middle

    def _run(self, p):
        def direction(gradient: Tensor, x_adv: Tensor) -> Tensor:
            delta = x_adv - p.x
            normal = delta / delta.pow(2).sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)  # 0 where δ is
            return (gradient - (gradient * normal).sum((1, 2, 3), keepdim=True) * normal).sign()

        surface = functools.partial(onto_surface, p.budget)
        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p), direction=direction, project=surface)


def haar_low(x: Tensor) -> Tensor:
    """The low band [B, 3, H/2, W/2] of a one-level Haar wavelet: twice the mean of 2×2 pixels."""
    return 2 * F.avg_pool2d(x, 2)


@dataclass(frozen=True, kw_only=True)
class SSAH(Attack):
    """Low frequencies kept, after Luo et al. 2022 (arXiv 2203.05151): Adam on the objective minus ``smoothness`` times a
    smooth L1 distance between the low Haar bands of x' and x.

    The objective's gradient is brought to size 1 first (our reading), so that ``smoothness`` means the same for every
    codec and objective. Sides of at least 2 pixels; an odd last row or column is free. ``lr`` is in units of eps. The best
    iterate is one of the second half: the first have not felt the penalty yet.
    """

    norm: str = "l2rms"
    judge_every: ClassVar[int] = 5  # its best iterate is often one in the middle
    steps: int = 30
    smoothness: float = 3.0
    lr: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("steps")
        self._check_positive("lr")
        if not 0 <= self.smoothness < math.inf:
            raise ValueError(f"smoothness must be a number, not negative, got {self.smoothness!r}")

    def _run(self, p):
        x_adv = self._first_gradient_at(p) if p.flat_at_source else p.x
        adam, low = Adam(p.x), haar_low(p.x)
        for step, size in enumerate(falling(self.lr * self.eps, self.steps)):
            _, gradient = p.climb(x_adv, step, keep=2 * step >= self.steps)
            with torch.enable_grad():
                v = x_adv.detach().requires_grad_(True)
                (penalty,) = torch.autograd.grad(F.smooth_l1_loss(haar_low(v), low, reduction="sum", beta=self.eps), v)
            uphill = p.budget.steepest(gradient) - self.smoothness * penalty
            # out to the ball's surface, too: the penalty is to turn δ, not to shorten it
            x_adv = onto_surface(p.budget, x_adv + size * adam.direction(uphill), p.x)
        return p.offer(x_adv)


#: Blue- and red-difference axes of YCbCr (ITU-R BT.601) in RGB: along them the luma does not change.
CHROMA = ((0.0, -0.344136, 1.772), (1.402, -0.714136, 0.0))


@dataclass(frozen=True, kw_only=True)
class Chroma(Attack):
    """Colour only (our variant of the colour attacks): Adam on a chroma field of one value per ``cell`` pixels, spread
    smoothly over the image; the luma stays.

    Where a pixel would leave [0, 1] its shift is made smaller, not clipped, so that its luma stays too (up to the
    rounding to 8 bits). Black and white have no other colour at their luma, and stay. ``lr`` is in units of eps.
    """

    norm: str = "l2rms"
    judge_every: ClassVar[int] = 5  # its best iterate is often one in the middle
    steps: int = 30
    cell: int = 8
    lr: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("steps", "cell")
        self._check_positive("lr")

    def _run(self, p):
        cells = [max(1, -(-side // self.cell)) for side in p.x.shape[2:]]
        field = self.eps * uniform_noise(p.x, self.seed)[:, :2, : cells[0], : cells[1]]
        field = self._inside(p, field if p.flat_at_source else 0 * field)
        adam, render = Adam(field), lambda field: p.x + self._shift(p.x, field)
        for step, size in enumerate(falling(self.lr * self.eps, self.steps)):
            _, slope = p.climb(field, step, render=render)
            field = self._inside(p, field + size * adam.direction(slope))
        return p.offer(field, render)

    def _shift(self, x: Tensor, field: Tensor) -> Tensor:
        smooth = F.interpolate(field, x.shape[2:], mode="bicubic", align_corners=False)
        delta = torch.einsum("bkhw,kc->bchw", smooth, torch.tensor(CHROMA, device=x.device, dtype=x.dtype))
        room = torch.where(delta > 0, 1 - x, x) / delta.abs().clamp_min(1e-12)
        return delta * room.amin(1, keepdim=True).clamp(max=1).detach()

    def _inside(self, p, field: Tensor) -> Tensor:
        """A field scaled back until its shift is inside the ball."""
        for _ in range(3):  # pixels without room take less than their share: scaling is not quite linear
            over = p.budget.size(self._shift(p.x, field)) / self.eps
            field = field / over.clamp_min(1.0)[:, None, None, None]
        return field
