"""STF's principal components: each linear layer between two resolutions a transform of 2×2 blocks, each one back its inverse.

STF normalises at every change of resolution, and normalising takes away how strong a feature is. So each normalisation is first lifted
into its linear part: the layer before it adds a constant pattern, so large that what is divided by hardly depends on the picture, and the
normalisation's own weight and bias take the pattern away again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nic_helpers.codecs.windows import SwinBlock
from nic_helpers.codecs.zou2022 import StfModel

_LIFT = 4.0  # the pattern's size, in root mean squares of the features
_ROWS = 60_000  # that a fit looks at


@torch.no_grad()
def swin_components(model: StfModel, x: Tensor, gain: float) -> Tensor:
    """Latents of the images x [B, 3, H, W] in [0, 1]: four levels of principal components of 2×2 blocks, times ``gain``.

    The synthesis goes back level by level, each layer fitted by least squares to what the analysis had there, from rounded latents on.
    Attention and perceptrons start small.
    """
    for block in (m for m in model.modules() if isinstance(m, SwinBlock)):
        for layer in (block.attn.proj, block.mlp[-1]):
            layer.weight.mul_(0.1)
            layer.bias.zero_()
    levels = _analysis(model.g_a, x, gain)
    y = model.g_a[-1](levels.pop())
    _synthesis(model.g_s, y.round(), levels, x)
    return y


def _analysis(g_a: nn.Sequential, x: Tensor, gain: float) -> list[Tensor]:
    """Set the layers that halve the resolution; what comes out of each."""
    embed = g_a[0]
    blocks = rows_of(F.pixel_unshuffle(x, 2))
    parts = _room(embed.proj.out_channels) @ components(blocks, embed.proj.out_channels - 2)
    embed.proj.weight.copy_(parts.view_as(embed.proj.weight))
    embed.proj.bias.copy_(-parts @ blocks.mean(0))
    _lift(embed.proj.bias, embed.norm, embed.proj(x))
    levels = [embed(x)]
    for stage, merge in zip(g_a[1::2], g_a[2::2], strict=False):
        v = stage(levels[-1])
        _lift(stage[-1].mlp[-1].bias, merge.norm, v)
        v, count = stage(levels[-1]), merge.reduction.out_features
        seen = _seen(merge, v)
        last = merge is g_a[-2]  # after which nothing is normalised: all channels are free
        merge.reduction.weight.copy_(gain * components(seen, count) if last else _room(count) @ components(seen, count - 2))
        levels.append(merge(v))
    return levels


def _synthesis(g_s: nn.Sequential, v: Tensor, levels: list[Tensor], x: Tensor) -> None:
    """Fit the layers that double the resolution to the analysis's ``levels``, and the last two to the images."""
    for stage, split, target in zip(g_s[0:6:2], g_s[1:6:2], reversed(levels), strict=True):
        _lift(stage[-1].mlp[-1].bias, split.norm, stage(v))
        v = stage(v)
        split.reduction.weight.copy_(_fit(_seen(split, v), rows_of(F.pixel_unshuffle(target, 2))))
        v = split(v)
    *_, stage, wide, _, narrow = g_s
    around = F.unfold(stage(v), wide.kernel_size, padding=wide.padding)
    around = torch.cat((around, torch.ones_like(around[:, :1])), 1).movedim(1, 2).flatten(0, 1)
    fitted = _fit(around, rows_of(F.pixel_unshuffle(x, 2)))  # its first channels are the picture's 2×2 blocks
    colours = x.size(1)
    for layer in (wide, narrow):
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    wide.weight[: len(fitted)] = fitted[:, :-1].view(-1, *wide.weight.shape[1:])
    wide.bias[: len(fitted)] = fitted[:, -1]
    narrow.weight[:, :colours] = 0
    narrow.weight[range(colours), range(colours), 1, 1] = 1


def _pattern(n: int) -> Tensor:
    """[n] of +1 and −1 in turn, of mean zero: with an odd n the last is 0."""
    signs = torch.ones(n)
    signs[1::2] = -1
    signs[n - n % 2 :] = 0
    return signs


def _room(n: int) -> Tensor:
    """[n, n − 2] orthonormal columns: what a lifted normalisation of n features lets pass, neither their mean nor the pattern."""
    taken = torch.stack((torch.ones(n), _pattern(n)), 1)
    return torch.linalg.qr(torch.cat((taken, torch.eye(n)[:, : n - 2]), 1).double())[0][:, 2:].float()


def _lift(bias: Tensor, norm: nn.LayerNorm, v: Tensor) -> None:
    """Add the pattern to the bias of the layer that gives features v [B, n, h, w]; ``norm`` [n, or four times n] takes it away."""
    pattern = _LIFT * v.square().mean().sqrt() * _pattern(len(bias))
    bias.add_(pattern)
    norm.weight.fill_(pattern.square().mean().sqrt())
    norm.bias.copy_(-pattern.repeat(len(norm.bias) // len(pattern)))


def rows_of(v: Tensor) -> Tensor:
    """[B, C, h, w] as [B·h·w, C]."""
    return v.movedim(1, 3).flatten(0, 2)


def _seen(layer: nn.Module, v: Tensor) -> Tensor:
    """[positions, features] that the linear map of a layer that changes the resolution is given, for v [B, C, h, w]."""
    inputs = []
    with layer.reduction.register_forward_pre_hook(lambda _, given: inputs.append(given[0].flatten(0, -2))):
        layer(v)
    return inputs[0]


def components(rows: Tensor, count: int) -> Tensor:
    """[count, features]: the principal components of rows [positions, features], the largest first."""
    return torch.linalg.eigh(torch.cov(rows.double().T))[1][:, -count:].flip(1).T.float()


def _fit(rows: Tensor, targets: Tensor) -> Tensor:
    """[outputs, features]: the linear map from rows to targets with the least squared error, a little shrunk."""
    a, b = (t[:: max(1, len(t) // _ROWS)].double() for t in (rows, targets))
    gram = a.T @ a
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, a.T @ b).T.float()
