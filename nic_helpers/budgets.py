"""How far an attacked image may be from its source, and how it becomes an 8-bit image inside that distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor


def _check(eps) -> None:
    if not isinstance(eps, Real) or not 0 < eps <= 1:
        raise ValueError(f"eps must be in (0, 1], got {eps!r}: pixels are in [0, 1], write 8/255, not 8")


def _rms(v: Tensor) -> Tensor:
    """Root of the mean square per image, [B, 1, 1, 1]."""
    return v.pow(2).mean((1, 2, 3), keepdim=True).sqrt()


@dataclass(frozen=True)
class Linf:
    """|x' − x| ≤ eps for every sample; eps in (0, 1], at least one 8-bit level (1/255), else ValueError."""

    eps: float

    def __post_init__(self):
        _check(self.eps)
        if self.levels < 1:
            raise ValueError(f"eps = {self.eps:.3g} is less than one 8-bit level (1/255 = {1 / 255:.3g}): nothing may change")

    @property
    def levels(self) -> int:
        """Whole 8-bit levels that a sample may move."""
        return math.floor(255 * self.eps + 1e-6)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction [B, 3, H, W] of length 1 in this norm along which the objective rises fastest."""
        return gradient.sign()

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation [B]."""
        return delta.abs().flatten(1).amax(1)

    def offset(self, noise: Tensor) -> Tensor:
        """A point of the ball from noise in [−1, 1]."""
        return self.eps * noise

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest point inside the ball around x and inside [0, 1]."""
        return x_adv.clamp((x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1))

    def to_8bit(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x' rounded to the 8-bit grid, still inside the ball around the 8-bit image x."""
        source = (x * 255).round_()
        low, high = (source - self.levels).clamp_(min=0), (source + self.levels).clamp_(max=255)
        return (x_adv * 255).round_().clamp_(low, high).div_(255)


@dataclass(frozen=True)
class L2rms:
    """Root mean square of x' − x over an image's samples ≤ eps; eps in (0, 1], else ValueError.

    Below half an 8-bit level (0.5/255, 54 dB) rounding undoes changes that are spread evenly, as noise is.
    """

    eps: float

    def __post_init__(self):
        _check(self.eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The gradient at RMS 1 (zero where it is zero)."""
        size = _rms(gradient)
        return torch.where(size > 0, gradient / size.clamp_min(1e-30), 0.0)

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation [B]."""
        return _rms(delta).flatten()

    def offset(self, noise: Tensor) -> Tensor:
        """A point on the sphere from noise."""
        return self.eps * self.steepest(noise)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Scaled back into the ball around x, and clamped to [0, 1], which only brings it closer."""
        delta = x_adv - x
        return (x + delta * (self.eps / _rms(delta).clamp_min(1e-30)).clamp(max=1)).clamp(0, 1)

    def to_8bit(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x' rounded to the 8-bit grid, still inside the ball around the 8-bit image x.

        Rounding alone can leave the ball: then those samples go back one level that were rounded up the furthest.
        """
        source = torch.round(x * 255)
        wanted = x_adv * 255 - source
        moved = ((source + torch.round(wanted)).clamp(0, 255) - source).contiguous()
        room = (255 * self.eps) ** 2 * moved[0].numel() * (1 + 1e-6)
        for k in range(len(moved)):
            flat, wish = moved[k].view(-1), wanted[k].reshape(-1)
            while (excess := float(flat.double().pow(2).sum()) - room) > 0:
                size = flat.abs()
                candidates = torch.nonzero(size).squeeze(1)
                order = candidates[torch.argsort((size - wish.abs())[candidates], descending=True)]
                saved = (2 * size[order] - 1).double().cumsum(0)
                count = int(torch.searchsorted(saved, torch.tensor(excess, dtype=torch.float64, device=saved.device))) + 1
                flat[order[:count]] -= flat[order[:count]].sign()
        return (source + moved) / 255


def onto_surface(budget: Linf | L2rms, x_adv: Tensor, x: Tensor) -> Tensor:
    """x' moved along x' − x, in or out, until it is ``eps`` away, as far as [0, 1] has room."""
    for _ in range(3):  # clipping shortens it again
        delta = x_adv - x
        x_adv = (x + delta * (budget.eps / budget.size(delta).clamp_min(1e-30))[:, None, None, None]).clamp(0, 1)
    return budget.project(x_adv, x)


def rms_at(psnr: float) -> float:
    """The root mean square, on [0, 1], of a perturbation whose ``psnr_input`` is this many dB: the eps of an "l2rms"
    budget for attacks that are compared at equal visibility. ValueError outside (0, 100) dB."""
    if not 0 < psnr < 100:
        raise ValueError(f"psnr must be between 0 and 100 dB, got {psnr!r}")
    return 10 ** (-psnr / 20)


BUDGETS = {"linf": Linf, "l2rms": L2rms}
