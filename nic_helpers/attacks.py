"""Attacks on a codec's input. An attack is its settings; calling it runs one shared loop.

    adv = PGD(eps=8/255, steps=10)(codec, x)      # default objective: distortion to the clean reconstruction
    adv.x_adv                                     # [B, 3, H, W], an 8-bit image inside the budget

Every attack takes a codec (or a list of codecs, to break all with one image) and x [B, 3, H, W] in [0, 1] (a list of
[3, H, W] too, attacked one by one), snaps it to the 8-bit grid, and returns an :class:`AttackResult` on x's device.
Random numbers are drawn per image from (seed, the image's content), or from (seed, step) alone, so an image gets the same
perturbation alone and in any batch, up to the order in which floating-point numbers are summed: the convolutions of a batch and
those of one image may differ in the last digit, and attacks amplify that (a file grew ×14.96 in a batch of four, ×14.34 alone).
With ``batch=1`` there is no such difference.

Here: random noise and the attacks that step along the gradient's sign. Beside it, and to be had from here too:
:mod:`~nic_helpers.adam_attacks` (SRDA, ARDA, FTDA), :mod:`~nic_helpers.perceptual_attacks` (MADC, SSAH, Chroma),
:mod:`~nic_helpers.square` (Square, which needs no gradient), :mod:`~nic_helpers.strongest` (Continuation, Strongest; Descend, a
control) and :mod:`~nic_helpers.through` (BPDA, eot).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.adam_attacks import ARDA, FTDA, SRDA
from nic_helpers.ascent import Ascent, Attack, AttackResult, Iterative, Problem, ascend, uniform_noise
from nic_helpers.budgets import L2rms
from nic_helpers.codecs import SMALLEST_SIDE
from nic_helpers.images import to_8bit
from nic_helpers.metrics import achieved
from nic_helpers.perceptual_attacks import MADC, SSAH, Chroma
from nic_helpers.square import Square
from nic_helpers.strongest import Continuation, Descend, Strongest
from nic_helpers.through import BPDA, eot

__all__ = [
    "APGD", "ARDA", "BPDA", "DIFGSM", "FGSM", "FTDA", "IFGSM", "MADC", "MIFGSM", "PGD", "SRDA", "SSAH",
    "Ascent", "Attack", "AttackResult", "Chroma", "Continuation", "Descend", "Problem", "RandomNoise", "SpectralNoise", "Square",
    "Strongest", "dissolved", "eot", "uniform_noise",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Attack):
    """The control every attack must beat: noise of the same budget. It needs no gradient, so it takes any codec.

    ``kind``: "uniform" in ±eps; "sign", ±eps at random (the same RMS as a sign attack); or "coarse", ±eps in grey blobs of
    about four pixels, which codecs damp less than single pixels and which take no codec to design.
    """

    kind: str = "uniform"

    needs_gradient = False

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in ("uniform", "sign", "coarse"):
            raise ValueError(f"kind must be 'uniform', 'sign' or 'coarse', got {self.kind!r}")

    def _run(self, p):
        noise = uniform_noise(p.x, self.seed)
        if self.kind == "coarse":
            few = F.interpolate(noise[:, :1], size=[max(1, side // 4) for side in noise.shape[-2:]])
            noise = F.interpolate(few, size=noise.shape[-2:], mode="bicubic").expand_as(noise)
        x_adv = p.budget.project(p.x + p.budget.offset(noise if self.kind == "uniform" else noise.sign()), p.x)
        values = p.judged(x_adv)
        return Ascent(x_adv, values, [values.cpu()])


def dissolved(x: Tensor, x_adv: Tensor, eps: float, seed: int = 0) -> Tensor:
    """The attacked images x' with the pattern of x' − x dissolved: its spectrum stays, its phases become random ones.

    x, x' [B, 3, H, W] on the 8-bit grid. The phases are the same in all three channels, so the power at each frequency
    and how the channels go together stay, and the root mean square with them; where in the picture it lies is lost
    (Theiler 1992, doi:10.1016/0167-2789(92)90102-S). 8-bit images with an RMS of at most ``eps``, on [0, 1].
    """
    white = torch.fft.rfft2(uniform_noise(x, seed)[:, :1])  # of a real image, so that its phases give one again
    delta = torch.fft.irfft2(torch.fft.rfft2(x_adv - x) * torch.exp(1j * white.angle()), s=x.shape[-2:])
    budget = L2rms(eps)
    return budget.to_8bit(budget.project(x + delta, x), x)


@dataclass(frozen=True, kw_only=True)
class SpectralNoise(Attack):
    """A stricter control: noise with the size and the spectrum of what an attack finds, and nothing else of it.

    ``like``: that attack; it is run at this ``eps`` and ``seed`` in its own norm, and its perturbation is
    :func:`dissolved`. That keeps no bound on single samples: ``norm`` is "l2rms".
    """

    norm: str = "l2rms"
    like: Attack | None = None

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.like, Attack) or not self.like.needs_gradient:
            raise ValueError(f"like must be an attack that follows gradients, such as PGD(eps), got {self.like!r}")
        if self.norm != "l2rms":
            raise ValueError('norm must be "l2rms": random phases keep the root mean square, not the largest sample')

    def planned_gradients(self, objective=None) -> int:
        """Those of the attack that it is like."""
        return self.like.planned_gradients(objective)

    def _attack(self, codec, x, objective):
        found = self.like.with_(eps=self.eps, seed=self.seed)._attack(codec, x, objective)
        source = to_8bit(x.detach())
        x_adv = dissolved(source, found.x_adv, self.eps, self.seed + 1)
        at = (codec[0] if isinstance(codec, Sequence) else codec).device
        with torch.no_grad():
            value = objective.bind(codec, source.to(at, torch.float32), None)(x_adv.to(at, torch.float32))
        return replace(found, x_adv=x_adv, objective=value.to(x.device), **achieved(source, x_adv))


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
        state = ascend(p, p.x, [self.eps], self._first_gradient_at(p))
        for restart in range(1, self.restarts):
            state = ascend(p, p.x, [self.eps], self._beside(p, self.seed + 7919 * restart), state)
        return state


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
        state = None
        for restart in range(self.restarts):
            state = ascend(p, self._beside(p, self.seed + 7919 * restart), self.step_sizes, state=state)
        return state


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
            raise ValueError(f"probability must be in [0, 1] and smallest in (0, 1], got {self.probability!r} and "
                             f"{self.smallest!r}")  # fmt: skip

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


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD (Croce & Hein 2020, arXiv 2003.01690): PGD that chooses its steps, from a random start.

    The first step is 2·eps, moves keep a quarter of the one before. At checkpoints, an image's step is halved, and it goes
    back to its best iterate, if fewer than 75 % of the steps since the last one improved, or if neither step nor best has
    changed since.
    """

    steps: int = 10

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("steps")

    def checkpoints(self) -> set[int]:
        """The steps after which each image's progress is looked at."""
        places = [0.0, 0.22]
        while places[-1] < 1:
            places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
        return {math.ceil(f * self.steps - 1e-9) for f in places[1:] if f < 1}

    def _run(self, p):
        x_adv = previous = self._beside(p, self.seed)
        state = Ascent.begin(x_adv)
        size = x_adv.new_full((len(x_adv), 1, 1, 1), 2 * self.eps)
        values, gradient = p.value_and_gradient(x_adv)
        state.keep(x_adv, values)
        best_gradient = gradient
        improved = torch.zeros_like(values)
        best_before, halved_before, last = values, torch.zeros_like(values, dtype=torch.bool), 0
        for step in range(1, self.steps + 1):
            state.gradients += 1
            stepped = p.budget.project(x_adv + size * p.budget.steepest(gradient), p.x)
            weight = 1.0 if step == 1 else 0.75
            moved = x_adv + weight * (stepped - x_adv) + (1 - weight) * (x_adv - previous)
            previous, x_adv, old_values = x_adv, p.budget.project(moved, p.x), values
            if step == self.steps:  # the last iterate needs no gradient
                state.keep(x_adv, p.judged(x_adv))
                break
            values, gradient = p.value_and_gradient(x_adv)
            better = values > state.best_value
            state.keep(x_adv, values)
            best_gradient = torch.where(better[:, None, None, None], gradient, best_gradient)
            improved += values > old_values
            if step in self.checkpoints():
                stuck = ~halved_before & (state.best_value <= best_before)
                halve = (improved < 0.75 * (step - last)) | stuck
                again = halve[:, None, None, None]
                size = torch.where(again, size / 2, size)
                x_adv, previous = torch.where(again, state.best, x_adv), torch.where(again, state.best, previous)
                gradient = torch.where(again, best_gradient, gradient)
                values = torch.where(halve, state.best_value, values)
                best_before, halved_before, last = state.best_value, halve, step
                improved = torch.zeros_like(improved)
        return state
