"""Zou's two architectures under the channel-wise entropy model: WACNN, convolutions with GDN and gates of window attention; STF, Swin
blocks from the picture to the latents and back, without GDN."""

from __future__ import annotations

from typing import ClassVar

import torch
from compressai.layers import GDN, conv1x1, conv3x3, subpel_conv3x3
from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.authors import renamed
from nic_helpers.codecs.slices import SliceModel, Slices, hidden_widths
from nic_helpers.codecs.windows import SwinBlock, WindowAttention, at_positions

_ZOU = (
    "Zou et al., The devil is in the details: window-based attention for image compression, CVPR 2022, arXiv 2203.08450 "
    "(specification and published shapes: the authors' repository Googolxx/STF, Apache 2.0)"
)
_SHARES = (224, 176, 128, 64)  # of the predicting networks' hidden layers, as published
#: Buffers that are made anew, and a network that only older files hold.
_LEFT_OUT = ((r"\.relative_position_index$", None), (r"^h_s\.", None))


# ---------------------------------------------------------------------------------------------------- the hyperprior
def _between(a: int, b: int) -> list[int]:
    """a … b in four equal steps, rounded."""
    return [round(a + (b - a) * k / 4) for k in range(5)]


def _hyper_analysis(m: int, z: int) -> nn.Sequential:
    """M channels at 1/16 of the picture's sides to Z at 1/64."""
    strides, widths = (1, 1, 2, 1, 2), [m, *_between(m, z)]
    layers = [
        layer
        for a, b, stride in zip(widths, widths[1:], strides, strict=False)
        for layer in (conv3x3(a, b, stride=stride), nn.GELU())
    ]
    return nn.Sequential(*layers[:-1])


def _hyper_synthesis(z: int, widths: list[int], m: int) -> nn.Sequential:
    """Z channels at 1/64 of the picture's sides to M at 1/16, through four hidden layers of the given widths."""
    a, b, c, d = widths
    layers = (conv3x3(z, a), subpel_conv3x3(a, b, 2), conv3x3(b, c), subpel_conv3x3(c, d, 2))
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.GELU())), conv3x3(d, m))


# -------------------------------------------------------------------------------------------------------------- WACNN
class _Unit(nn.Module):
    """A residual bottleneck of half the channels, with GELU."""

    def __init__(self, n: int):
        super().__init__()
        self.conv = nn.Sequential(conv1x1(n, n // 2), nn.GELU(), conv3x3(n // 2, n // 2), nn.GELU(), conv1x1(n // 2, n))
        self.gelu = nn.GELU()

    def forward(self, v: Tensor) -> Tensor:
        """[B, n, h, w] to the same."""
        return self.gelu(v + self.conv(v))


class _Windows(nn.Module):
    """Window attention, added to what came in: no normalisation, no perceptron."""

    def __init__(self, n: int, heads: int, window: int):
        super().__init__()
        self.attn = WindowAttention(n, heads, window, window // 2)

    def forward(self, v: Tensor) -> Tensor:
        """[B, n, h, w] to the same."""
        return v + at_positions(self.attn, v)


class Gate(nn.Module):
    """A residual branch, weighed at each value by a gate that has seen its window."""

    def __init__(self, n: int, window: int, heads: int = 8):
        super().__init__()
        self.conv_a = nn.Sequential(*(_Unit(n) for _ in range(3)))
        self.conv_b = nn.Sequential(_Windows(n, heads, window), *(_Unit(n) for _ in range(3)), conv1x1(n, n))

    def forward(self, v: Tensor) -> Tensor:
        """[B, n, h, w] to the same."""
        return v + self.conv_a(v) * torch.sigmoid(self.conv_b(v))


class WacnnModel(SliceModel):
    """``n``: channels of the transforms; ``m``: latents, in ``slices`` slices; ``z``: side information; ``p``: of the predicting
    networks' first hidden layer. N and M are multiples of 8, the heads of attention."""

    def __init__(self, n: int, m: int, z: int, slices: int, p: int):
        super().__init__(m, z, slices, hidden_widths(_SHARES, p, m // slices), slices // 2)
        self.g_a = nn.Sequential(
            *(conv(3, n), GDN(n), conv(n, n), GDN(n), Gate(n, 8)), *(conv(n, n), GDN(n), conv(n, m), Gate(m, 4))
        )
        self.g_s = nn.Sequential(
            *(Gate(m, 4), deconv(m, n), GDN(n, inverse=True), deconv(n, n), GDN(n, inverse=True)),
            *(Gate(n, 8), deconv(n, n), GDN(n, inverse=True), deconv(n, 3)),
        )
        self.h_a = _hyper_analysis(m, z)
        self.h_mean_s, self.h_scale_s = (_hyper_synthesis(z, _between(z, m)[:4], m) for _ in range(2))


class Wacnn(Slices):
    """Convolutions with GDN, and gates of window attention at a quarter and at a sixteenth of the picture's sides."""

    name, paper, module = "zou2022-wacnn", _ZOU, WacnnModel
    qualities = tuple(range(1, 7))
    width_names = ("N", "M", "Z", "slices", "P")
    latent_gain = "g_a.7"
    published_widths: ClassVar = dict.fromkeys(range(1, 7), (192, 320, 192, 10, 224))
    authors_lambdas: ClassVar = {q: LAMBDAS[q] for q in (1, 2, 3, 5)}
    channels_last = False
    activations = 120.0
    memory = (44.0, 15.0)

    @classmethod
    def widths_of(cls, state):
        """N, M, Z, slices, P."""
        return *(state[f"{k}.weight"].size(0) for k in ("g_a.0", "g_a.7", "h_a.8")), *cls.slices_of(state)

    @classmethod
    def from_authors(cls, state):
        """The names are alike."""
        return renamed(state, _LEFT_OUT)


# ---------------------------------------------------------------------------------------------------------------- STF
class _Embed(nn.Module):
    """Blocks of 2×2 pixels as normalised features."""

    def __init__(self, n: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, n, 2, 2), nn.LayerNorm(n)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, n, H/2, W/2]."""
        return at_positions(self.norm, self.proj(x))


class _Blocks(nn.Sequential):
    """Swin blocks in windows of 4×4, every second one of a shifted grid."""

    def __init__(self, n: int, heads: int, depth: int):
        super().__init__(*(SwinBlock(n, heads, 4, 2 * (k % 2)) for k in range(depth)))

    def forward(self, v: Tensor) -> Tensor:
        """[B, n, h, w] to the same."""
        return at_positions(super().forward, v)


class _Merge(nn.Module):
    """Blocks of 2×2 positions to one of twice the channels."""

    def __init__(self, n: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * n), nn.Linear(4 * n, 2 * n, bias=False)

    def forward(self, v: Tensor) -> Tensor:
        """[B, n, h, w] to [B, 2n, h/2, w/2]; the four neighbours column by column, as published."""
        four = torch.cat([v[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)
        return at_positions(lambda u: self.reduction(self.norm(u)), four)


class _Split(nn.Module):
    """One position to a block of 2×2 of half the channels."""

    def __init__(self, n: int):
        super().__init__()
        self.norm, self.reduction, self.shuffle = nn.LayerNorm(n), nn.Linear(n, 2 * n, bias=False), nn.PixelShuffle(2)

    def forward(self, v: Tensor) -> Tensor:
        """[B, n, h, w] to [B, n/2, 2h, 2w]."""
        return self.shuffle(at_positions(lambda u: self.reduction(self.norm(u)), v))


class StfModel(SliceModel):
    """``n``: channels at half the picture's sides, twice as many at each halving, 8·N latents, in ``slices`` slices; ``z``: side
    information; ``p``: of the predicting networks' first hidden layer; ``depth``: blocks at an eighth of the sides. N is a multiple of 3.

    Published training drops whole blocks at random (stochastic depth, up to 0.2); this module does not.
    """

    def __init__(self, n: int, z: int, slices: int, p: int, depth: int):
        m = 8 * n
        super().__init__(m, z, slices, hidden_widths(_SHARES, p, m // slices), slices // 2)
        stages = [_Blocks(n * 2**k, 3 * 2**k, depth if k == 2 else 2) for k in range(4)]
        self.g_a = nn.Sequential(_Embed(n), stages[0], _Merge(n), stages[1], _Merge(2 * n), stages[2], _Merge(4 * n), stages[3])
        stages = [_Blocks(m // 2**k, 24 // 2**k, depth if k == 1 else 2) for k in range(4)]
        self.g_s = nn.Sequential(
            *(stages[0], _Split(m), stages[1], _Split(m // 2), stages[2], _Split(m // 4), stages[3]),
            *(nn.Conv2d(n, 4 * n, 5, padding=2), nn.PixelShuffle(2), nn.Conv2d(n, 3, 3, padding=1)),
        )
        self.h_a = _hyper_analysis(m, z)
        self.h_mean_s, self.h_scale_s = (_hyper_synthesis(z, _between(z, m)[1:], m) for _ in range(2))


class Stf(Slices):
    """Swin blocks alone: normalisation at every change of resolution bounds the picture whatever the latents are."""

    name, paper, module = "zou2022-stf", _ZOU, StfModel
    qualities = tuple(range(1, 7))
    width_names = ("N", "Z", "slices", "P", "depth")
    latent_gain = "g_a.6.reduction"
    published_widths: ClassVar = dict.fromkeys(range(1, 7), (48, 192, 12, 224, 6))
    authors_lambdas: ClassVar = {q: LAMBDAS[q] for q in range(1, 7)}
    channels_last = False
    activations = 450.0
    memory = (170.0, 35.0)
    #: Of the transforms, whose layers are numbered here in the order of the signal.
    _names: ClassVar = (
        *_LEFT_OUT,
        *((r"\.mlp\.fc1\.", ".mlp.0."), (r"\.mlp\.fc2\.", ".mlp.2."), (r"^patch_embed\.", "g_a.0.")),
        *((rf"^layers\.{k}\.blocks\.", f"g_a.{2 * k + 1}.") for k in range(4)),
        *((rf"^layers\.{k}\.downsample\.", f"g_a.{2 * k + 2}.") for k in range(3)),
        *((rf"^syn_layers\.{k}\.blocks\.", f"g_s.{2 * k}.") for k in range(4)),
        *((rf"^syn_layers\.{k}\.downsample\.", f"g_s.{2 * k + 1}.") for k in range(3)),
        *((r"^end_conv\.0\.", "g_s.7."), (r"^end_conv\.2\.", "g_s.9.")),
    )

    @classmethod
    def widths_of(cls, state):
        """N, Z, slices, P, depth."""
        depth = len({k.split(".")[2] for k in state if k.startswith("g_a.5.")})
        return state["g_a.0.proj.weight"].size(0), state["h_a.8.weight"].size(0), *cls.slices_of(state), depth

    @classmethod
    def from_authors(cls, state):
        """The stages under the numbers of their layers in g_a and g_s."""
        return renamed(state, cls._names)
