"""Attention among the positions of a window (Liu et al., Swin transformer, ICCV 2021), as the codecs of Zou 2022 and Liu 2023 have it.

Values equal torchvision's Swin blocks where both shift. Where a side has no more than one window, torchvision does not shift;
the codecs' authors do, and so does this file. Features are [B, h, w, C] here: :func:`at_positions` is the way in and out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OTHER_REGION = -100.0  # added to the score of positions that only the cyclic shift has brought together


def at_positions(layer: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """A layer of [B, h, w, C] on v [B, C, h, w]; contiguous, as convolutions would else change their layout."""
    return layer(v.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows of ``window``² positions, of a grid moved by ``shift``.

    To each score comes a learnt bias of the offset between the two positions. Sides that are no multiple of the window are padded
    with zeros at the end, and cropped.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads of attention: choose a multiple")
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        at = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # [window², 2]
        rows, columns = (at[:, None] - at[None] + window - 1).unbind(2)
        self.register_buffer("relative_position_index", rows * (2 * window - 1) + columns, persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        """[B, h, w, C] to the same."""
        height, width = v.shape[1:3]
        size, shift = self.window, self.shift
        v = F.pad(v, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = v.size(1) // size, v.size(2) // size
        if shift:
            v = v.roll((-shift, -shift), (1, 2))
        v = v.unflatten(2, (columns, size)).unflatten(1, (rows, size)).transpose(2, 3)  # [B, rows, columns, size, size, C]
        v = self._attend(v.flatten(3, 4), self._mask(rows, columns, v) if shift else None)
        v = v.unflatten(3, (size, size)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if shift:
            v = v.roll((shift, shift), (1, 2))
        return v[:, :height, :width]

    def _attend(self, v: Tensor, mask: Tensor | None) -> Tensor:
        """v [B, rows, columns, window², C]; the mask [rows, columns, 1, window², window²] is added to the scores."""
        q, k, values = (
            self.qkv(v).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        )  # [..., heads, window², C/heads]
        scores = (q * q.size(-1) ** -0.5) @ k.transpose(-1, -2) + self.relative_position_bias_table[
            self.relative_position_index
        ].movedim(2, 0)
        scores = scores if mask is None else scores + mask
        return self.proj((scores.softmax(-1) @ values).transpose(-2, -3).flatten(-2))

    def _mask(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """What keeps positions apart that lie in one window only since the shift went around the edge."""

        def stretches(count: int) -> Tensor:  # of one side: 0, 1 in the last window, 2 what came around; [count, window]
            at = torch.arange(count * self.window, device=like.device)
            last = (at >= (count - 1) * self.window).long() + (at >= count * self.window - self.shift)
            return last.view(count, self.window)

        region = 3 * stretches(rows)[:, None, :, None] + stretches(columns)[None, :, None, :]
        region = region.flatten(2)  # [rows, columns, window²]
        apart = region[..., None] != region[..., None, :]
        return apart[:, :, None].to(like.dtype) * _OTHER_REGION


class SwinBlock(nn.Module):
    """Attention and a perceptron of one hidden layer, each on normalised features and each added to what came in."""

    def __init__(self, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, v: Tensor) -> Tensor:
        """[B, h, w, C] to the same."""
        v = v + self.attn(self.norm1(v))
        return v + self.mlp(self.norm2(v))


def swin_pair(channels: int, heads: int, window: int) -> nn.Sequential:
    """Two blocks, of which the second's windows are moved by half a window."""
    return nn.Sequential(*(SwinBlock(channels, heads, window, shift) for shift in (0, window // 2)))
