"""Auto-PGD, which chooses its own steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nic_helpers.attacks.base import Attack


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
        p.begin(x_adv)
        size = x_adv.new_full((len(x_adv), 1, 1, 1), 2 * self.eps)
        values, gradient = p.climb(x_adv)
        best_gradient = gradient
        improved = torch.zeros_like(values)
        best_before, halved_before, last = values, torch.zeros_like(values, dtype=torch.bool), 0
        for step in range(1, self.steps + 1):
            stepped = p.budget.project(x_adv + size * p.budget.steepest(gradient), p.x)
            weight = 1.0 if step == 1 else 0.75
            moved = x_adv + weight * (stepped - x_adv) + (1 - weight) * (x_adv - previous)
            previous, x_adv = x_adv, p.budget.project(moved, p.x)
            if step == self.steps:  # the last iterate needs no gradient
                break
            old_values, old_best = values, p.state.best_value
            values, gradient = p.climb(x_adv)
            best_gradient = torch.where((values > old_best)[:, None, None, None], gradient, best_gradient)
            improved += values > old_values
            if step in self.checkpoints():
                best = p.state.best_value
                stuck = ~halved_before & (best <= best_before)
                halve = (improved < 0.75 * (step - last)) | stuck
                again = halve[:, None, None, None]
                size = torch.where(again, size / 2, size)
                x_adv, previous = (torch.where(again, p.state.best, v) for v in (x_adv, previous))
                gradient = torch.where(again, best_gradient, gradient)
                values = torch.where(halve, best, values)
                best_before, halved_before, last = best, halve, step
                improved = torch.zeros_like(improved)
        return p.offer(x_adv)
