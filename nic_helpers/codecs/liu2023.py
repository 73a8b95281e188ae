"""Liu's architecture: in each block half of the channels go through convolutions, half through window attention; the channel-wise
entropy model sees its inputs through window attention, too."""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from compressai.layers import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv1x1,
    conv3x3,
    subpel_conv3x3,
)
from torch import Tensor, nn

from nic_helpers.codecs.authors import renamed
from nic_helpers.codecs.slices import SliceModel, Slices, hidden_widths
from nic_helpers.codecs.windows import SwinBlock, at_positions, swin_pair

_SHARES = (224, 128)  # of the predicting networks' hidden layers, as published


def _heads(channels: int, wide: int) -> int:
    """Heads of attention ``wide`` channels wide, at least one."""
    return max(1, channels // wide)


class MixedBlock(nn.Module):
    """2N channels, mixed: half go through a residual block, half through a Swin block, and both are mixed again and added."""

    def __init__(self, n: int, head: int, window: int, shift: int):
        super().__init__()
        self.conv1_1, self.conv1_2 = (nn.Conv2d(2 * n, 2 * n, 1) for _ in range(2))
        self.conv_block, self.trans_block = ResidualBlock(n, n), SwinBlock(n, _heads(n, head), window, shift)

    def forward(self, v: Tensor) -> Tensor:
        """[B, 2n, h, w] to the same."""
        local, wide = self.conv1_1(v).chunk(2, 1)
        local = local + self.conv_block(local)  # though the block itself adds its input
        return v + self.conv1_2(torch.cat((local, at_positions(self.trans_block, wide)), 1))


def _mixed(n: int, head: int, window: int = 8) -> tuple[MixedBlock, MixedBlock]:
    """Two of them, the second with shifted windows."""
    return MixedBlock(n, head, window, 0), MixedBlock(n, head, window, window // 2)


class SqueezedAttention(AttentionBlock):
    """CompressAI's gated residual branch on ``inner`` channels, its gate behind two Swin blocks; 1×1 convolutions lead in and out."""

    def __init__(self, channels: int, inner: int):
        super().__init__(inner)
        self.in_conv, self.out_conv = conv1x1(channels, inner), conv1x1(inner, channels)
        self.non_local_block = swin_pair(inner, _heads(inner, 16), 8)

    def forward(self, v: Tensor) -> Tensor:
        """[B, channels, h, w] to the same."""
        v = self.in_conv(v)
        gate = torch.sigmoid(self.conv_b(at_positions(self.non_local_block, v)))
        return self.out_conv(v + self.conv_a(v) * gate)


def _attention(channels: int, inner: int) -> nn.Sequential:
    return nn.Sequential(SqueezedAttention(channels, inner))


class TcmModel(SliceModel):
    """``n``: half of the transforms' channels, as in the authors' code (the paper's number is 2N); ``m``: latents, in ``slices``
    slices, each predicted from all before it; ``z``: side information; ``p``: of the predicting networks' first hidden layer;
    ``inner``: of the attention before those networks."""

    def __init__(self, n: int, m: int, z: int, slices: int, p: int, inner: int):
        attention = functools.partial(_attention, inner=inner)
        super().__init__(m, z, slices, hidden_widths(_SHARES, p, m // slices), slices, attention)
        down, up = ResidualBlockWithStride, ResidualBlockUpsample
        self.g_a = nn.Sequential(
            *(down(3, 2 * n), *_mixed(n, 8), down(2 * n, 2 * n), *_mixed(n, 16)),
            *(down(2 * n, 2 * n), *_mixed(n, 32), conv3x3(2 * n, m, stride=2)),
        )
        self.g_s = nn.Sequential(
            *(up(m, 2 * n, 2), *_mixed(n, 32), up(2 * n, 2 * n, 2), *_mixed(n, 16)),
            *(up(2 * n, 2 * n, 2), *_mixed(n, 8), subpel_conv3x3(2 * n, 3, 2)),
        )
        self.h_a = nn.Sequential(down(m, 2 * n), *_mixed(n, 32, 4), conv3x3(2 * n, z, stride=2))
        self.h_mean_s, self.h_scale_s = (
            nn.Sequential(up(z, 2 * n, 2), *_mixed(n, 32, 4), subpel_conv3x3(2 * n, m, 2)) for _ in range(2)
        )


class Tcm(Slices):
    """Transformer–CNN mixtures (TCM). The stride of 128 makes every window whole, as in the authors' code."""

    name, module = "liu2023", TcmModel
    paper = (
        "Liu et al., Learned image compression with mixed transformer-CNN architectures, CVPR 2023, arXiv 2303.14978 "
        "(specification and published shapes: the authors' repository jmliu206/LIC_TCM, MIT)"
    )
    qualities = tuple(range(1, 7))
    width_names = ("N", "M", "Z", "slices", "P", "inner")
    latent_gain = "g_a.9"
    published_widths: ClassVar = dict.fromkeys(range(1, 7), (64, 320, 192, 5, 224, 128))
    authors_lambdas: ClassVar = {1: 0.0025, 2: 0.0035, 3: 0.0067, 4: 0.013, 5: 0.025, 6: 0.05}
    authors_widths = ((128, 320, 192, 5, 224, 128),)
    stride: ClassVar[int] = 128
    channels_last = False
    activations = 280.0
    memory = (103.0, 27.0)
    _names: ClassVar = (
        *((r"\.ln([12])\.", r".norm\1."), (r"\.msa\.embedding_layer\.", ".attn.qkv."), (r"\.msa\.linear\.", ".attn.proj.")),
        (r"\.msa\.relative_position_params$", ".attn.relative_position_bias_table"),
        *((r"\.block_1\.", ".0."), (r"\.block_2\.", ".1.")),
    )

    @classmethod
    def widths_of(cls, state):
        """N, M, Z, slices, P, inner."""
        n, m, z = (state[f"{k}.weight"].size(0) for k in ("g_a.0.conv1", "g_a.9", "h_a.3"))
        return n // 2, m, z, *cls.slices_of(state), state["atten_mean.0.0.in_conv.weight"].size(0)

    @classmethod
    def from_authors(cls, state):
        """Swin blocks under this package's names; biases of offsets, [heads, rows, columns] there, are [rows·columns, heads]."""
        tables = {k: v.permute(1, 2, 0).flatten(0, 1) for k, v in state.items() if k.endswith("relative_position_params")}
        return renamed(state | tables, cls._names)
