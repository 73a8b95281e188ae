"""Attacks on a codec's input. An attack is its settings; calling it runs one shared loop.

    adv = PGD(eps=8/255, steps=10)(codec, x)      # default objective: distortion to the clean reconstruction
    adv.x_adv                                     # [B, 3, H, W], an 8-bit image inside the budget

Every attack takes x [B, 3, H, W] in [0, 1] (a list of [3, H, W] too, attacked one by one), snaps it to the 8-bit grid,
and returns an :class:`AttackResult` on x's device. Random numbers are drawn per image from (seed, the image's content),
so an image gets the same perturbation alone and in any batch.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.budgets import BUDGETS, L2rms, Linf
from nic_helpers.codecs import SMALLEST_SIDE, Images
from nic_helpers.images import check_images, to_8bit, to_uint8
from nic_helpers.metrics import achieved
from nic_helpers.objectives import Distortion, Joint


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


@dataclass
class Problem:
    """One batch to attack: sources x [B, 3, H, W], the budget, and the objective bound to the codec.

    ``value`` has the gradient, through the surrogate; ``judge`` is what iterates are compared by, always with rounding.
    """

    x: Tensor
    budget: Linf | L2rms
    value: Callable[[Tensor], Tensor]
    judge: Callable[[Tensor], Tensor]
    flat_at_source: bool
    bind: Callable[[Tensor], Callable[[Tensor], Tensor]] | None = (
        None  # the objective for other sources, differentiable
    )

    def as_8bit(self, x_adv: Tensor) -> Tensor:
        """The 8-bit image inside the budget that x' stands for; the gradient passes unchanged."""
        return x_adv + (self.budget.to_8bit(x_adv, self.x) - x_adv).detach()

    def value_and_gradient(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Objective [B] of the 8-bit image that x' stands for, and its gradient [B, 3, H, W] (NaN as 0)."""
        x_adv = x_adv.detach().requires_grad_(True)
        values = self.value(self.as_8bit(x_adv))
        (gradient,) = torch.autograd.grad(values.sum(), x_adv)
        if self.judge is not self.value:
            values = self.judged(x_adv)
        return values.detach(), torch.nan_to_num(gradient)

    def gradient_through(self, transform: Callable[[Tensor], Tensor], x_adv: Tensor) -> Tensor:
        """Gradient [B, 3, H, W] of the objective for the transformed sources at the transformed x' (NaN as 0)."""
        x_adv = x_adv.detach().requires_grad_(True)
        value = self.bind(transform(self.x))
        (gradient,) = torch.autograd.grad(value(transform(self.as_8bit(x_adv))).sum(), x_adv)
        return torch.nan_to_num(gradient)

    @torch.no_grad()
    def judged(self, x_adv: Tensor) -> Tensor:
        """Objective [B] of the 8-bit image that x' stands for, without a gradient."""
        return self.judge(self.as_8bit(x_adv))


@dataclass
class Ascent:
    """The state of the loop: the best image so far of each in the batch."""

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
    p: Problem,
    start: Tensor,
    step_sizes: list[float],
    first_gradient_at: Tensor | None = None,
    state: Ascent | None = None,
    direction: Callable[[Tensor], Tensor] | None = None,
    diverse: Callable[[Tensor, int], Tensor] | None = None,
) -> Ascent:
    """The loop: x' ← project(x' + step·direction(gradient)), keeping the best iterate of each image.

    ``first_gradient_at``: where the first gradient is taken, if not at ``start`` itself. ``direction``: default the
    budget's steepest. ``diverse(x', step)``: gradients are those of the objective for sources transformed like this.
    """
    direction = direction or p.budget.steepest
    state = state or Ascent(start, torch.full((len(start),), -torch.inf, device=start.device), [])
    x_adv = start
    for step, size in enumerate(step_sizes):
        probe = first_gradient_at if step == 0 and first_gradient_at is not None else x_adv
        if diverse is None:
            values, gradient = p.value_and_gradient(probe)
        else:
            values, gradient = p.judged(probe), p.gradient_through(lambda v, step=step: diverse(v, step), probe)
        state.gradients += 1
        if probe is x_adv:
            state.keep(x_adv, values)
        x_adv = p.budget.project(x_adv + size * direction(gradient), p.x)
    state.keep(x_adv, p.judged(x_adv))
    return state


@dataclass(frozen=True)
class Attack:
    """What all attacks share: the budget's size (on [0, 1]), the seed, how gradients pass the codec's rounding, and the
    ``norm`` that the budget bounds: "linf" (each sample) or "l2rms" (the root mean square over an image)."""

    eps: float
    seed: int = 0
    surrogate: str | None = "ste"
    norm: str = "linf"

    def __post_init__(self):
        if self.norm not in BUDGETS:
            raise ValueError(f"norm must be one of {', '.join(BUDGETS)}, got {self.norm!r}")
        BUDGETS[self.norm](self.eps)

    def __call__(self, codec, x, objective=None) -> AttackResult:
        """Attack each image of x; see the module's text for what goes in and comes out."""
        objective = objective or Distortion()
        check_images(x, SMALLEST_SIDE)
        if not isinstance(x, Tensor):
            return _joined([self(codec, image[None], objective) for image in x])
        began, budget = time.perf_counter(), BUDGETS[self.norm](self.eps)
        source = to_8bit(x.detach()).to(getattr(codec, "device", x.device), torch.float32)
        value = judge = objective.bind(codec, source, self.surrogate)
        if self.surrogate in ("noise", "identity"):  # their values are not the codec's
            judge = objective.bind(codec, source, None)
        with torch.random.fork_rng(devices=[source.device] if source.is_cuda else []):
            torch.manual_seed(self.seed)  # of the "noise" surrogate, the only one that draws
            bind = lambda other: objective.bind(codec, other, self.surrogate)  # noqa: E731
            state = self._run(Problem(source, budget, value, judge, objective.flat_at_source, bind))
        x_adv = to_8bit(budget.to_8bit(state.best, source).to(x.device, x.dtype))
        return AttackResult(
            x_adv, state.best_value.to(x.device), torch.stack(state.trace), state.gradients,
            time.perf_counter() - began, **achieved(to_8bit(x.detach()), x_adv),
        )  # fmt: skip

    def _run(self, p: Problem) -> Ascent:
        raise TypeError("Attack is a base: use one of the attacks of this module")

    def _beside(self, p: Problem, seed: int) -> Tensor:
        """A random point of the ball around the sources."""
        return p.budget.project(p.x + p.budget.offset(uniform_noise(p.x, seed)), p.x)

    def _first_gradient_at(self, p: Problem) -> Tensor | None:
        """Where an attack that starts at the sources takes its first gradient: beside them, where it is zero at them."""
        return self._beside(p, self.seed) if p.flat_at_source else None


@dataclass(frozen=True)
class RandomNoise(Attack):
    """The control every attack must beat: noise of the same budget. It needs no gradient, so it takes any codec.

    ``kind``: "uniform" in ±eps, or "sign", ±eps at random (the same RMS as a sign attack).
    """

    kind: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in ("uniform", "sign"):
            raise ValueError(f"kind must be 'uniform' or 'sign', got {self.kind!r}")

    def __call__(self, codec, x, objective=None) -> AttackResult:
        """Perturb each image of x. For a codec without gradient the ``objective`` of the result is NaN."""
        return super().__call__(codec, x, objective if codec.differentiable else _Unknown())

    def _run(self, p):
        noise = uniform_noise(p.x, self.seed)
        x_adv = p.budget.project(p.x + p.budget.offset(noise.sign() if self.kind == "sign" else noise), p.x)
        values = p.judged(x_adv)
        return Ascent(x_adv, values, [values.cpu()])


class _Unknown:
    """An objective that cannot be evaluated."""

    flat_at_source = False

    def bind(self, codec, x, surrogate):
        return lambda x_adv: torch.full((len(x_adv),), torch.nan, device=x_adv.device)


@dataclass(frozen=True)
class FGSM(Attack):
    """Fast gradient sign method (Goodfellow 2015, arXiv 1412.6572): one step of size eps from x.

    Where the objective is flat at x (distortion to the clean reconstruction) the gradient is taken at x plus uniform
    noise in ±eps.
    """

    def _run(self, p):
        return ascend(p, p.x, [self.eps], self._first_gradient_at(p))


@dataclass(frozen=True)
class _Iterative(Attack):
    """Attacks of several steps. ``alpha``: the step, on [0, 1]; None (default): eps at first, decayed linearly to
    eps/steps."""

    alpha: float | None = None
    steps: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.alpha is not None and not 0 < self.alpha <= 2 * self.eps:
            raise ValueError(f"alpha must be in (0, 2·eps] = (0, {2 * self.eps:.4g}], got {self.alpha!r}")

    @property
    def step_sizes(self) -> list[float]:
        """The size of each step."""
        return [self.alpha or self.eps * (self.steps - t) / self.steps for t in range(self.steps)]


@dataclass(frozen=True)
class IFGSM(_Iterative):
    """Iterative FGSM, also called BIM (Kurakin 2017, arXiv 1607.02533): steps from x, each projected."""

    def _run(self, p):
        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p))


@dataclass(frozen=True)
class PGD(_Iterative):
    """Projected gradient descent (Madry 2018, arXiv 1706.06083), as ascent: a random start in the ball, then steps.

    ``restarts``: runs from different starts, of which each image keeps its best. Each run costs ``steps`` gradients.
    """

    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {self.restarts}")

    def _run(self, p):
        state = None
        for restart in range(self.restarts):
            state = ascend(p, self._beside(p, self.seed + 7919 * restart), self.step_sizes, state=state)
        return state


@dataclass(frozen=True)
class MIFGSM(_Iterative):
    """Momentum iterative FGSM (Dong 2018, arXiv 1710.06081): steps along g ← mu·g + gradient / mean |gradient|."""

    mu: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not self.mu >= 0:
            raise ValueError(f"mu must not be negative, got {self.mu!r}")

    def _run(self, p):
        momentum = torch.zeros_like(p.x)

        def direction(gradient: Tensor) -> Tensor:
            size = gradient.abs().mean((1, 2, 3), keepdim=True)
            momentum.mul_(self.mu).add_(torch.where(size > 0, gradient / size.clamp_min(1e-30), 0.0))
            return p.budget.steepest(momentum)

        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p), direction=direction)


@dataclass(frozen=True)
class DIFGSM(_Iterative):
    """Diverse inputs iterative FGSM (Xie 2019, arXiv 1803.06978): each gradient is taken through a random resize to
    ``smallest`` … 1 of the size, padded with zeros at random, with the given ``probability``.

    The codec's clean reconstruction is that of the source transformed alike, so a step costs a forward pass more.
    """

    probability: float = 0.5
    smallest: float = 0.9

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
        draw = torch.rand(4, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + step)).tolist()
        if draw[0] >= self.probability:
            return x
        height, width = x.shape[2:]
        scale = self.smallest + (1 - self.smallest) * draw[1]
        inner = [max(SMALLEST_SIDE, round(side * scale)) for side in (height, width)]
        top, left = (round((side - s) * d) for side, s, d in zip((height, width), inner, draw[2:], strict=True))
        small = F.interpolate(x, inner, mode="bilinear", align_corners=False).clamp(0, 1)
        return F.pad(small, (left, width - inner[1] - left, top, height - inner[0] - top))


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD (Croce & Hein 2020, arXiv 2003.01690): PGD that chooses its steps, from a random start.

    The first step is 2·eps, moves keep a quarter of the one before. At checkpoints, an image's step is halved, and it goes
    back to its best iterate, if fewer than 75 % of the steps since the last one improved, or if neither step nor best has
    changed since.
    """

    steps: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def checkpoints(self) -> set[int]:
        """The steps after which each image's progress is looked at."""
        places = [0.0, 0.22]
        while places[-1] < 1:
            places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
        return {math.ceil(f * self.steps - 1e-9) for f in places[1:] if f < 1}

    def _run(self, p):
        x_adv = previous = self._beside(p, self.seed)
        state = Ascent(x_adv, torch.full((len(x_adv),), -torch.inf, device=x_adv.device), [])
        size = torch.full((len(x_adv), 1, 1, 1), 2 * self.eps, device=x_adv.device)
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


@dataclass(frozen=True)
class SRDA(Attack):
    """Specific-ratio rate–distortion attack (Wu et al. 2024, arXiv 2405.07717): Adam, in a ball of root mean square eps.

    Raises :class:`~nic_helpers.objectives.Joint` at ``angle`` (degrees; 0 rate, 90 distortion) unless an objective is
    given. An image first moves by ``outward``·eps a step until it reaches the ball's surface (``reach`` steps at most),
    then ``steps`` steps of ``along``·eps on it, so that strengths are compared at the same size (our reading).
    """

    norm: str = "l2rms"
    angle: float = 90.0
    steps: int = 30
    reach: int = 10
    outward: float = 0.5
    along: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1 or self.reach < 1:
            raise ValueError(f"steps and reach must be at least 1, got {self.steps} and {self.reach}")
        if not (self.outward > 0 and self.along > 0):
            raise ValueError(f"outward and along must be positive, got {self.outward!r} and {self.along!r}")

    def __call__(self, codec, x, objective=None) -> AttackResult:
        """Attack each image of x; see the module's text for what goes in and comes out."""
        return super().__call__(codec, x, objective or Joint.at(self.angle))

    def _run(self, p):
        x_adv = self._first_gradient_at(p) if p.flat_at_source else p.x
        state = Ascent(p.x, torch.full((len(p.x),), -torch.inf, device=p.x.device), [])
        adam = Adam(p.x)
        left = torch.full((len(p.x),), self.steps, device=p.x.device)  # steps on the surface still to do
        arrived = torch.zeros_like(left, dtype=torch.bool)
        for step in range(self.reach + self.steps):
            values, gradient = p.value_and_gradient(x_adv)
            state.gradients += 1
            state.keep(x_adv, values)
            size = torch.where(arrived, self.along, self.outward) * self.eps * (left > 0)
            x_adv = p.budget.project(x_adv + size[:, None, None, None] * adam.direction(gradient), p.x)
            left = left - arrived.long()
            arrived |= p.budget.size(x_adv - p.x) >= 0.99 * self.eps
            arrived |= torch.full_like(arrived, step + 1 >= self.reach)
            if not bool((left > 0).any()):
                break
        state.keep(x_adv, p.judged(x_adv))
        return state


class Adam:
    """Adam's direction (Kingma & Ba 2015), element by element, so that an image moves alike alone and in a batch."""

    def __init__(self, like: Tensor, first: float = 0.9, second: float = 0.999):
        self._m, self._v, self._t = torch.zeros_like(like), torch.zeros_like(like), 0
        self._first, self._second = first, second

    def direction(self, gradient: Tensor) -> Tensor:
        """The next step at learning rate 1, uphill; zero where there has been no gradient yet."""
        self._t += 1
        self._m.lerp_(gradient, 1 - self._first)
        self._v.lerp_(gradient.square(), 1 - self._second)
        mean, square = self._m / (1 - self._first**self._t), self._v / (1 - self._second**self._t)
        return torch.where(square > 0, mean / square.sqrt().clamp_min(1e-30), 0.0)
