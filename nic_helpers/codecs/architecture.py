"""What a learned architecture says of itself: the sender's parts, the receiver's, and one method by which latents are coded.

That method, ``code``, is all there is of an entropy model. Who reads it is chosen from outside (:mod:`nic_helpers.codecs.coders`): an
estimator of bits, the encoder, the decoder, or an intervention.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nic_helpers.codecs.likelihoods import medians
from nic_helpers.codecs.quantisers import Quantiser

#: λ of the rate–distortion loss R + λ·255²·MSE at CompressAI's quality numbers
#: (https://interdigitalinc.github.io/CompressAI/zoo.html).
LAMBDAS = {1: 0.0018, 2: 0.0035, 3: 0.0067, 4: 0.0130, 5: 0.0250, 6: 0.0483, 7: 0.0932, 8: 0.1800}


class Architecture(ABC):
    """The base of all learned architectures. A class says what its models have in common; an object of it is one model.

    ``model``: the torch module; its children are attributes here (``g_a``, ``h_s`` …). ``quality``: for a variable-rate architecture
    the one at which it codes. ``amp``: the precision in which the transforms g_a, g_s, h_a and h_s run (None: the model's); context
    models and likelihoods never do. With ``exact_ends`` the layers that see the picture itself do not either: the first of g_a, the last
    of g_s.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    module: ClassVar[type[nn.Module]]
    qualities: ClassVar[tuple[int, ...]]
    #: Quality -> arguments of :meth:`build` of the models that the zoo has, or the authors published.
    published_widths: ClassVar[dict[int, tuple[int, ...]]]
    #: What the arguments of :meth:`build` are called, as ``--widths`` of a training run takes them.
    width_names: ClassVar[tuple[str, ...]] = ("N", "M")
    #: Quality -> λ of R + λ·255²·MSE, of the weights that the architecture's authors published; empty where the zoo has them.
    authors_lambdas: ClassVar[dict[int, float]] = {}
    #: Other widths than the published ones of which the authors published weights, too.
    authors_widths: ClassVar[tuple[tuple[int, ...], ...]] = ()
    #: The padded image's sides are multiples of this.
    stride: ClassVar[int] = 64
    #: And at least this.
    smallest: ClassVar[int] = 0
    #: The parts of a bitstream in their order, and how many pixels a side one position of each stands for.
    branches: ClassVar[dict[str, int]] = {"y": 16, "z": 64}
    #: The parts that a factorised bottleneck codes, whose shape the receiver knows from the image's size alone.
    bottlenecks: ClassVar[tuple[str, ...]] = ("z",)
    #: Whether one set of weights serves every quality.
    variable: ClassVar[bool] = False
    #: Whether a map may ask for another quality at every pixel, and that map [1 or B, 1, H, W], if one does.
    takes_map: ClassVar[bool] = False
    quality_map: Tensor | None = None
    #: Whether the parallel form, which has a gradient, gives what the decoder rebuilds.
    parallel_is_exact: ClassVar[bool] = True
    #: Whether the channels-last layout pays (Cheng2020's training crashed with it).
    channels_last: ClassVar[bool] = True
    #: Bytes a pixel, each to be multiplied by the first layer's width: of activations while a gradient is taken, at most; and of the
    #: memory that a pass takes on a CPU, with and without a gradient (measured at 512×768 pixels, widths of 48 to 128).
    activations: ClassVar[float] = 50.0
    memory: ClassVar[tuple[float, float]] = (19.0, 5.5)
    #: What only the transforms need, and no coder.
    ends: ClassVar[tuple[str, ...]] = ("g_a", "h_a", "g_s")

    def __init__(self, model: nn.Module, quality: int | None = None, *, amp: torch.dtype | None = None, exact_ends: bool = False):
        self.model, self.quality, self.amp = model, quality, amp
        for name, part in model.named_children():
            reduced = amp is not None and name in ("g_a", "g_s", "h_a", "h_s") and isinstance(part, nn.Sequential)
            first, last = (exact_ends and name == end for end in ("g_a", "g_s"))
            setattr(self, name, _in_precision(part, amp, first, last) if reduced else part)

    # ------------------------------------------------------------------------------------------------- what may differ
    def analysis(self, x: Tensor) -> Tensor:
        """Latents y [B, M, h, w] of padded images x [B, 3, H, W]."""
        return self.g_a(x)

    def hyper(self, y: Tensor) -> Tensor | None:
        """Side information z of y; None where there is none."""
        return self.h_a(y)

    def synthesis(self, y_hat: Tensor) -> Tensor:
        """Images, not clamped, from what :meth:`code` returns."""
        return self.g_s(y_hat)

    @abstractmethod
    def code(self, coder, y: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """Hand the latents to a coder in coding order; returns ŷ [B, M, h, w], with more channels behind it where the synthesis sees more
        than ŷ. Sender and receiver run it alike; for the receiver y and z are None."""

    def latents(self, y: Tensor, quantise: Quantiser) -> Tensor | None:
        """ŷ where it needs no entropy model (in the parallel form), else None: then nothing of that model is computed for a picture."""
        return None

    def step(self) -> Tensor | None:
        """The step at which the bottleneck quantises, where it is not 1."""
        return None

    # ---------------------------------------------------------------------------------------------------- what follows
    @classmethod
    def build(cls, *widths: int) -> nn.Module:
        """A module with random weights, in float32 whatever torch's default is; ``widths``: N, M."""
        return cls.module(*widths).float()

    @classmethod
    def widths_of(cls, state: dict[str, Tensor]) -> tuple[int, ...]:
        """The arguments of :meth:`build`, read off the shapes of a model's parameters."""
        return state["g_a.0.weight"].size(0), state["g_a.6.weight"].size(0)

    @classmethod
    def from_authors(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of the authors' own model under the names, and in the shapes, of this class's."""
        return state

    def width(self) -> int:
        """Channels of the first layer, at the image's finest resolution."""
        return max((p.size(0) for n, p in self.model.named_parameters() if n.startswith("g_a.0")), default=192)

    def bytes_per_pixel(self, gradient: bool) -> float:
        """About the memory that a pass takes on a CPU, with what its ``gradient`` needs or without: at most a tenth off."""
        return 100 + self.width() * self.memory[0] if gradient else self.width() * self.memory[1]

    def pad(self, x: Tensor) -> Tensor:
        """Images with their last row and column repeated up to a multiple of the stride that is large enough."""
        height, width = x.shape[2:]
        return F.pad(x, (0, self.padded(width) - width, 0, self.padded(height) - height), mode="replicate")

    def padded(self, side: int) -> int:
        """What a side of an image is padded to."""
        return max(-(-side // self.stride) * self.stride, self.smallest)

    def shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """The shape of each branch for an image of that size."""
        padded = [self.padded(side) for side in (height, width)]
        channels = {"y": self.model.M, "z": self.model.entropy_bottleneck.channels}
        return {b: (1, channels[b], *(side // at for side in padded)) for b, at in self.branches.items()}

    def over(self, model: nn.Module, *, amp: torch.dtype | None = None, exact_ends: bool = False) -> Architecture:
        """The same over another copy of its model, in another precision."""
        return type(self)(model, self.quality, amp=amp, exact_ends=exact_ends)

    def exact(self) -> Architecture:
        """A copy in float64 on the CPU of what both ends of the channel must compute alike, without the transforms."""
        rest = copy.copy(self.model)
        rest._modules = {n: m for n, m in self.model._modules.items() if n not in self.ends}
        return self.over(copy.deepcopy(rest).cpu().double().requires_grad_(False))

    def medians(self) -> Tensor:
        """The bottleneck's rounding offsets [1, C, 1, 1]."""
        return medians(self.model.entropy_bottleneck)


def _in_precision(transform: nn.Sequential, amp: torch.dtype, first: bool, last: bool) -> Callable[[Tensor], Tensor]:
    """A transform in another precision, all but its first or last layer."""

    def run(v: Tensor) -> Tensor:
        v = transform[0](v) if first else v
        with torch.autocast(v.device.type, dtype=amp):
            v = transform[int(first) : len(transform) - int(last)](v).float()
        return transform[-1](v) if last else v

    return run
