"""A new hyperprior that first learns to give an older one's side information."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from nic_helpers.training.data import Latents
from nic_helpers.training.export import read_run
from nic_helpers.training.settings import Settings
from nic_helpers.training.warmstart import begin_from_scales


def imitate_hyperprior(s: Settings, model: nn.Module, latents: Latents, lr: float = 2e-3) -> None:
    """Start mbt2018-mean's hyperprior from the scale hyperprior that ``s.start`` holds: its bottleneck, its scales, and
    an analysis that learns to give its z.

    That z is made of |y|, which the mean-scale codec's analysis must do without: from random weights it hardly uses its
    side information, and stays there. The start must be on the same transforms (``only="entropy"``).
    """
    name, old, lmbda = read_run(Path(s.start))
    if name != "bmshj2018-hyperprior" or lmbda != s.lmbda:
        raise ValueError(f"imitate needs a bmshj2018-hyperprior of the same λ to begin from, {s.start} is {name}, λ = {lmbda}")
    begin_from_scales(old, model)
    optimiser = torch.optim.Adam(model.h_a.parameters(), lr=lr)
    for step in range(s.imitate):
        y = latents.batch(16, 10**8 + step)
        with torch.no_grad():
            wanted = old.h_a(y.abs())
        error = (model.h_a(y) - wanted).square().mean((0, 2, 3)) / wanted.var((0, 2, 3)).clamp_min(0.05)
        for group in optimiser.param_groups:
            group["lr"] = lr * (0.01 + 0.99 * (1 - step / s.imitate))
        optimiser.zero_grad(set_to_none=True)
        error.mean().backward()
        optimiser.step()
