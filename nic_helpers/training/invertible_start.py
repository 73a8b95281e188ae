"""Cai's principal components: each level's rotation the full principal-component transform of its input, which loses nothing, and the
latents' the largest of 16×16 pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.cai2022 import IAT, CaiModel, level_of
from nic_helpers.training.swin_start import components, rows_of


@torch.no_grad()
def invertible_components(model: CaiModel, x: Tensor, gain: float, lmbda: float) -> None:
    """Set the rotations from the images x [B, 3, H, W] in [0, 1], and the affine maps.

    Couplings do nothing at first (see their own weights), corrections of the picture little. Features are centred at every level.
    Latents are orthonormal components, times ``gain`` at λ, growing with the quality's level towards what √λ would give.
    """
    for correction in (model.g_a[0], model.g_s[-1]):
        for p in correction.layers[-1].conv5.parameters():
            p.mul_(0.01)
    low, high = (gain * math.sqrt(LAMBDAS[q] / lmbda) for q in (1, 6))
    slope = (high - low) / (level_of(LAMBDAS[6]) - level_of(LAMBDAS[1]))
    start = max(low - slope * level_of(LAMBDAS[1]), 0.25 * low)  # at level 0
    v = x
    for level in model.g_a[1:]:
        squeeze, rotation = level.operations[:2]
        v = squeeze(v)
        parts = components(rows_of(v), v.size(1))
        rotation.weight.copy_(_in_groups(parts, level.groups))
        v = rotation(v)
        if level.groups == 1:
            _scale_by_level(level.affine, 1.0, 0.0, mean := v.mean((0, 2, 3)))
            v = v - mean[:, None, None]
        else:
            v = v.unflatten(1, (level.groups, -1)).mean(1)
            of_mean = math.sqrt(level.groups)
            _scale_by_level(level.affine, of_mean * start, of_mean * slope, v.mean((0, 2, 3)))


def _in_groups(parts: Tensor, groups: int) -> Tensor:
    """The same components, rotated so that the means of ``groups`` groups of channels are the largest ones, over √groups."""
    square = torch.cat((torch.ones(groups, 1), torch.eye(groups)[:, : groups - 1]), 1).double()
    mixed = torch.linalg.qr(square)[0].float()
    mixed *= mixed[0, 0].sign()
    return torch.einsum("gj,jmc->gmc", mixed, parts.view(groups, -1, parts.size(1))).flatten(0, 1)


def _scale_by_level(affine: IAT, start: float, slope: float, mean: Tensor) -> None:
    """Make the map (v − mean)·(start + slope·level); its first channel inside carries the level, the others start small."""
    for layer in (affine.mlp_shared[0], affine.mlp_shared[2], affine.mlp_gamma[0], affine.mlp_beta[0]):
        layer.weight[0] = 0
        layer.weight[0, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
        layer.bias[0] = 0
    for last, by, at_0 in (
        (affine.mlp_gamma[-1], torch.full_like(mean, slope), torch.full_like(mean, start - 1)),
        (affine.mlp_beta[-1], -slope * mean, -start * mean),
    ):
        last.weight.mul_(0.01)
        last.weight[:, 0] = by[:, None, None]
        last.bias.copy_(at_0)
