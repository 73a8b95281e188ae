"""Cai's variable-rate codec: one invertible network, run forwards by the sender and backwards by the receiver.

A quality level modulates it by affine maps that the receiver takes back exactly (invertible activation transformation, IAT), so the
receiver must know the level: it is the quality in the bitstream's header. Written from a specification of the paper's networks; the
parameters' names follow the authors' files (:data:`AUTHORS_NAMES`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from compressai.layers import conv3x3, subpel_conv3x3
from compressai.models import JointAutoregressiveHierarchicalPriors
from torch import Tensor, nn

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.authors import renamed
from nic_helpers.codecs.base import gradients_possible
from nic_helpers.codecs.google import Autoregressive, by_quality

#: What the authors' files call a module -> what it is called here.
AUTHORS_NAMES = (
    (r"^enh\.forw_enh\.", "g_a.0."),
    (r"^enh\.back_enh\.", "g_s.4."),
    (r"^inv\.operations(\d)\.", r"g_a.\1.operations."),
    (r"^inv\.SFTlevel_(\d)\.", r"g_a.\1.affine."),
)
SMALLEST_LAMBDA, LAMBDAS_RANGE = 1.2e-3, 4.382  # λ(q) = 1.2·10⁻³·exp(4.382·q), for q from 0 to 1
CHANNELS = 768  # of the fourth level, which has as many values as the image has samples
KERNELS = (5, 5, 3, 3)  # of the couplings, level by level


def level_of(lmbda: float) -> float:
    """The quality level q that asks for λ of R + λ·255²·MSE."""
    return math.log(lmbda / SMALLEST_LAMBDA) / LAMBDAS_RANGE


# ------------------------------------------------------------------------------------------------------------ layers
class Dense(nn.Module):
    """Five convolutions, each of the input and of all before it; the last one has no activation."""

    def __init__(self, before: int, after: int, growth: int):
        super().__init__()
        for k in range(1, 6):
            setattr(self, f"conv{k}", conv3x3(before + (k - 1) * growth, growth if k < 5 else after))

    def forward(self, x: Tensor) -> Tensor:
        """[B, after, h, w] from [B, before, h, w]."""
        seen = [x]
        for k in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{k}")(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1))


class Enhancement(nn.Module):
    """A picture [B, 3, H, W] with a fifth of a learned correction."""

    def __init__(self, width: int):
        super().__init__()
        growth = width // 2
        self.layers = nn.Sequential(
            Dense(3, width, growth),
            nn.Conv2d(width, width, 1),
            conv3x3(width, width),
            nn.Conv2d(width, width, 1),
            Dense(width, 3, growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W]."""
        return x + 0.2 * self.layers(x)


class Squeeze(nn.Module):
    """Each square of 2×2 positions as one of four times the channels: all channels of its first position, then those of the next."""

    def forward(self, v: Tensor) -> Tensor:
        """[B, 4·C, h/2, w/2] of [B, C, h, w]."""
        return F.pixel_unshuffle(v, 2).unflatten(1, (v.size(1), 4)).transpose(1, 2).flatten(1, 2)

    def inverse(self, v: Tensor) -> Tensor:
        """The other way round."""
        return F.pixel_shuffle(v.unflatten(1, (4, v.size(1) // 4)).transpose(1, 2).flatten(1, 2), 2)


class InvertibleConv(nn.Module):
    """A 1×1 convolution with a square matrix, a rotation at first; never in less than float32."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(channels, channels, dtype=torch.float32)))
        self._kept: tuple[tuple, Tensor] | None = None  # what the inverse belongs to, and it

    def forward(self, v: Tensor) -> Tensor:
        """[B, C, h, w]."""
        return self._apply_matrix(self.weight, v)

    def inverse(self, v: Tensor) -> Tensor:
        """The other way round, by a matrix that is inverted in float64."""
        return self._apply_matrix(self._inverse(), v)

    def _inverse(self) -> Tensor:
        if self.weight.requires_grad:
            return torch.linalg.inv(self.weight.double()).to(self.weight.dtype)
        key = (self.weight.data_ptr(), self.weight._version, self.weight.device, self.weight.dtype)
        if self._kept is None or self._kept[0] != key:  # else an attack would invert it at each step
            with gradients_possible():
                self._kept = (key, torch.linalg.inv(self.weight.detach().double()).to(self.weight.dtype))
        return self._kept[1]

    @staticmethod
    def _apply_matrix(matrix: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(v.device.type, enabled=False):
            return F.conv2d(v, matrix[:, :, None, None])


class Net(nn.Module):
    """What a coupling computes of one part for the other; zero at first."""

    def __init__(self, before: int, after: int, hidden: int, kernel: int):
        super().__init__()
        inside = min(after, hidden)
        self.conv1 = nn.Conv2d(before, inside, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(inside, inside, 1)
        self.conv3 = nn.Conv2d(inside, after, kernel, padding=kernel // 2)
        nn.init.zeros_(self.conv3.weight)
        nn.init.zeros_(self.conv3.bias)

    def forward(self, v: Tensor) -> Tensor:
        """[B, after, h, w]."""
        return self.conv3(F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(v), 0.2)), 0.2))


class Coupling(nn.Module):
    """Scales and shifts a quarter of the channels by what the other three quarters say, then these by the changed quarter."""

    def __init__(self, channels: int, hidden: int, kernel: int):
        super().__init__()
        self.first = channels // 4
        rest = channels - self.first
        self.G1, self.H1 = (Net(self.first, rest, hidden, kernel) for _ in range(2))
        self.G2, self.H2 = (Net(rest, self.first, hidden, kernel) for _ in range(2))

    def forward(self, v: Tensor) -> Tensor:
        """[B, C, h, w]."""
        a, b = v[:, : self.first], v[:, self.first :]
        a = a * self._gain(self.G2(b)) + self.H2(b)
        b = b * self._gain(self.G1(a)) + self.H1(a)
        return torch.cat((a, b), 1)

    def inverse(self, v: Tensor) -> Tensor:
        """The other way round."""
        a, b = v[:, : self.first], v[:, self.first :]
        b = (b - self.H1(a)) / self._gain(self.G1(a))
        a = (a - self.H2(b)) / self._gain(self.G2(b))
        return torch.cat((a, b), 1)

    @staticmethod
    def _gain(u: Tensor) -> Tensor:
        """Between 1/e and e, in float32 at least."""
        return torch.exp(2 * torch.sigmoid(u.to(torch.promote_types(u.dtype, torch.float32))) - 1)


class IAT(nn.Module):
    """Scales and shifts features by what it makes of the quality level alone."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        inside = min(2 * channels, hidden)
        self.mlp_shared = nn.Sequential(conv3x3(1, inside), nn.LeakyReLU(0.2), nn.Conv2d(inside, inside, 1), nn.LeakyReLU(0.2))
        self.mlp_gamma, self.mlp_beta = (
            nn.Sequential(conv3x3(inside, channels), nn.LeakyReLU(0.2), nn.Conv2d(channels, channels, 1)) for _ in range(2)
        )

    def forward(self, v: Tensor, level: float) -> Tensor:
        """v·(1 + γ) + β for features v [B, C, h, w] at a quality level from 0 to 1."""
        gamma, beta = self._of(v, level)
        return v * (1 + gamma) + beta

    def inverse(self, v: Tensor, level: float) -> Tensor:
        """The other way round."""
        gamma, beta = self._of(v, level)
        return (v - beta) / (1 + gamma)

    def _of(self, v: Tensor, level: float) -> tuple[Tensor, Tensor]:
        h = self.mlp_shared(v.new_full((1, 1, *v.shape[2:]), level))
        return self.mlp_gamma(h).to(v.dtype), self.mlp_beta(h).to(v.dtype)


class Level(nn.Module):
    """Half the resolution, a rotation and couplings, and the quality's affine map; at the last level only that of groups' means."""

    def __init__(self, channels: int, latents: int, hidden: int, couplings: int, kernel: int):
        super().__init__()
        self.groups = channels // latents
        between = (Coupling(channels, hidden, kernel) for _ in range(couplings))
        self.operations = nn.ModuleList([Squeeze(), InvertibleConv(channels), *between])
        self.affine = IAT(latents, 2 * hidden)

    def forward(self, v: Tensor, level: float) -> Tensor:
        """[B, 4·C, h/2, w/2] of [B, C, h, w]; at the last level the means of its groups, [B, M, h/2, w/2]."""
        for operation in self.operations:
            v = operation(v)
        if self.groups > 1:
            v = v.unflatten(1, (self.groups, -1)).mean(1)
        return self.affine(v, level)

    def inverse(self, v: Tensor, level: float) -> Tensor:
        """The other way round; every member of a group gets its mean."""
        v = self.affine.inverse(v, level).repeat(1, self.groups, 1, 1)
        for operation in reversed(self.operations):
            v = operation.inverse(v)
        return v


class Backwards(nn.Module):
    """A level the other way round; its parameters are the level's, and stand there alone."""

    def __init__(self, level: Level):
        super().__init__()
        self._level = (level,)  # in a tuple, so that torch does not list it a second time

    def forward(self, v: Tensor, level: float) -> Tensor:
        """[B, C, h, w] of [B, 4·C, h/2, w/2]."""
        return self._level[0].inverse(v, level)


class CaiModel(JointAutoregressiveHierarchicalPriors):
    """The networks, with mbt2018's context model.

    ``N``: channels of z, and six times the growth of the enhancement's dense blocks; ``M``: of the latents, a divisor of 768; ``hidden``:
    the most channels inside a coupling's networks, and half of that inside an affine map's; ``couplings``: at each level.
    """

    def __init__(self, N: int = 192, M: int = 192, hidden: int = 576, couplings: int = 3):
        super().__init__(N, M)
        if CHANNELS % M or N % 6:
            raise ValueError(f"M must divide {CHANNELS} and N be a multiple of 6, got N = {N}, M = {M}")
        levels = []
        for k, kernel in enumerate(KERNELS, 1):
            channels = 3 * 4**k
            levels.append(Level(channels, M if channels == CHANNELS else channels, hidden, couplings, kernel))
        self.g_a = nn.ModuleList([Enhancement(N // 3), *levels])
        self.g_s = nn.ModuleList([*(Backwards(level) for level in levels[::-1]), Enhancement(N // 3)])
        self.h_a = _activated(conv3x3(M, M), conv3x3(M, M), conv3x3(M, M, 2), conv3x3(M, M), conv3x3(M, N, 2))
        self.h_s = _activated(conv3x3(N, M), subpel_conv3x3(M, M, 2), conv3x3(M, M), subpel_conv3x3(M, M, 2), conv3x3(M, 2 * M))


def _activated(*layers: nn.Module) -> nn.Sequential:
    """Layers with an activation between them."""
    between: Iterable[nn.Module] = (v for layer in layers for v in (layer, nn.LeakyReLU()))
    return nn.Sequential(*list(between)[:-1])


# ------------------------------------------------------------------------------------------------------ the architecture
class Cai2022(Autoregressive):
    """One set of weights for every rate, by a quality level that both ends know.

    Qualities 1 to 6 stand for the levels whose λ is CompressAI's. As with mbt2018 the parallel form rounds around zero where the decoder
    rounds around the means: what is reported is the decoder's.
    """

    name, module = "cai2022", CaiModel
    paper = (
        "Cai et al., High-fidelity variable-rate image compression via invertible activation transformation, ACM MM 2022, "
        "DOI 10.1145/3503161.3547880"
    )
    qualities = tuple(range(1, 7))
    published_widths = by_quality((192, 192), (192, 192), 7, 6)
    authors_lambdas: ClassVar = {q: LAMBDAS[q] for q in range(1, 7)}
    width_names = ("N", "M", "hidden", "couplings")
    variable = True
    channels_last = False
    activations = 420.0
    memory = (410.0, 50.0)  # measured at widths of 24 and 48; wider it is less
    ends: ClassVar = ("g_a", "h_a", "g_s")

    @classmethod
    def from_authors(cls, state):
        """Under the names here."""
        return renamed(state, AUTHORS_NAMES)

    @classmethod
    def widths_of(cls, state):
        """N, M, the most channels inside a coupling's networks, couplings at each level."""
        couplings = 1 + max(int(k.split(".")[3]) for k in state if k.startswith("g_a.4.operations.")) - 2
        hidden = state["g_a.4.operations.2.G1.conv1.weight"].size(0)
        return state["h_a.8.weight"].size(0), state["h_a.8.weight"].size(1), hidden, couplings

    def level(self) -> float:
        """The quality's level, from 0 to 1."""
        if self.quality is None:
            raise ValueError("cai2022 needs to know which quality: give a number from 1 to 6")
        return level_of(LAMBDAS[self.quality])

    def _reduced(self, v: Tensor):
        """In the precision of the transforms: of the networks inside, while what they scale and shift stays as precise as it was."""
        return contextlib.nullcontext() if self.amp is None else torch.autocast(v.device.type, dtype=self.amp)

    def analysis(self, x):
        """y from the images, at the quality's level."""
        with self._reduced(x):
            v = self.g_a[0](x)
            for part in self.g_a[1:]:
                v = part(v, self.level())
        return v

    def synthesis(self, y_hat):
        """The same network backwards, and a correction of its own."""
        with self._reduced(y_hat):
            v = y_hat
            for part in self.g_s[:-1]:
                v = part(v, self.level())
            return self.g_s[-1](v)
