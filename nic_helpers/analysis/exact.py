"""The worst that any change of the picture can do to a codec that is linear but for its rounding: no attack is needed to know it.

The basis is orthonormal, so a change costs, in the picture's square error, what it moves the coefficients, and brings what the *rounded*
coefficients move. For each coefficient alone the cheapest way to each number of steps is known. What is left is a knapsack: which
coefficients to buy with the budget. Its Lagrangian relaxation is an upper bound, and is met but for one coefficient's worth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nic_helpers.budgets import L2rms
from nic_helpers.codecs.base import own_precision
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.codecs.quantisers import round_true


@torch.no_grad()
@own_precision()
def worst_case(codec: LinearCodec, x: Tensor, eps: float) -> Tensor:
    """An upper bound [B], on [0, 1], of the root mean square of C(x') − C(x) over all x' whose root mean square from x [B, 3, H, W] is at
    most ``eps``.

    The bounds of [0, 1] and the 8-bit grid, which can only make an attack weaker, are left out. TypeError for another codec; ValueError
    for sides that are no multiples of 8 (a padded pixel would count several times), and for an eps outside (0, 1].
    """
    if not isinstance(codec, LinearCodec):
        raise TypeError(f"{codec!r} is not linear: only an attack can say what it does at worst")
    L2rms(eps)
    if x.size(2) % 8 or x.size(3) % 8:
        raise ValueError(f"sides must be multiples of 8, got {x.size(2)}×{x.size(3)}")
    samples, step = x[0].numel(), codec.quality / 255
    bounds = []
    for image in x:
        y = codec.analysis(image[None]).flatten()
        near = 0.5 - (y - round_true(y)).abs()  # steps to the nearest rounding boundary
        budget = samples * (eps / step) ** 2  # in steps², as everything here
        bounds.append(step * (_knapsack(near, budget) / samples) ** 0.5)
    return torch.tensor(bounds, dtype=torch.float64)


def _knapsack(near: Tensor, budget: float) -> float:
    """The least, over prices λ > 1, of Σ max over k of (k² − λ·(near + k − 1)²) + λ·budget: no choice brings more."""

    def value(price: float) -> float:
        return float(_best(near, price).sum()) + price * budget

    low, high = 1e-6, 1e6  # of λ − 1; the sum is convex in λ
    for _ in range(80):
        a, b = low * (high / low) ** 0.382, low * (high / low) ** 0.618
        low, high = (low, b) if value(1 + a) <= value(1 + b) else (a, high)
    return value(1 + (low * high) ** 0.5)


def _best(near: Tensor, price: float) -> Tensor:
    """What each coefficient brings at most, less its price: k steps bring k² and cost (near + k − 1)²; none bring nothing."""
    # k² − λ(k − 1 + d)² is concave in k (λ > 1), with its top at λ(1 − d)/(λ − 1)
    top = price * (1 - near) / (price - 1)
    found = torch.zeros_like(near)
    for k in (top.floor().clamp_min(1), top.ceil().clamp_min(1)):
        found = torch.maximum(found, k.square() - price * (near + k - 1).square())
    return found
