"""A black-box attack: it asks for values only, so it shows where gradients mislead, and works on every codec."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nic_helpers.attacks.base import Attack
from nic_helpers.attacks.loop import generator

#: After this many of 10 000 queries the share of the image that a square covers is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack (Andriushchenko 2020, arXiv 1912.00049) in the L∞ ball: from vertical stripes of ±eps, a random square
    at a time is set to ±eps in each channel, and kept where it raises the objective.

    ``queries``: forward passes; ``share``: of the image that the first squares cover, halved on the paper's schedule.
    """

    queries: int = 500
    share: float = 0.8

    needs_gradient = False

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("queries")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share!r}")
        if self.norm != "linf":
            raise ValueError("Square works in the L∞ ball: norm='linf'")

    def side(self, query: int, height: int, width: int) -> int:
        """Side of the square that a query changes, in pixels."""
        passed = sum(query >= h * self.queries / 10_000 for h in HALVINGS)
        return max(1, min(height, width, round((self.share * 0.5**passed * height * width) ** 0.5)))

    def _run(self, p):
        height, width = p.x.shape[2:]
        draws = [generator(image, self.seed) for image in p.x]
        stripes = [_signs((3, 1, width), g).expand(3, height, width) for g in draws]
        x_adv = p.budget.project(p.x + self.eps * torch.stack(stripes).to(p.x), p.x)
        p.begin(x_adv)
        p.offer(x_adv)
        for query in range(1, self.queries):
            side, x_adv = self.side(query, height, width), p.state.best.clone()
            for k, g in enumerate(draws):
                top, left = (int(torch.randint(0, n - side + 1, (1,), generator=g)) for n in (height, width))
                window = (k, slice(None), slice(top, top + side), slice(left, left + side))
                x_adv[window] = p.x[window] + self.eps * _signs((3, 1, 1), g).to(p.x)
            p.offer(p.budget.project(x_adv, p.x))
        return p.state


def _signs(shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=g) * 2.0 - 1
