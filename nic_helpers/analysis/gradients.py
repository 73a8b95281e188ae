"""Can an attack's result be trusted? The usual ways in which gradients mislead, looked for one by one and named."""

from __future__ import annotations

import math
import warnings

import pandas as pd
import torch
from torch import Tensor

from nic_helpers.attacks.base import Attack
from nic_helpers.attacks.loop import uniform_noise
from nic_helpers.attacks.noise import RandomNoise
from nic_helpers.attacks.sign import PGD
from nic_helpers.attacks.square import Square
from nic_helpers.budgets import BUDGETS
from nic_helpers.codecs.base import check_codec, gradients_possible, own_precision
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion

#: What each finding means, and what to do about it.
MEANINGS = {
    "randomised": "Two calls on one image give different outputs, so a gradient is that of one draw: attack several draws at "
    "once with attacks.eot, and report means over draws.",
    "not differentiable": "The codec has no gradient: attack it with attacks.Square, or through attacks.BPDA(codec).",
    "no finite gradient": "The gradient of an image is infinite or not a number, and the attack gives that image up: look for "
    "a division by zero or a root of zero in the objective or the codec.",
    "zero gradient": "Most samples of an image have a gradient of exactly zero, so the attack has nothing to climb: choose "
    'another surrogate ("auto" takes the objective\'s own).',
    "no better than noise": "The attack gains no more than random signs of the same size: its gradient says nothing about "
    "the objective, and its result nothing about robustness.",
    "masked": "A blind search beats the attack inside the same budget, so its gradients mislead: the codec is weaker than this "
    'attack shows. Use another surrogate ("auto"), more steps or a larger alpha, and report the stronger of the two.',
}


def randomness(codec, x: Tensor, calls: int = 3) -> float:
    """The largest difference, in 8-bit levels, between the outputs of ``calls`` calls on the same x [B, 3, H, W]."""
    outputs = torch.stack([to_8bit(codec.reconstruct(x)) for _ in range(calls)])
    return 255 * float((outputs.amax(0) - outputs.amin(0)).max())


@gradients_possible()
@own_precision()
def gradient_near(codec, x: Tensor, objective=None, attack: Attack | None = None) -> Tensor | None:
    """The gradient [B, 3, H, W] that ``attack`` would climb, at a random point of its ball around x; None where the
    objective has none through this codec."""
    objective, attack = objective or Distortion(), attack or PGD(8 / 255)
    surrogate = attack.surrogates(objective)[0]
    source = to_8bit(x.detach()).to(codec.device, torch.float32)
    budget = BUDGETS[attack.norm](attack.eps)
    point = budget.project(source + budget.offset(uniform_noise(source, attack.seed)), source)
    point = budget.to_8bit(point, source).requires_grad_(True)
    with torch.enable_grad():
        values = objective.bind(codec, source, surrogate)(point)
        return torch.autograd.grad(values.sum(), point)[0].to(x.device) if values.requires_grad else None


def gains(attacks: list[Attack], codec, x: Tensor, objective=None) -> list[float]:
    """What each attack adds to the objective, with true rounding, mean over the images; −∞ where it found nothing."""
    objective = objective or Distortion()
    source = to_8bit(x.detach()).to(codec.device, torch.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient is not finite")  # a finding of its own
        results = [a(codec, x, objective).x_adv.to(source) for a in attacks]
    with torch.no_grad():
        value = objective.bind(codec, source, None)
        found = [value(x_adv) - value(source) for x_adv in results]
    return [float(f.nan_to_num(nan=-math.inf).mean()) for f in found]


def check_gradient(codec, x: Tensor, objective=None, *, attack: Attack | None = None, queries: int = 200) -> pd.DataFrame:
    """Whether a white-box attack on one codec can be trusted: one row per check, with what was found.

    ``x`` [B, 3, H, W] in [0, 1], a few small crops: most of the time goes to ``queries`` forward passes. ``objective``:
    default the distortion to the clean reconstruction. ``attack``: the one in question, default ``PGD(8/255)``; the
    blind search and the noise beside it have its budget (L∞).

    Columns: ``check``, ``found`` (True: a problem; False; None: not looked at, as it makes no sense here), ``value``
    (below) and ``meaning``, empty unless found. Rows and values: *randomised* (largest difference between two outputs, in
    8-bit levels), *not differentiable* (0 or 1), *no finite gradient* (share of images), *zero gradient* (share of samples
    in the worst image; a problem above a half), *no better than noise* and *masked* (gain of sign noise, and of
    :class:`~nic_helpers.square.Square`, over the attack's; a problem from 1 up, and above 1). An attack that gains nothing
    has the ratio ∞.
    """
    check_codec(codec)
    attack = attack or PGD(8 / 255)
    if attack.norm != "linf":
        raise ValueError(f"the blind search works in the L∞ ball: give an attack with norm='linf', not {attack.norm!r}")
    values = dict.fromkeys(MEANINGS)
    values["randomised"] = randomness(codec, x)
    gradient = gradient_near(codec, x, objective, attack) if codec.differentiable else None
    values["not differentiable"] = float(gradient is None)
    if gradient is not None:
        finite = gradient.isfinite().flatten(1).all(1)
        values["no finite gradient"] = float((~finite).double().mean())
        values["zero gradient"] = float((gradient == 0).flatten(1).double().mean(1).max())
        noise = RandomNoise(attack.eps, seed=attack.seed, kind="sign")
        blind = Square(attack.eps, seed=attack.seed, queries=queries)
        own, of_noise, of_blind = gains([attack, noise, blind], codec, x, objective)
        values["no better than noise"] = of_noise / own if own > 0 else math.inf
        values["masked"] = of_blind / own if own > 0 else math.inf
    limits = {"zero gradient": 0.5, "masked": 1.0}
    found = {k: None if v is None else v > limits.get(k, 0.0) for k, v in values.items()}
    if values["no better than noise"] is not None:
        found["no better than noise"] = values["no better than noise"] >= 1
    return pd.DataFrame(
        {
            "check": k,
            "found": found[k],
            "value": math.nan if v is None else v,
            "meaning": MEANINGS[k] if found[k] else "",
        }
        for k, v in values.items()
    )
