"""Song's variable-rate codec: a quality map scales and shifts every stage of the encoder (spatial feature transform, SFT).

The decoder never sees the map: it finds a condition of its own in what it decodes. Written from a specification of the paper's networks;
the parameters' names follow the authors' files (:data:`AUTHORS_NAMES`).
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import GDN1
from compressai.models import CompressionModel
from compressai.models.utils import deconv
from torch import Tensor, nn

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.authors import renamed
from nic_helpers.codecs.google import MeanScale, by_quality

#: What the authors' files call a module -> what it is called here.
AUTHORS_NAMES = (
    (r"^(g_a|h_a|g_s)(\d+)\.", r"\1.\2."),
    (r"^qmap_feature_gs0\.", "prior."),
    (r"^qmap_feature_gs(\d)\.", r"condition_s.\1."),
    (r"^qmap_feature_([gh]\d)\.", r"condition_a.\1."),
)
SMALLEST_LAMBDA, LAMBDAS_RANGE = 1e-3, 4.382  # λ(q) = 10⁻³·exp(4.382·q), for q from 0 to 1


def level_of(lmbda: float) -> float:
    """The quality map's value q that asks for λ of R + λ·255²·MSE."""
    return math.log(lmbda / SMALLEST_LAMBDA) / LAMBDAS_RANGE


def lambda_of(q: Tensor) -> Tensor:
    """λ of each element of a quality map."""
    return SMALLEST_LAMBDA * torch.exp(LAMBDAS_RANGE * q)


def checked_map(quality_map: Tensor) -> Tensor:
    """A quality map [H, W] or [B, 1, H, W] as [1 or B, 1, H, W] in float32; ValueError, saying why, for what is none."""
    if not isinstance(quality_map, Tensor):
        raise TypeError(f"a quality map is a tensor [H, W] or [B, 1, H, W], got {type(quality_map).__name__}")
    shape = tuple(quality_map.shape)
    if not (len(shape) == 2 or (len(shape) == 4 and shape[1] == 1)) or 0 in shape:
        raise ValueError(f"a quality map is [H, W], or [B, 1, H, W] with a map for each image, got {shape}")
    quality_map = quality_map.detach().float()
    low, high = (float(v) for v in quality_map.aminmax())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise ValueError(f"a quality map lies in [0, 1] (0: fewest bits, 1: best picture), got values from {low:g} to {high:g}")
    return quality_map if len(shape) == 4 else quality_map[None, None]


# ------------------------------------------------------------------------------------------------------------ layers
class StableGDN1(GDN1):
    """GDN with first powers, whose denominator the authors keep 10⁻⁴ further from zero."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w], normalised."""
        gamma = self.gamma_reparam(self.gamma)[:, :, None, None]
        return x / (F.conv2d(x.abs(), gamma, self.beta_reparam(self.beta)) + 1e-4)


class SFT(nn.Module):
    """Scales and shifts features x [B, C, h, w] by what it makes of a condition [B, p, h, w]."""

    def __init__(self, channels: int, condition: int, hidden: int):
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x·(1 + γ) + β."""
        h = self.mlp_shared(condition)
        return x * (1 + self.mlp_gamma(h)) + self.mlp_beta(h)


class ResidualSFT(nn.Module):
    """A residual block of two SFTs, each before an activation and a convolution."""

    def __init__(self, channels: int, condition: int, hidden: int):
        super().__init__()
        self.conv_0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm_0 = SFT(channels, condition, hidden)
        self.norm_1 = SFT(channels, condition, hidden)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, C, h, w], like x."""
        v = self.conv_0(F.leaky_relu(self.norm_0(x, condition), 0.2))
        return x + self.conv_1(F.leaky_relu(self.norm_1(v, condition), 0.2))


def _reflecting(before: int, after: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, padding_mode="reflect")


def _condition(channels: int, p: int) -> nn.Sequential:
    """The first condition, p features of what is to be conditioned and of the map."""
    widths, layers = (channels, 4 * p, 2 * p, p), []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1])


def _halved(p: int) -> nn.Sequential:
    """A condition at half the resolution."""
    return nn.Sequential(nn.Conv2d(p, p, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(p, p, 1))


def _doubled(p: int) -> nn.Sequential:
    """A condition at twice the resolution."""
    return nn.Sequential(nn.ConvTranspose2d(p, p, 3, 2, 1, 1), nn.LeakyReLU(0.1), nn.Conv2d(p, p, 1))


def _along(layers: nn.ModuleList, v: Tensor, condition: Tensor) -> Tensor:
    """v through layers, of which those with an SFT see the condition."""
    for layer in layers:
        v = layer(v, condition) if isinstance(layer, (SFT, ResidualSFT)) else layer(v)
    return v


class SongModel(CompressionModel):
    """The networks. ``N``: channels of the transforms at 1/8 of the resolution and of z; ``M``: of the latents y.

    From N follow the other widths: N/4 and N/2 channels at full and half resolution, conditions of N/3, SFTs of 2N/3 inside.
    """

    def __init__(self, N: int = 192, M: int = 192):
        super().__init__()
        if N % 12:
            raise ValueError(f"N must be a multiple of 12, of which a quarter and a third are other widths; got {N}")
        self.N, self.M = N, M
        p = N // 3
        sft = {"condition": p, "hidden": 2 * p}
        widths = (3, N // 4, N // 2, N, N)
        analysis, synthesis = [], [ResidualSFT(M, **sft), ResidualSFT(M, **sft)]
        for k, (before, after) in enumerate(itertools.pairwise(widths)):
            analysis += [_reflecting(before, after, 5, 2 if k else 1), StableGDN1(after), SFT(after, **sft)]
        for before, after in zip((M, N, N, N // 2), widths[:0:-1], strict=True):
            synthesis += [deconv(before, after), GDN1(after, inverse=True), SFT(after, **sft)]
        self.g_a = nn.ModuleList([*analysis, _reflecting(N, M, 5, 2), ResidualSFT(M, **sft), ResidualSFT(M, **sft)])
        self.g_s = nn.ModuleList([*synthesis, _reflecting(N // 4, 3, 5, 1)])
        side = []
        for before, kernel, stride in ((M, 3, 1), (N, 5, 2)):
            side += [_reflecting(before, N, kernel, stride), SFT(N, **sft), nn.LeakyReLU()]
        self.h_a = nn.ModuleList([*side, _reflecting(N, N, 5, 2), ResidualSFT(N, **sft), ResidualSFT(N, **sft)])
        self.h_s = nn.Sequential(
            deconv(N, M), nn.LeakyReLU(), deconv(M, M * 3 // 2), nn.LeakyReLU(), nn.Conv2d(M * 3 // 2, 2 * M, 3, padding=1)
        )
        self.condition_a = nn.ModuleDict(
            {"g1": _condition(4, p), **{f"g{k}": _halved(p) for k in (2, 3, 4, 5)}}
            | {"h1": _condition(M + 1, p), "h2": _halved(p), "h3": _halved(p)}
        )
        self.prior = nn.Sequential(
            nn.ConvTranspose2d(N, N // 2, 3, 2, 1, 1),
            nn.LeakyReLU(0.1),
            deconv(N // 2, N // 4),
            nn.LeakyReLU(0.1),
            nn.Conv2d(N // 4, N // 4, 3, padding=1),
        )
        self.condition_s = nn.ModuleDict({"1": _condition(N // 4 + M, p), **{str(k): _doubled(p) for k in (2, 3, 4, 5)}})
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = GaussianConditional(None)


# ------------------------------------------------------------------------------------------------------ the architecture
class Song2021(MeanScale):
    """One set of weights for every rate: the sender may ask for another quality at every pixel.

    Qualities 1 to 6 stand for the uniform maps whose λ is CompressAI's; ``quality_map`` [1 or B, 1, H, W] in [0, 1] is there in its place
    once :meth:`with_map` has been called. What the synthesis sees is ŷ and, behind it as N/4 more channels, features of ẑ.
    """

    name, module = "song2021", SongModel
    paper = (
        "Song, Choi & Han, Variable-rate deep image compression through spatially-adaptive feature transform, "
        "ICCV 2021, arXiv 2108.09551"
    )
    qualities = tuple(range(1, 7))
    published_widths = by_quality((192, 192), (192, 192), 7, 6)
    smallest: ClassVar[int] = 128  # the hyper-analysis reflects two positions at 1/32 of the resolution
    authors_lambdas: ClassVar = {q: LAMBDAS[q] for q in range(1, 7)}
    variable = takes_map = True
    channels_last = False
    activations = 300.0
    memory = (265.0, 54.0)  # measured at widths of 24 to 192
    ends: ClassVar = ("g_a", "h_a", "g_s", "condition_a", "condition_s")

    @classmethod
    def from_authors(cls, state):
        """Under the names here."""
        return renamed(state, AUTHORS_NAMES)

    @classmethod
    def widths_of(cls, state):
        """N, M."""
        return state["g_a.9.weight"].size(0), state["g_a.12.weight"].size(0)

    def with_map(self, quality_map: Tensor) -> Song2021:
        """The same with a quality map [H, W] for every image, or [B, 1, H, W] for a batch of B, in place of the quality's."""
        other = copy.copy(self)
        other.quality_map = checked_map(quality_map)
        return other

    def over(self, model, **how):
        """With the map."""
        other = super().over(model, **how)
        other.quality_map = self.quality_map
        return other

    def pad(self, x):
        """Checks that the map, if there is one, is of the images' size."""
        q = self.quality_map
        if q is not None and (q.shape[2:] != x.shape[2:] or len(q) not in (1, len(x))):
            raise ValueError(
                f"the quality map is {tuple(q.shape)}, which does not fit images {tuple(x.shape)}: it needs their height and width, "
                "and is one for all of them or one for each"
            )
        return super().pad(x)

    def padded_map(self, like: Tensor, pixels: int = 1) -> Tensor:
        """The map of padded images, averaged over squares of so many pixels a side, [B, 1, h, w] for features ``like`` [B, C, h, w]."""
        batch, _, height, width = like.shape
        if self.quality_map is None:
            if self.quality is None:
                raise ValueError("song2021 needs to know which quality: give a number from 1 to 6, or a map")
            return like.new_full((batch, 1, height, width), level_of(LAMBDAS[self.quality]))
        q = self.quality_map.to(like)
        more = (pixels * height - q.size(2), pixels * width - q.size(3))
        q = F.pad(q, (0, more[1], 0, more[0]), mode="replicate")
        return F.avg_pool2d(q, pixels).expand(batch, -1, -1, -1)

    def _reduced(self, v: Tensor):
        """In the precision of the transforms."""
        return contextlib.nullcontext() if self.amp is None else torch.autocast(v.device.type, dtype=self.amp)

    def analysis(self, x):
        """y from the images and their map; the layer that sees the images computes in their precision."""
        first = self.g_a[0](x)
        with self._reduced(x):
            condition = self.condition_a["g1"](torch.cat((self.padded_map(x), x), 1))
            v = _along(self.g_a[1:3], first, condition)
            for k in (3, 6, 9, 12):
                condition = self.condition_a[f"g{k // 3 + 1}"](condition)
                v = _along(self.g_a[k : k + 3], v, condition)
        return v.float()

    def hyper(self, y):
        """z from y and the map."""
        with self._reduced(y):
            condition, v = self.condition_a["h1"](torch.cat((self.padded_map(y, 16), y), 1)), y
            for k in (0, 3, 6):
                condition = self.condition_a[f"h{k // 3 + 1}"](condition) if k else condition
                v = _along(self.h_a[k : k + 3], v, condition)
        return v.float()

    def code(self, coder, y=None, z=None):
        """Scales and means from z; ŷ with features of ẑ behind it."""
        z_hat = coder.bottleneck("z", z)
        scales, means = coder.tap("side", self.h_s(z_hat)).chunk(2, 1)
        return torch.cat((coder.gaussian("y", y, scales, means), self.prior(z_hat)), 1)

    def synthesis(self, y_hat):
        """From ŷ and the features of ẑ, [B, M + N/4, h, w]; the layer that gives the images computes in their precision."""
        y, features = y_hat[:, : self.model.M], y_hat[:, self.model.M :]
        with self._reduced(y):
            condition = self.condition_s["1"](torch.cat((features, y), 1))
            v = _along(self.g_s[:2], y, condition)
            for k in (2, 5, 8, 11):
                condition = self.condition_s[str((k + 4) // 3)](condition)
                v = _along(self.g_s[k : k + 3], v, condition)
        return self.g_s[14](v.float())
