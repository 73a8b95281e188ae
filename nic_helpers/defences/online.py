"""Defences of a sender who changes the picture a little, step by step, until the codec does better with it; the decoder is untouched."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nic_helpers.codecs.base import Codec, gradients_possible
from nic_helpers.defences.base import Defence
from nic_helpers.images import to_8bit


def _check(what: str, value: float, steps: int) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{what} must be a positive number, got {value!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number, at least 1, got {steps!r}")


class Online(Defence, ABC):
    """The base of those. A gradient passes the sender's steps as if they did nothing: their own derivatives are second ones, which
    :class:`Unrolled` takes."""

    differentiable: ClassVar[bool] = False

    @abstractmethod
    def unrolled(self, x: Tensor, codec: Codec) -> Tensor:
        """The sender's steps from x [B, 3, H, W], which asks for a gradient, with the derivative of each; nothing is rounded, and the
        last step counts, whichever an image would keep."""

    def __call__(self, codec: Codec):
        """The codec behind this defence; TypeError for one without a gradient."""
        if not codec.differentiable:
            raise TypeError(f"{codec.name} has no gradient for {self!r} to follow: attacks.BPDA(codec) gives it one")
        return super().__call__(codec)


@dataclass(frozen=True)
class Refine(Online):
    """A few steps of ``alpha`` (on [0, 1]) along the sign of the gradient that lowers the error of C(u) to the picture, from u = x'.

    After the idea of test-time refinement (arXiv 2608.15113); the rule is ours. Each image keeps its best u, x' itself among them.
    """

    steps: int = 2
    alpha: float = 4 / 255

    def __post_init__(self):
        _check("alpha", self.alpha, self.steps)

    def sender(self, x: Tensor, k: int, codec: Codec) -> Tensor:
        """The refined picture, 8-bit."""
        with gradients_possible(), torch.enable_grad():
            target = x.detach().clone()
            u, best, least = target, target, torch.full((len(x),), torch.inf, device=x.device)
            for step in range(self.steps + 1):
                v = u.clone().requires_grad_(True)
                error = (codec(v, "ste", rate=False).x_hat - target).square().mean((1, 2, 3))
                better = error.detach() < least
                best = torch.where(better[:, None, None, None], u, best)
                least = torch.where(better, error.detach(), least)
                if step < self.steps:
                    (slope,) = torch.autograd.grad(error.sum(), v)
                    u = to_8bit((u - self.alpha * slope.sign()).clamp(0, 1))
        return best

    def unrolled(self, x: Tensor, codec: Codec) -> Tensor:
        """A step goes along a sign, which has no slope: backward it is the hyperbolic tangent of the error's slope over its mean size."""
        u = x.clone()  # apart from x, which is the target: its slope is none of the steps'
        for _ in range(self.steps):
            error = (codec(u, "identity", rate=False).x_hat - x).square().sum()
            (slope,) = torch.autograd.grad(error, u, create_graph=True)
            soft = torch.tanh(slope / _size(slope))
            u = (u - self.alpha * (soft + (slope.sign() - soft).detach())).clamp(0, 1)
        return u


@dataclass(frozen=True)
class OnlineUpdate(Online):
    """Adam on the picture itself, at rate ``lr`` (on [0, 1]): min R(u) + λ·255²·MSE(C(u), x) from u = x (Wu et al. 2024,
    arXiv 2405.07717, eq. 13). Each image keeps its best u, x itself among them, 8-bit."""

    steps: int = 20
    lr: float = 1 / 255

    def __post_init__(self):
        _check("lr", self.lr, self.steps)

    def __call__(self, codec: Codec):
        """The codec behind this defence; ValueError where there is no λ to weigh by."""
        if not math.isfinite(codec.lmbda):
            raise ValueError(f"{codec.name} has no λ to weigh rate and distortion by: load_codec(…, lmbda=…)")
        return super().__call__(codec)

    def sender(self, x: Tensor, k: int, codec: Codec) -> Tensor:
        """The updated picture, 8-bit."""
        with gradients_possible(), torch.enable_grad():
            target = x.detach().clone()
            u = target.clone().requires_grad_(True)
            adam = torch.optim.Adam([u], lr=self.lr)
            best, least = target, _cost(codec, target, target, None).detach()
            for _ in range(self.steps):
                # the unrounded codec's gradient: 20 steps take 3 to 9 % off the hyperprior's loss with it, 0 to 2 % straight through
                (u.grad,) = torch.autograd.grad(_cost(codec, u.clamp(0, 1), target, "identity").sum(), u)
                adam.step()
                whole = to_8bit(u.detach().clamp(0, 1))  # what would be sent
                value = _cost(codec, whole, target, None).detach()
                best = torch.where((value < least)[:, None, None, None], whole, best)
                least = torch.minimum(least, value)
        return best

    def unrolled(self, x: Tensor, codec: Codec) -> Tensor:
        """Adam's steps. What it divides by is taken as constant backward, and as no less than the slope's mean size: its first step goes
        along a sign, which has no slope."""
        u, (b1, b2) = x.clone(), (0.9, 0.999)  # as above
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for k in range(1, self.steps + 1):
            (slope,) = torch.autograd.grad(_cost(codec, u, x, "identity").sum(), u, create_graph=True)
            mean = b1 * mean + (1 - b1) * slope
            square = b2 * square + (1 - b2) * slope.detach().square()
            step, by = mean / (1 - b1**k), (square / (1 - b2**k)).sqrt()
            soft = step / torch.maximum(by, _size(slope))
            u = (u - self.lr * (soft + (step / (by + 1e-8) - soft).detach())).clamp(0, 1)
        return u


@dataclass(frozen=True)
class Unrolled(Defence):
    """What an attacker sees who takes the derivative of the sender's own steps, too, instead of passing them by. That derivative is a
    second one, so a gradient takes longer. ``how``: the defence, whose outputs it has; how it goes backward: its ``unrolled``.
    TypeError for a defence that takes no steps."""

    how: Online

    def __post_init__(self):
        if not isinstance(self.how, Online):
            raise TypeError(f"how must be a defence that takes steps, Refine or OnlineUpdate, got {self.how!r}")

    def __call__(self, codec: Codec):
        """The codec as that attacker sees it; refuses what ``how`` does."""
        self.how(codec)
        return super().__call__(codec)

    def sender(self, x: Tensor, k: int, codec: Codec) -> Tensor:
        """What that sender sends, with a gradient if x asks for one."""
        sent = self.how.sender(x, k, codec)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return sent
        u = self.how.unrolled(x, codec)
        return u + (sent - u).detach()


def _cost(codec: Codec, u: Tensor, x: Tensor, surrogate: str | None) -> Tensor:
    """R(u) + λ·255²·MSE(C(u), x) of each image."""
    out = codec(u, surrogate)
    return out.bpp + codec.lmbda * 255**2 * (out.x_hat - x).square().mean((1, 2, 3))


def _size(slope: Tensor) -> Tensor:
    """The mean size of each image's slope, a constant to gradients."""
    return slope.detach().abs().mean((1, 2, 3), keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
