"""Adversarial training: half of every batch is attacked, on the model as it stands, before the step is taken.

After Wu et al. 2024 (arXiv 2405.07717), who train on clean images and on samples of SRDA, and Zhu et al. 2024 (arXiv 2401.10345), who
train on samples of a distortion attack. What an attacked image is to become is itself, as for any other input.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.quantisers import add_noise, identity, round_ste, round_true
from nic_helpers.training.kinds import Kind, quality_of
from nic_helpers.training.settings import Settings

#: What the samples raise, as the range from which each image's angle in the plane of rate (0°) and own distortion (90°) is drawn.
ANGLES = {"rate": (0.0, 0.0), "distortion": (90.0, 90.0), "joint": (-45.0, 135.0)}
_SURROGATES = (round_ste, add_noise, identity)  # a step's samples climb with one of them: none is then masked from the attacker


def with_samples(s: Settings, arch: Kind, model: nn.Module, x: Tensor, lmbda: float) -> Tensor:
    """The batch [B, 3, H, W] with its second half attacked; at least one image is (all torch's default generator decides)."""
    kept = len(x) // 2
    return torch.cat((x[:kept], samples(s, arch, model, x[kept:], lmbda)))


def samples(s: Settings, arch: Kind, model: nn.Module, x: Tensor, lmbda: float) -> Tensor:
    """Attacked, 8-bit versions of images [B, 3, H, W].

    Each has a budget of its own, uniform up to ``s.eps``, in the box or in the ball of that root mean square (row by row in
    turn), a random start in it, and ``s.attack_steps`` steps of twice the budget together.
    """
    budget = s.eps * torch.rand(len(x), 1, 1, 1, device=x.device)
    ball = ((torch.arange(len(x), device=x.device) + int(torch.randint(2, ()))) % 2 == 1).view(-1, 1, 1, 1)
    value = _objective(s, arch, model, x, lmbda)
    delta = _within((torch.rand_like(x) - 0.5) * budget, budget, ball)
    for _ in range(s.attack_steps):
        x_adv = (x + delta).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(value(x_adv).sum(), x_adv)
        unit = torch.where(ball, gradient / _rms(gradient), gradient.sign())
        delta = _within(x_adv.detach() + 2 * budget / s.attack_steps * unit - x, budget, ball)
    return torch.round((x + delta).clamp(0, 1) * 255) / 255


def _objective(s: Settings, arch: Kind, model: nn.Module, x: Tensor, lmbda: float):
    """What samples raise: a function of images [B, 3, H, W], a value for each."""
    surrogate = _SURROGATES[int(torch.randint(len(_SURROGATES), ()))]
    coded = arch(model, quality_of(lmbda), amp=torch.bfloat16 if s.bf16 else None)
    if s.against == "ftda":  # the distance from what the clean image is decoded to (Chen & Ma 2023)
        with torch.no_grad():
            target = walk(coded, x, round_true, rate=False).x_hat.clamp(0, 1)
        return lambda x_adv: _mse(walk(coded, x_adv, identity, rate=False).x_hat.clamp(0, 1), target)
    low, high = ANGLES[s.against]
    angle = torch.deg2rad(low + (high - low) * torch.rand(len(x), device=x.device))

    def joint(x_adv: Tensor) -> Tensor:
        w = walk(coded, x_adv, surrogate, rate=s.against != "distortion")
        bpp = sum(w.bits().values()) / (x.size(2) * x.size(3)) if w.likelihoods else 0.0
        return angle.cos() * bpp + angle.sin() * lmbda * 255**2 * _mse(w.x_hat.clamp(0, 1), x_adv)

    return joint


def gradient_penalty(arch: Kind, model: nn.Module, x: Tensor, lmbda: float) -> Tensor:
    """λ·255²·n·‖∇ₓ D(C(x), x)‖²/4 per image, its mean over the batch x [B, 3, H, W] of n samples each; D is the MSE.

    In the units of the loss's distortion: what the codec's error does to the picture when it is sent back through the codec. Lowering the
    squared norm of D's gradient is the regularisation of arXiv 2403.06700, in our reading; the factor is ours.
    """
    x = x.detach().requires_grad_()
    w = walk(arch(model, quality_of(lmbda)), x, round_ste, rate=False)
    (gradient,) = torch.autograd.grad(F.mse_loss(w.x_hat, x) * len(x), x, create_graph=True)
    return lmbda * 255**2 * x[0].numel() * gradient.pow(2).flatten(1).sum(1).mean() / 4


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).pow(2).mean((1, 2, 3))


def _rms(v: Tensor) -> Tensor:
    return v.pow(2).mean((1, 2, 3), keepdim=True).sqrt().clamp_min(math.ulp(0.0))


def _within(delta: Tensor, budget: Tensor, ball: Tensor) -> Tensor:
    """The perturbation taken back into its budget."""
    return torch.where(ball, delta * (budget / _rms(delta)).clamp(max=1), delta.clamp(-budget, budget))
