"""Where in the picture an attack costs bits, and where quality."""

from __future__ import annotations

import torch
from torch import Tensor

from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.neural import NeuralCodec


@torch.no_grad()
def bit_map(codec: Codec, x: Tensor) -> Tensor:
    """Estimated bits of the latents on each patch of 16×16 pixels, [B, ⌈H/16⌉, ⌈W/16⌉], of images x [B, 3, H, W]; the side information's
    are not in it. TypeError for a codec without an entropy model to look into."""
    if not isinstance(codec, NeuralCodec):
        raise TypeError(f"{codec!r} has no entropy model to look into: give a learned codec")
    rows, columns = (-(-side // 16) for side in x.shape[2:])
    return -torch.log2(codec.walk(x, None, synthesis=False).likelihoods["y"]).sum(1)[:, :rows, :columns]


def rate_change(codec: Codec, x: Tensor, x_adv: Tensor) -> Tensor:
    """Bits that the attack costs on each patch of 16×16 pixels, [B, ⌈H/16⌉, ⌈W/16⌉]."""
    return bit_map(codec, x_adv) - bit_map(codec, x)


@torch.no_grad()
def error_change(codec: Codec, x: Tensor, x_adv: Tensor) -> Tensor:
    """By how much the codec's squared error grows at each pixel, mean over the colours, [B, H, W]: C(x') to x', less C(x) to x."""
    return (codec.reconstruct(x_adv) - x_adv).square().mean(1) - (codec.reconstruct(x) - x).square().mean(1)
