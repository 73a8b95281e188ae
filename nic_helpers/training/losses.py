"""What a run's steps lower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.quantisers import add_noise, round_ste
from nic_helpers.codecs.song2021 import lambda_of, level_of
from nic_helpers.training.adversarial import gradient_penalty, with_samples
from nic_helpers.training.kinds import Kind, quality_of
from nic_helpers.training.maps import draw_maps
from nic_helpers.training.settings import Settings


def rate_distortion_loss(
    arch: Kind, model: nn.Module, x: Tensor, lmbda: float, amp=None, quantise=add_noise, synthesise=None, quality_map=None
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, bpp, mse): R + λ·255²·MSE, R in bits per pixel, MSE on [0, 1].

    ``quantise`` stands for rounding in the rate; ``synthesise`` (default: the same) in what the synthesis sees. ``quality_map``
    [B, 1, H, W]: what the sender is asked for instead of λ, with a λ of its own at every pixel.
    """
    coding = arch(model, quality_of(lmbda), amp=amp)
    coding = coding if quality_map is None else coding.with_map(quality_map)
    w = walk(coding, x, quantise, see=synthesise)
    bpp = sum(b.sum() for b in w.bits().values()) / (x.size(0) * x.size(2) * x.size(3))
    mse = F.mse_loss(w.x_hat, x)
    weighed = lmbda * mse if quality_map is None else (lambda_of(quality_map) * (w.x_hat - x).square()).mean()
    return bpp + 255**2 * weighed, bpp, mse


def rate_loss(arch: Kind, model: nn.Module, y: Tensor, side_weight: float = 1.0):
    """(loss, bpp, not a number): the rate alone, of given latents y [B, M, h, w] of pixels 16 times finer.

    ``side_weight``: how much the side information's bits count in the loss. An untrained hyperprior is of no use yet,
    and if its bits cost their full price from the start it learns to send nothing, and stays there.
    """
    w = walk(arch(model), None, add_noise, y=y, synthesis=False)
    bits = {k: b.sum() / (y.size(0) * y.size(2) * y.size(3) * 256) for k, b in w.bits().items()}
    loss = bits["y"] + side_weight * bits.get("z", 0.0)
    return loss, sum(bits.values()), torch.tensor(float("nan"))


def train_step(s: Settings, arch: Kind, model: nn.Module, batch: Tensor, lmbda: float, step: int = 0):
    """(loss, bpp, mse) of one step of a run, ready for ``backward``: on images [B, 3, H, W], or on latents [B, M, h, w]
    where the entropy model learns alone."""
    if s.only:
        return rate_loss(arch, model, batch, min(1.0, (step + 1) / max(1.0, s.side_warmup * s.steps)))
    amp = torch.bfloat16 if s.bf16 else None
    if s.against and s.against != "gradient":
        batch = with_samples(s, arch, model, batch, lmbda)
    quality_map = draw_maps(len(batch), batch.size(2), level_of(lmbda), (s.seed, step)).to(batch) if arch.takes_map else None
    see = round_ste if s.mixed else None
    loss, bpp, mse = rate_distortion_loss(arch, model, batch, lmbda, amp, synthesise=see, quality_map=quality_map)
    if s.against == "gradient":
        loss = loss + s.penalty * gradient_penalty(arch, model, batch, lmbda)
    return loss, bpp, mse
