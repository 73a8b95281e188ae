"""Attacks in a ball of root mean square eps, of those who attack learned codecs: at rate and distortion together, on several
qualities at once, and with a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nic_helpers.attacks.base import Attack, AttackResult, Iterative
from nic_helpers.attacks.loop import Adam, ascend
from nic_helpers.codecs.base import Images
from nic_helpers.objectives import Joint, Together


@dataclass(frozen=True, kw_only=True)
class SRDA(Iterative):
    """Specific-ratio rate–distortion attack (Wu et al. 2024, arXiv 2405.07717): in a ball of root mean square eps.

    Raises :class:`~nic_helpers.objectives.Joint` at ``angle`` (degrees; 0 rate, 90 distortion) unless an objective is
    given. The first step reaches the ball's surface, shorter ones follow on it, so that strengths are compared at the same
    size; one phase, where the paper has two. ``optimiser``: "adam", the paper's, element by element, or "steepest" (default),
    along the gradient itself. Adam gives every pixel the same step, whatever it is worth, and an RMS ball rewards the opposite:
    at equal cost it can find less than half of what steepest ascent finds (notebook 05).
    """

    norm: str = "l2rms"
    angle: float = 90.0
    steps: int = 30
    optimiser: str = "steepest"

    def __post_init__(self):
        super().__post_init__()
        if self.optimiser not in ("steepest", "adam"):
            raise ValueError(f'optimiser must be "steepest" or "adam", got {self.optimiser!r}')
        Joint.at(self.angle)  # which checks it

    def _default_objective(self):
        return Joint.at(self.angle)

    def _run(self, p):
        direction = None
        if self.optimiser == "adam":
            adam = Adam(p.x)
            direction = lambda gradient, x_adv: adam.direction(gradient)  # noqa: E731
        return ascend(p, p.x, self.step_sizes, self._first_gradient_at(p), direction=direction)


@dataclass(frozen=True, kw_only=True)
class ARDA(SRDA):
    """Agnostic-ratio rate–distortion attack (Wu et al. 2024, arXiv 2405.07717): one image against a list of codecs, such
    as all qualities of one.

    SRDA on the soft minimum of the effects on each codec (:class:`~nic_helpers.objectives.Together`), whose gradient
    gives most weight to the codecs that suffer least so far; ``temperature``: how sharply (0 < T; the paper's value is
    not known to us; at 1 it is the plain mean in all but name, see notebook 06).
    """

    temperature: float = 0.01

    def __call__(self, codec, x: Images, objective=None) -> AttackResult:
        """As of every attack; one codec is a list of one."""
        return super().__call__(codec if isinstance(codec, Sequence) else [codec], x, objective)

    def _default_objective(self):
        return Together(Joint.at(self.angle), self.temperature)

    def __post_init__(self):
        super().__post_init__()
        Together(Joint(0, 1), self.temperature)  # which checks it


@dataclass(frozen=True, kw_only=True)
class FTDA(Attack):
    """Fast threshold-constrained distortion attack (Chen & Ma 2023, arXiv 2112.08691).

    Adam on δ, clipped to ±``clip``: a step raises the objective where the root mean square of δ is within eps, and
    lowers the mean square of δ where it is not. The published code: eps = 0.01 (a mean square of 1e-4), lr 0.01 for the
    first step and then 0.0033, 0.0011, 0.00036 by thirds of 1001 steps, no rounding. Here ``lr`` holds for a whole third, and
    iterates are judged and kept as the 8-bit images inside the ball that they stand for. ``lr`` and ``clip`` are on [0, 1].
    """

    norm: str = "l2rms"
    steps: int = 100
    lr: float = 0.01
    clip: float = 16 / 255

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("steps")
        self._check_positive("lr", "clip")

    def _run(self, p):
        x_adv = self._first_gradient_at(p) if p.flat_at_source else p.x
        adam = Adam(p.x)
        for step in range(self.steps):
            _, gradient = p.climb(x_adv, step)
            delta = x_adv - p.x
            inside = p.budget.size(delta) <= self.eps
            back = -2 * delta / delta[0].numel()
            lr = self.lr * 0.33 ** (3 * step // self.steps)
            step_direction = adam.direction(torch.where(inside[:, None, None, None], gradient, back))
            delta = (delta + lr * step_direction).clamp(-self.clip, self.clip)
            x_adv = (p.x + delta).clamp(0, 1)
        return p.offer(p.budget.project(x_adv, p.x))
