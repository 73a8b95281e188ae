"""The loop that attacks share: what is attacked, how a step is judged and the best iterate kept."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nic_helpers.budgets import L2rms, Linf
from nic_helpers.images import to_uint8

JUDGE_EVERY = 20  # steps between iterates that the rounding codec judges, where gradients come from another surrogate
Rows = Tensor | slice  # which images of a batch


def generator(image: Tensor, seed: int) -> torch.Generator:
    """Random numbers for one image [3, H, W], from (seed, its content): the same alone and in any batch."""
    # torch's CPU generator looks at 32 bits of its seed: both parts must go into them
    key = zlib.crc32(str(seed).encode(), zlib.crc32(to_uint8(image).tobytes()))
    return torch.Generator().manual_seed(key)


def uniform_noise(x: Tensor, seed: int) -> Tensor:
    """Noise in [−1, 1] like x, drawn for each image from (seed, its content)."""
    noise = [torch.rand(image.shape, generator=generator(image, seed), dtype=torch.float32) * 2 - 1 for image in x]
    return torch.stack(noise).to(x.device, x.dtype)


@dataclass
class Problem:
    """One batch to attack: sources x [B, 3, H, W], the budget, and the objective bound to the codec.

    ``value(x', rows)`` has the gradient, through the surrogate; ``judge(x', rows)`` is what iterates are compared by,
    always with rounding. Where the two differ, judging costs a forward pass more, and is done every few steps. Images
    that are no longer ``active`` [B] cost nothing: their value is −∞, their gradient 0.
    """

    x: Tensor
    budget: Linf | L2rms
    value: Callable[[Tensor, Rows], Tensor]
    judge: Callable[[Tensor, Rows], Tensor]
    flat_at_source: bool
    judge_every: int = JUDGE_EVERY
    active: Tensor = field(init=False)
    stopped: Tensor | None = field(init=False, default=None)  # [B], which the last gradient stopped, if any
    climbed: list[Tensor] = field(init=False, default_factory=list)  # [B] at each gradient, through the surrogate
    judgements: list[None] = field(init=False, default_factory=list)  # one for each forward pass that only judges

    def __post_init__(self):
        self.active = torch.ones(len(self.x), dtype=torch.bool, device=self.x.device)

    def within(self, eps: float) -> Problem:
        """The same problem in a budget of another size; what is counted and stopped there is counted and stopped here."""
        other = copy.copy(self)
        other.budget = dataclasses.replace(self.budget, eps=eps)
        return other

    def as_8bit(self, x_adv: Tensor, rows: Rows = slice(None)) -> Tensor:
        """The 8-bit images inside the budget that x' stands for."""
        return self.budget.to_8bit(x_adv.detach(), self.x[rows])

    def value_and_gradient(self, x_adv: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """Objective [B] of the 8-bit images that x' stands for (−∞ where it is not judged), and its gradient there."""
        values, gradient = self._differentiate(self.value, x_adv)
        if self.judge is not self.value:
            values = self.judged(x_adv) if step % self.judge_every == 0 else torch.full_like(values, -torch.inf)
        return self._last_chance(values, x_adv), gradient

    def value_and_gradient_through(self, transform: Callable[[Tensor], Tensor], x_adv: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Objective [B] at x', where it is judged, and the gradient of that for the transformed sources at the transformed x'."""

        def values_at(v: Tensor, rows: Rows) -> Tensor:
            return self.value.on(transform(self.x[rows]))(transform(v))

        values = self.judged(x_adv) if step % self.judge_every == 0 else x_adv.new_full((len(x_adv),), -torch.inf)
        gradient = self._differentiate(values_at, x_adv)[1]
        return self._last_chance(values, x_adv), gradient

    def _last_chance(self, values: Tensor, x_adv: Tensor) -> Tensor:
        """The values, with those of images that have just been stopped judged: they come no further, and may be their best."""
        return values if self.stopped is None else torch.where(self.stopped, self.judged(x_adv, self.stopped), values)

    @torch.no_grad()
    def judged(self, x_adv: Tensor, only: Tensor | None = None) -> Tensor:
        """Objective [B] of the 8-bit images that x' stands for (of those in the mask ``only``), without a gradient."""
        chosen = self.active if only is None else only
        values = x_adv.new_full((len(x_adv),), -torch.inf)
        if bool(chosen.any()):
            self.judgements.append(None)
            rows = _rows(chosen)
            found = self.judge(self.as_8bit(x_adv[rows], rows), rows)
            values[rows] = torch.where(found.isfinite(), found, -torch.inf)
        return values

    def _differentiate(self, values_at: Callable[[Tensor, Rows], Tensor], x_adv: Tensor) -> tuple[Tensor, Tensor]:
        self.stopped = None
        values, gradient = x_adv.new_full((len(x_adv),), -torch.inf), torch.zeros_like(x_adv)
        if not bool(self.active.any()):
            self._remember(values)
            return values, gradient
        rows = _rows(self.active)
        part = self.as_8bit(x_adv[rows], rows).requires_grad_(True)
        with torch.enable_grad():  # also for callers under no_grad
            found = values_at(part, rows)
            if not found.requires_grad:
                raise ValueError("this objective has no gradient through this codec: use Square, which needs none")
            (slope,) = torch.autograd.grad(found.sum(), part)
        found = found.detach()
        sound = found.isfinite() & slope.sum((1, 2, 3)).isfinite()  # NaN or infinite where any is
        if isinstance(rows, slice) and bool(sound.all()):
            self._remember(found)
            return found, slope
        if not bool(sound.all()):
            lost = torch.arange(len(x_adv), device=x_adv.device)[rows][~sound].tolist()
            warnings.warn(
                f"image(s) {lost} of the batch: the gradient is not finite. They are stopped and keep their best so far.",
                stacklevel=2,
            )
            self.active[lost] = False
            self.stopped = torch.zeros_like(self.active)
            self.stopped[lost] = True
        values[rows] = torch.where(sound, found, -torch.inf)
        gradient[rows] = torch.where(sound[:, None, None, None], slope, 0.0)
        self._remember(values)
        return values, gradient

    def _remember(self, values: Tensor) -> None:
        self.climbed.append(_nan_where_unknown(values))


def _rows(mask: Tensor) -> Rows:
    return slice(None) if bool(mask.all()) else mask.nonzero().squeeze(1)


@dataclass
class Ascent:
    """The state of the loop: the best image so far of each in the batch."""

    best: Tensor
    best_value: Tensor
    trace: list[Tensor]
    gradients: int = 0

    @classmethod
    def begin(cls, start: Tensor) -> Ascent:
        """Nothing kept yet."""
        return cls(start, start.new_full((len(start),), -torch.inf), [])

    def keep(self, x_adv: Tensor, values: Tensor) -> None:
        """Remember the images that beat their best so far."""
        better = values > self.best_value
        if bool(better.any()):
            self.best = torch.where(better[:, None, None, None], x_adv.detach(), self.best)
            self.best_value = torch.where(better, values, self.best_value)
        self.trace.append(_nan_where_unknown(values))


def _nan_where_unknown(values: Tensor) -> Tensor:
    return torch.where(values == -torch.inf, torch.nan, values).cpu()


def ascend(
    p: Problem,
    start: Tensor,
    step_sizes: Sequence[float],
    first_gradient_at: Tensor | None = None,
    state: Ascent | None = None,
    direction: Callable[[Tensor, Tensor], Tensor] | None = None,
    diverse: Callable[[Tensor, int], Tensor] | None = None,
    project: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Ascent:
    """The loop: x' ← project(x' + step·direction(gradient, x')), keeping the best iterate of each image.

    ``first_gradient_at``: where the first gradient is taken, if not at ``start`` itself. ``direction``: default the
    budget's steepest. ``diverse(x', step)``: gradients are those of the objective for sources transformed like this.
    ``project(x', x)``: default the budget's.
    """
    project = project or p.budget.project
    direction = direction or (lambda gradient, x_adv: p.budget.steepest(gradient))
    state = state or Ascent.begin(start)
    x_adv = start
    for step, size in enumerate(step_sizes):
        probe = first_gradient_at if step == 0 and first_gradient_at is not None else x_adv
        if diverse is None:
            values, gradient = p.value_and_gradient(probe, step or 1)
        else:
            values, gradient = p.value_and_gradient_through(lambda v, step=step: diverse(v, step), probe, step)
        state.gradients += 1
        if probe is x_adv:
            state.keep(x_adv, values)
        x_adv = project(torch.add(x_adv, direction(gradient, probe), alpha=size), p.x)
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


def falling(lr: float, steps: int) -> list[float]:
    """A step for each of ``steps``, from ``lr`` down to a tenth of it along a cosine."""
    return [lr * (0.1 + 0.45 * (1 + math.cos(math.pi * t / steps))) for t in range(steps)]
