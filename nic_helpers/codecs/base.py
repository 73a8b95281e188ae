"""What every codec has, and so what attacks, tables and sweeps may ask of one: the protocol, spelt out.

Nothing is passed on from one codec to another unseen: a codec around another (a defence, BPDA) says itself what it has, so that
an attack on it can't go round it. docs/adding-a-codec.md adds one.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nic_helpers.codecs.bitstream import DECODED_PIXELS
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.images import as_images

Images = Tensor | Sequence[Tensor]


@dataclass
class CodecOutput:
    """A differentiable pass: ``x_hat`` [B, 3, H, W] in [0, 1], estimated ``bits`` [B] of each branch, ``pixels`` H·W."""

    x_hat: Tensor
    bits: dict[str, Tensor]
    pixels: int

    @property
    def bpp(self) -> Tensor:
        """Estimated bits per original pixel [B], all branches."""
        return sum(self.bits.values()) / self.pixels


class NoRate(TypeError):
    """A codec is asked for bits, or for files, that it does not make."""


@dataclass
class Coded:
    """Real bitstreams and what decoding them gives: ``streams`` one per image, ``x_hat`` like the input."""

    streams: list[bytes]
    x_hat: Images


@contextlib.contextmanager
def own_precision() -> Iterator[None]:
    """Here a caller's ``torch.autocast`` does not hold: what is computed is computed in its tensors' precision."""
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def gradients_possible() -> Iterator[None]:
    """Here a caller's ``torch.inference_mode`` does not hold: tensors made here may have gradients."""
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext():
        yield


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes with it, so that it pays."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu.get_capabilities().get("avx512_bf16", False) if device.type == "cpu" else False


def by_size(method):
    """Let a method on [B, 3, H, W] also take a list of [3, H, W] of any sizes, and give lists back."""

    @functools.wraps(method)
    def wrapped(self, x: Images, *args, **kwargs):
        if isinstance(x, Tensor):
            return method(self, x, *args, **kwargs)
        return [method(self, image[None], *args, **kwargs)[0] for image in as_images(x)]

    return wrapped


def real_bpp(streams: Sequence[bytes], x: Images) -> list[float]:
    """8·bytes / (H·W) of each bitstream, over the original images' pixels."""
    return [8 * len(s) / (image.shape[-2] * image.shape[-1]) for s, image in zip(streams, x, strict=True)]


def stack(images: list[Tensor]) -> Images:
    """A list of [3, H, W]: one tensor if all sizes agree, else the list."""
    return torch.stack(images) if len({im.shape for im in images}) == 1 else images


def check_streams(streams: Sequence[bytes]) -> None:
    """TypeError for one bitstream where ``decode`` takes a list of them."""
    if isinstance(streams, (bytes, bytearray, memoryview)):
        raise TypeError("decode takes a list of bitstreams: decode([stream])")


class Codec:
    """The base of all codecs. A codec of one's own gives ``name``, ``quality`` and ``__call__``, and what it has beside the defaults
    here; ``encode`` and ``decode`` as soon as tables with real rates are to be made of it.

    Images are [B, 3, H, W] in [0, 1] or a list of [3, H, W] of any sizes, and results come back on their device.
    ``__call__(x, surrogate="ste", rate=True)`` gives a :class:`CodecOutput` (of a list: a list) with a gradient;
    ``surrogate=None`` is true rounding; ``rate=False`` leaves ``bits`` empty. A codec without a gradient raises a TypeError there
    that says what to do.
    """

    name: str
    quality: float  # on the codec's own scale

    #: λ of the loss λ·255²·MSE + rate (bits per pixel) that it was trained for; NaN where there is none.
    lmbda: float = math.nan
    #: Where it computes.
    device: torch.device = torch.device("cpu")
    #: Whether ``__call__`` has a gradient.
    differentiable: bool = True
    #: Whether it rounds whatever the surrogate, so that the distance to its clean output has no gradient at the source.
    always_rounds: bool = False
    #: Where its weights come from (source, file, SHA-256); None where it has none.
    weights: Weights | None = None
    #: Whether it draws something at random for an image.
    random: bool = False
    #: Bytes of activations a pixel while a gradient is taken, for :func:`nic_helpers.attacks.base.batch_size`: the largest there is.
    activation_bytes: float = 150 * 192

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, quality={self.quality})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.name} {self.quality}"

    def estimated_bpp(self, x: Tensor, surrogate: str | None = "ste") -> Tensor:
        """Estimated bits per original pixel [B] of x [B, 3, H, W], with a gradient."""
        return self(x, surrogate).bpp

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """What the receiver would see, [B, 3, H, W] in [0, 1]: the true reconstruction, without gradient, for
        ``surrogate=None``, else that of ``__call__``."""
        if surrogate is not None:
            return self(x, surrogate, rate=False).x_hat
        with torch.no_grad():
            return self(x, None, rate=False).x_hat if self.differentiable else self.roundtrip(x).x_hat

    def roundtrip(self, x: Images) -> Coded:
        """The real bitstreams, and what they decode to."""
        streams = self.encode(x)
        images = [self.decode([s])[0].to(image.device) for s, image in zip(streams, x, strict=True)]
        return Coded(streams, torch.stack(images) if isinstance(x, Tensor) else images)

    def encode(self, x: Images) -> list[bytes]:
        """One bitstream per image; its length is the image's rate, so it holds all that ``decode`` needs."""
        raise self._without_streams()

    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Bitstreams -> images on the CPU: [B, 3, H, W] in [0, 1], or a list where sizes differ.

        Raises :class:`nic_helpers.codecs.bitstream.BitstreamError` for what is no whole, undamaged stream of this codec, and for a stream
        that claims more than ``most_pixels``, or more than its bytes can hold, before anything is decoded.
        """
        raise self._without_streams()

    def _without_streams(self) -> NoRate:
        return NoRate(
            f"{self.name} makes no bitstreams: give {type(self).__name__} encode(x) and decode(streams, most_pixels), "
            "or ask for no real rate (metrics.before_after(…, real_rate=False))"
        )

    def quick(self, precision: str = "auto") -> Codec:
        """The same codec for gradients at a precision ("float32", "bfloat16", "auto"), with values that may differ in their last
        digits. A codec around another gives itself around the other's quick one."""
        return self

    def bytes_per_pixel(self, gradient: bool) -> float:
        """The memory that a pass takes on a CPU a pixel, with or without a gradient, so that too large an image is refused in
        time; 0 where that is not known."""
        return 0.0

    def redrawn(self, k: int) -> Codec:
        """A random codec with other draws, those of number ``k``; TypeError for one that draws nothing."""
        raise TypeError(f"{self!r} draws nothing at random: attack it as it is")

    def for_images(self, x: Images) -> Codec:
        """The same codec for an evaluation of the images x: a random one draws for an image that is none of them (an attacked one) as
        for the nearest of them that has its size."""
        return self


#: All that is asked of a codec.
MEMBERS = ("name", "quality", "__call__", *(m for m in vars(Codec) if not m.startswith("_")))


def check_codec(codec) -> None:
    """A TypeError that says what is missing, unless ``codec`` has itself (not by passing on another's) all that a codec has."""
    have = set(dir(codec))  # which sees nothing that a __getattr__ passes on
    missing = [m for m in MEMBERS if m not in have]
    if not missing and not isinstance(codec, type):
        return
    if isinstance(codec, str):
        raise TypeError(f"{codec!r} is a text, not a codec: load_codec(name, quality) makes one")
    if isinstance(codec, type):
        raise TypeError(f"{codec.__name__} is a class, not a codec: make one of it first")
    if isinstance(codec, Tensor):
        raise TypeError(f"a tensor {tuple(codec.shape)} is no codec: the codec comes first, then its images")
    if isinstance(codec, nn.Module):
        raise TypeError(
            f"{type(codec).__name__} is a torch module, not a codec: save a CompressAI model's weights with torch.save("
            "model.state_dict(), path) and load them with load_codec(name, quality, path)"
        )
    raise TypeError(
        f"{type(codec).__name__} is no codec: it lacks {', '.join(missing)}. Derive its class from nic_helpers.codecs.base.Codec, "
        "which has a default for all but name, quality and __call__ (docs/adding-a-codec.md)"
    )


class Around(Codec):
    """A codec around another, ``codec``: it is called like that one, described like that one, and itself has what it does otherwise.

    Everything that makes another version of it makes one of the same class around the other codec's version, so that no call of an
    attack can reach the inner codec past this one.
    """

    def __init__(self, codec: Codec):
        check_codec(codec)
        self.codec, self.name, self.quality, self.lmbda = codec, codec.name, codec.quality, codec.lmbda
        self.device, self.weights, self.activation_bytes = codec.device, codec.weights, codec.activation_bytes
        self.differentiable, self.always_rounds, self.random = codec.differentiable, codec.always_rounds, codec.random

    def around(self, codec: Codec) -> Around:
        """The same around another version of the inner codec."""
        if codec is self.codec:
            return self
        other = copy.copy(self)
        other.codec = codec
        return other

    def quick(self, precision: str = "auto") -> Codec:
        """Itself around the inner codec's quick one."""
        return self.around(self.codec.quick(precision))

    def bytes_per_pixel(self, gradient: bool) -> float:
        """The inner codec's."""
        return self.codec.bytes_per_pixel(gradient and not self.always_rounds)  # where it is BPDA's, no gradient passes

    def redrawn(self, k: int) -> Codec:
        """Itself around the inner codec's with other draws."""
        return self.around(self.codec.redrawn(k))

    def for_images(self, x: Images) -> Codec:
        """Itself around the inner codec's."""
        return self.around(self.codec.for_images(x))


SMALLEST_SIDE = 16
