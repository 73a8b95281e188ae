"""Attacks that climb with Adam in a ball of root mean square eps, and aim at rate and distortion together."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nic_helpers.ascent import Adam, Ascent, Attack
from nic_helpers.objectives import Joint, Together


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
        self._check_at_least_1("steps", "reach")
        if not (self.outward > 0 and self.along > 0):
            raise ValueError(f"outward and along must be positive, got {self.outward!r} and {self.along!r}")

    def _default_objective(self):
        return Joint.at(self.angle)

    def _run(self, p):
        x_adv = self._first_gradient_at(p) if p.flat_at_source else p.x
        state, adam = Ascent.begin(p.x), Adam(p.x)
        left = torch.full((len(p.x),), self.steps, device=p.x.device)  # steps on the surface still to do
        arrived = torch.zeros_like(left, dtype=torch.bool)
        for step in range(self.reach + self.steps):
            values, gradient = p.value_and_gradient(x_adv, step)
            state.gradients += 1
            state.keep(x_adv, values)
            size = torch.where(arrived, self.along, self.outward) * self.eps * p.active
            x_adv = p.budget.project(x_adv + size[:, None, None, None] * adam.direction(gradient), p.x)
            left = left - arrived.long()
            arrived |= (p.budget.size(x_adv - p.x) >= 0.99 * self.eps) | (step + 1 >= self.reach)
            finished = p.active & (left <= 0)
            if bool(finished.any()):
                state.keep(x_adv, p.judged(x_adv, finished))
                p.active &= ~finished
            if not bool(p.active.any()):
                break
        return state


@dataclass(frozen=True)
class ARDA(SRDA):
    """Agnostic-ratio rate–distortion attack (Wu et al. 2024, arXiv 2405.07717): one image against a list of codecs, such
    as all qualities of one.

    SRDA on the soft minimum of the effects on each codec (:class:`~nic_helpers.objectives.Together`), whose gradient
    gives most weight to the codecs that suffer least so far; ``temperature``: how sharply (0 < T; the paper's value is
    not known to us).
    """

    temperature: float = 1.0

    def _default_objective(self):
        return Together(Joint.at(self.angle), self.temperature)

    def __post_init__(self):
        super().__post_init__()
        Together(Joint(0, 1), self.temperature)  # which checks it


@dataclass(frozen=True)
class FTDA(Attack):
    """Fast threshold-constrained distortion attack (Chen & Ma 2023, arXiv 2112.08691).

    Adam on δ, clipped to ±``clip``: a step raises the objective where the root mean square of δ is within eps, and
    lowers the mean square of δ where it is not. The published code: eps = 0.01 (a mean square of 1e-4), lr 0.01 that
    falls to a third at each third of 1001 steps, no rounding. Here only iterates rounded inside the ball are kept.
    """

    norm: str = "l2rms"
    steps: int = 100
    lr: float = 0.01
    clip: float = 16 / 255

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("steps")
        if not (self.lr > 0 and self.clip > 0):
            raise ValueError(f"lr and clip must be positive, got {self.lr!r} and {self.clip!r}")

    def _run(self, p):
        x_adv = self._first_gradient_at(p) if p.flat_at_source else p.x
        state, adam = Ascent.begin(p.x), Adam(p.x)
        for step in range(self.steps):
            values, gradient = p.value_and_gradient(x_adv, step)
            state.gradients += 1
            delta = x_adv - p.x
            inside = p.budget.size(delta) <= self.eps
            state.keep(x_adv, torch.where(inside, values, -torch.inf))
            back = -2 * delta / delta[0].numel()
            lr = self.lr * 0.33 ** (3 * step // self.steps)
            step_direction = adam.direction(torch.where(inside[:, None, None, None], gradient, back))
            delta = (delta + lr * step_direction).clamp(-self.clip, self.clip)
            x_adv = (p.x + delta).clamp(0, 1)
        last = p.budget.project(x_adv, p.x)
        state.keep(last, p.judged(last))
        return state
