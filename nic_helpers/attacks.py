"""Attacks on a codec's input. An attack is its settings; calling it runs one shared loop.

    adv = PGD(eps=8/255, steps=10)(codec, x)      # default objective: distortion to the clean reconstruction
    adv.x_adv                                     # [B, 3, H, W], an 8-bit image inside the budget

Every attack takes x [B, 3, H, W] in [0, 1] (a list of [3, H, W] too, attacked one by one), snaps it to the 8-bit grid,
and returns an :class:`AttackResult` on x's device. Random numbers are drawn per image from (seed, the image's content),
so an image gets the same perturbation alone and in any batch.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nic_helpers.budgets import Linf
from nic_helpers.codecs import SMALLEST_SIDE, Images
from nic_helpers.images import check_images, to_8bit, to_uint8
from nic_helpers.metrics import achieved
from nic_helpers.objectives import Distortion


@dataclass
class AttackResult:
    """``x_adv`` [B, 3, H, W] on the 8-bit grid (a list of [3, H, W] for a list), and per image [B]: ``linf``, ``rms``,
    ``psnr_input`` achieved, the ``objective`` of ``x_adv`` under the surrogate; ``trace`` [steps, B] of it along the way;
    ``gradients``, the number of gradient evaluations per image; ``seconds`` in all."""

    x_adv: Images
    objective: Tensor
    trace: Tensor
    gradients: int
    seconds: float
    linf: Tensor
    rms: Tensor
    psnr_input: Tensor


def _joined(results: list[AttackResult]) -> AttackResult:
    """The results of attacks on single images as one, with a list of attacked images."""
    per_image = {f: torch.cat([getattr(r, f) for r in results]) for f in ("objective", "linf", "rms", "psnr_input")}
    trace = torch.cat([r.trace for r in results], dim=1)
    seconds = sum(r.seconds for r in results)
    return AttackResult(
        [r.x_adv[0] for r in results], trace=trace, gradients=results[0].gradients, seconds=seconds, **per_image
    )


def uniform_noise(x: Tensor, seed: int) -> Tensor:
    """Noise in [−1, 1] like x, drawn for each image from (seed, its content)."""
    noise = []
    for image in x:
        # torch's CPU generator looks at 32 bits of its seed: both parts must go into them
        key = zlib.crc32(str(seed).encode(), zlib.crc32(to_uint8(image).tobytes()))
        generator = torch.Generator().manual_seed(key)
        noise.append(torch.rand(image.shape, generator=generator) * 2 - 1)
    return torch.stack(noise).to(x.device, x.dtype)


def round_through(x_adv: Tensor, x: Tensor, budget) -> Tensor:
    """The 8-bit image inside the budget that x' stands for; the gradient passes unchanged."""
    return x_adv + (budget.to_8bit(x_adv, x) - x_adv).detach()


def value_and_gradient(value: Callable[[Tensor], Tensor], x_adv: Tensor, x: Tensor, budget) -> tuple[Tensor, Tensor]:
    """Objective [B] of the 8-bit image that x' stands for, and its gradient [B, 3, H, W] (NaN as 0)."""
    x_adv = x_adv.detach().requires_grad_(True)
    values = value(round_through(x_adv, x, budget))
    (gradient,) = torch.autograd.grad(values.sum(), x_adv)
    return values.detach(), torch.nan_to_num(gradient)


@dataclass
class Ascent:
    """The state of one run of the loop: the best image so far of each in the batch."""

    best: Tensor
    best_value: Tensor
    trace: list[Tensor]
    gradients: int = 0

    def keep(self, x_adv: Tensor, values: Tensor) -> None:
        """Remember the images that beat their best so far."""
        better = values > self.best_value
        self.best = torch.where(better[:, None, None, None], x_adv.detach(), self.best)
        self.best_value = torch.where(better, values, self.best_value)
        self.trace.append(values.cpu())


def ascend(
    value: Callable[[Tensor], Tensor],
    x: Tensor,
    budget: Linf,
    start: Tensor,
    step_sizes: list[float],
    first_gradient_at: Tensor | None = None,
    state: Ascent | None = None,
) -> Ascent:
    """The loop: x' ← project(x' + step·sign(gradient)), keeping the best iterate of each image.

    ``first_gradient_at``: where the first gradient is taken, if not at ``start`` itself (with the clean reconstruction
    as reference the gradient at x is exactly zero).
    """
    state = state or Ascent(start, torch.full((len(x),), -torch.inf, device=x.device), [])
    x_adv = start
    for step, size in enumerate(step_sizes):
        probe = first_gradient_at if step == 0 and first_gradient_at is not None else x_adv
        values, gradient = value_and_gradient(value, probe, x, budget)
        state.gradients += 1
        if probe is x_adv:
            state.keep(x_adv, values)
        x_adv = budget.project(x_adv + size * gradient.sign(), x)
    with torch.no_grad():
        state.keep(x_adv, value(budget.to_8bit(x_adv, x)))
    return state


@dataclass(frozen=True)
class Attack:
    """What all attacks share: the budget's size (on [0, 1]), the seed, how gradients pass the codec's rounding."""

    eps: float
    seed: int = 0
    surrogate: str = "ste"

    def __post_init__(self):
        Linf(self.eps)

    def __call__(self, codec, x, objective=None) -> AttackResult:
        """Attack each image of x; see the module's text for what goes in and comes out."""
        objective = objective or Distortion()
        if not isinstance(x, Tensor):
            check_images(x, SMALLEST_SIDE)
            return _joined([self(codec, image[None], objective) for image in x])
        check_images(x, SMALLEST_SIDE)
        began, budget = time.perf_counter(), Linf(self.eps)
        device = getattr(codec, "device", x.device)
        source = to_8bit(x.detach()).to(device)
        value = objective.bind(codec, source, self.surrogate)
        state = self._run(value, source, budget)
        x_adv = budget.to_8bit(state.best, source).to(x.device)
        return AttackResult(
            x_adv, state.best_value.to(x.device), torch.stack(state.trace), state.gradients,
            time.perf_counter() - began, **achieved(to_8bit(x.detach()), x_adv),
        )  # fmt: skip

    def _run(self, value, x: Tensor, budget: Linf) -> Ascent:
        raise TypeError("Attack is a base: use RandomNoise, FGSM or PGD")


@dataclass(frozen=True)
class RandomNoise(Attack):
    """The control every attack must beat: noise of the same budget.

    ``kind``: "uniform" in ±eps, or "sign", ±eps at random (the same RMS as a sign attack).
    """

    kind: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in ("uniform", "sign"):
            raise ValueError(f"kind must be 'uniform' or 'sign', got {self.kind!r}")

    def _run(self, value, x, budget):
        noise = uniform_noise(x, self.seed)
        x_adv = budget.project(x + self.eps * (noise.sign() if self.kind == "sign" else noise), x)
        return ascend(value, x, budget, x_adv, [])


@dataclass(frozen=True)
class FGSM(Attack):
    """Fast gradient sign method (Goodfellow 2015, arXiv 1412.6572): one step of size eps from x.

    The gradient is taken at x plus uniform noise in ±eps, because at x itself it is zero for the default objective.
    """

    def _run(self, value, x, budget):
        probe = budget.project(x + self.eps * uniform_noise(x, self.seed), x)
        return ascend(value, x, budget, x, [self.eps], first_gradient_at=probe)


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent (Madry 2018, arXiv 1706.06083), as ascent: a random start in the ball, then sign steps.

    ``alpha``: the step, on [0, 1]; None (default): eps at first, decayed linearly to eps/steps. ``restarts``: runs from
    different starts, of which each image keeps its best. Each run costs ``steps`` gradients.
    """

    alpha: float | None = None
    steps: int = 10
    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts must be at least 1, got {self.steps} and {self.restarts}")
        if self.alpha is not None and not 0 < self.alpha <= 2 * self.eps:
            raise ValueError(f"alpha must be in (0, 2·eps] = (0, {2 * self.eps:.4g}], got {self.alpha!r}")

    def _run(self, value, x, budget):
        sizes = [self.alpha or self.eps * (self.steps - t) / self.steps for t in range(self.steps)]
        state = None
        for restart in range(self.restarts):
            start = budget.project(x + self.eps * uniform_noise(x, self.seed + 7919 * restart), x)
            state = ascend(value, x, budget, start, sizes, state=state)
        return state
