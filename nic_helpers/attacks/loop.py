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
from nic_helpers.objectives import Bound

JUDGE_EVERY = 20  # steps between iterates that the rounding codec judges, where gradients come from another surrogate
Rows = Tensor | slice  # which images of a batch
Render = Callable[[Tensor], Tensor]  # images of other images, or of parameters
Climbed = tuple[Tensor, Tensor]  # values [B], and the gradient


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
class Ascent:
    """The state of a climb: the best image so far of each in the batch, its value [B], and what was judged along the way."""

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


@dataclass
class Problem:
    """One batch to attack: sources x [B, 3, H, W], the budget, the objective bound to the codec, and how far a climb has come.

    ``value(x', rows)`` has the gradient, through the surrogate; ``judge(x', rows)`` is what iterates are compared by,
    always with rounding. Where the two differ, judging costs a forward pass more, and is done every few steps. Images
    that are no longer ``active`` [B] cost nothing: their value is −∞, their gradient 0. :meth:`climb` and :meth:`offer` keep
    what they find in ``state``, which an attack returns.
    """

    x: Tensor
    budget: Linf | L2rms
    value: Bound | Callable[[Tensor, Rows], Tensor]  # a Bound where gradients are taken ``through`` a transform
    judge: Callable[[Tensor, Rows], Tensor]
    flat_at_source: bool
    judge_every: int = JUDGE_EVERY
    state: Ascent = field(init=False)
    active: Tensor = field(init=False)
    stopped: Tensor | None = field(init=False, default=None)  # [B], which the last gradient stopped, if any
    climbed: list[Tensor] = field(init=False, default_factory=list)  # [B] at each gradient, through the surrogate
    judgements: list[None] = field(init=False, default_factory=list)  # one for each forward pass that only judges

    def __post_init__(self):
        self.state = Ascent.begin(self.x)
        self.active = torch.ones(len(self.x), dtype=torch.bool, device=self.x.device)

    def within(self, eps: float) -> Problem:
        """The same problem in a budget of another size, with a state of its own.

        What is counted and stopped there is counted and stopped here.
        """
        other = copy.copy(self)
        other.budget, other.state = dataclasses.replace(self.budget, eps=eps), Ascent.begin(self.x)
        return other

    def begin(self, start: Tensor) -> None:
        """Images of which nothing is ever kept end at ``start``, and not at their sources. Later starts change nothing."""
        if not self.state.trace:
            self.state = Ascent.begin(start)

    def climb(
        self, x_adv: Tensor, step: int = 0, *, keep: bool = True, render: Render | None = None, through: Render | None = None
    ) -> Climbed:
        """Objective [B] of x' (−∞ where it is not judged), and its gradient.

        The gradient is counted, and x' is kept where it is an image's best so far. ``keep=False``: x' is no candidate, but for
        images that are stopped here, which come no further. ``render``: the first argument is not x' but parameters
        θ [B, …]. What they are :meth:`rendered` to is judged, and the gradient is that for θ. ``through``: the gradient is the
        objective's for sources and x' transformed like this.
        """
        if render is not None:
            return self._pulled_back(self.climb, render, x_adv, step, keep=keep, through=through)
        values, gradient = self.look(x_adv, step, through=through)
        if not keep:
            values = torch.where(self.active, -torch.inf, values)
        self.state.keep(x_adv, values)
        return values, gradient

    def look(self, x_adv: Tensor, step: int = 0, *, render: Render | None = None, through: Render | None = None) -> Climbed:
        """As :meth:`climb`, but nothing is kept: x' is only a place to take a gradient at."""
        if render is not None:
            return self._pulled_back(self.look, render, x_adv, step, through=through)
        if through is None:
            return self.value_and_gradient(x_adv, step)
        return self.value_and_gradient_through(through, x_adv, step)

    def offer(self, x_adv: Tensor, render: Render | None = None) -> Ascent:
        """Judge x' without a gradient, and keep it where it is an image's best so far. Gives the state, for a last line.

        ``render``: the first argument is parameters, as in :meth:`climb`.
        """
        x_adv = x_adv if render is None else self.rendered(render, x_adv)
        self.state.keep(x_adv, self.judged(x_adv))
        self.state.gradients = len(self.climbed)  # some may have been taken in a problem ``within`` another budget
        return self.state

    def rendered(self, render: Render, theta: Tensor) -> Tensor:
        """The images [B, 3, H, W] that parameters θ stand for: ``render(θ)``, projected into the budget."""
        return self.budget.project(render(theta).detach(), self.x)

    def _pulled_back(self, climb: Callable[..., Climbed], render: Render, theta: Tensor, step: int, **how) -> Climbed:
        """What ``climb`` gives for the image that θ is rendered to, its gradient as that for θ."""
        values, gradient = climb(self.rendered(render, theta), step, **how)
        with torch.enable_grad():
            theta = theta.detach().requires_grad_(True)
            # as if there were no projection: where it holds the image back, parameters are to move on
            (slope,) = torch.autograd.grad(render(theta), theta, gradient)
        return values, slope

    def as_8bit(self, x_adv: Tensor, rows: Rows = slice(None)) -> Tensor:
        """The 8-bit images inside the budget that x' stands for."""
        return self.budget.to_8bit(x_adv.detach(), self.x[rows])

    def value_and_gradient(self, x_adv: Tensor, step: int = 0) -> Climbed:
        """Objective [B] of the 8-bit images that x' stands for (−∞ where it is not judged), and its gradient there.

        The gradient is counted; nothing is kept.
        """
        values, gradient = self._differentiate(self.value, x_adv)
        if self.judge is not self.value:
            values = self._judged_at(step, x_adv)
        return self._last_chance(values, x_adv), gradient

    def value_and_gradient_through(self, transform: Render, x_adv: Tensor, step: int) -> Climbed:
        """Objective [B] at x', where it is judged, and the gradient of that for the transformed sources at the transformed x'."""

        def values_at(v: Tensor, rows: Rows) -> Tensor:
            return self.value.on(transform(self.x[rows]))(transform(v))

        values = self._judged_at(step, x_adv)
        gradient = self._differentiate(values_at, x_adv)[1]
        return self._last_chance(values, x_adv), gradient

    def _judged_at(self, step: int, x_adv: Tensor) -> Tensor:
        return self.judged(x_adv) if step % self.judge_every == 0 else _unknown(x_adv)

    def _last_chance(self, values: Tensor, x_adv: Tensor) -> Tensor:
        """The values, with those of images that have just been stopped judged: they come no further, and may be their best."""
        return values if self.stopped is None else torch.where(self.stopped, self.judged(x_adv, self.stopped), values)

    @torch.no_grad()
    def judged(self, x_adv: Tensor, only: Tensor | None = None) -> Tensor:
        """Objective [B] of the 8-bit images that x' stands for (of those in the mask ``only``), without a gradient."""
        chosen, values = self.active if only is None else only, _unknown(x_adv)
        if bool(chosen.any()):
            self.judgements.append(None)
            rows = _rows(chosen)
            found = self.judge(self.as_8bit(x_adv[rows], rows), rows)
            sound = found.isfinite()
            if only is None and not bool(sound.all()):
                lost = torch.arange(len(x_adv), device=x_adv.device)[rows][~sound].tolist()
                warnings.warn(
                    f"image(s) {lost} of the batch: the objective is not finite. What gave that is not kept.", stacklevel=3
                )
            values[rows] = torch.where(sound, found, -torch.inf)
        return values

    def _differentiate(self, values_at: Callable[[Tensor, Rows], Tensor], x_adv: Tensor) -> Climbed:
        """Values [B] through the surrogate and their gradient, counted; images where either is not finite are stopped."""
        self.stopped = None
        values, gradient = _unknown(x_adv), torch.zeros_like(x_adv)
        if bool(self.active.any()):
            rows = _rows(self.active)
            found, slope = self._slope(values_at, x_adv, rows)
            sound = found.isfinite() & slope.sum((1, 2, 3)).isfinite()  # NaN or infinite where any is
            if not bool(sound.all()):
                self._stop(torch.arange(len(x_adv), device=x_adv.device)[rows][~sound].tolist())
            if isinstance(rows, slice) and bool(sound.all()):
                values, gradient = found, slope
            else:
                values[rows] = torch.where(sound, found, -torch.inf)
                gradient[rows] = torch.where(sound[:, None, None, None], slope, 0.0)
        self.climbed.append(_nan_where_unknown(values))
        self.state.gradients = len(self.climbed)
        return values, gradient

    def _slope(self, values_at: Callable[[Tensor, Rows], Tensor], x_adv: Tensor, rows: Rows) -> Climbed:
        part = self.as_8bit(x_adv[rows], rows).requires_grad_(True)
        with torch.enable_grad():  # also for callers under no_grad
            found = values_at(part, rows)
            if not found.requires_grad:
                raise ValueError("this objective has no gradient through this codec: use Square, which needs none")
            (slope,) = torch.autograd.grad(found.sum(), part)
        return found.detach(), slope

    def _stop(self, lost: list[int]) -> None:
        warnings.warn(
            f"image(s) {lost} of the batch: the objective or its gradient is not finite. They are stopped and keep their best so far.",
            stacklevel=3,
        )
        self.active[lost] = False
        self.stopped = torch.zeros_like(self.active)
        self.stopped[lost] = True


def _rows(mask: Tensor) -> Rows:
    return slice(None) if bool(mask.all()) else mask.nonzero().squeeze(1)


def _unknown(x_adv: Tensor) -> Tensor:
    return x_adv.new_full((len(x_adv),), -torch.inf)


def _nan_where_unknown(values: Tensor) -> Tensor:
    return torch.where(values == -torch.inf, torch.nan, values).cpu()


def ascend(
    p: Problem,
    start: Tensor,
    step_sizes: Sequence[float],
    first_gradient_at: Tensor | None = None,
    *,
    direction: Callable[[Tensor, Tensor], Tensor] | None = None,
    diverse: Callable[[Tensor, int], Tensor] | None = None,
    project: Callable[[Tensor, Tensor], Tensor] | None = None,
    render: Render | None = None,
) -> Ascent:
    """The loop: x' ← project(x' + step·direction(gradient, x')), keeping the best iterate of each image.

    ``first_gradient_at``: where the first gradient is taken, if not at ``start`` itself. ``direction``: default the
    budget's steepest. ``diverse(x', step)``: gradients are those of the objective for sources transformed like this.
    ``project(x', x)``: default the budget's. ``render``: what moves is parameters, of which it makes images
    (:meth:`Problem.climb`). Starts, directions and projections are then those of the parameters, and nothing holds them by
    default. Where judging costs a forward pass, the start is judged for diverse gradients only.
    """
    project = project or (p.budget.project if render is None else lambda theta, x: theta)
    direction = direction or (lambda gradient, x_adv: p.budget.steepest(gradient))
    p.begin(start if render is None else p.rendered(render, start))
    x_adv = start
    for step, size in enumerate(step_sizes):
        through = None if diverse is None else lambda v, step=step: diverse(v, step)
        due = step if diverse else step or 1
        if step == 0 and first_gradient_at is not None:  # a place to look from, no candidate
            probe = first_gradient_at
            _, gradient = p.look(probe, due, render=render, through=through)
        else:
            probe = x_adv
            _, gradient = p.climb(x_adv, due, render=render, through=through)
        x_adv = project(torch.add(x_adv, direction(gradient, probe), alpha=size), p.x)
    return p.offer(x_adv, render)


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
