"""Learned codecs: an architecture with weights, real bitstreams and a differentiable path."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nic_helpers.codecs import bitstream
from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.base import (
    SMALLEST_SIDE,
    Codec,
    CodecOutput,
    Coded,
    Images,
    by_size,
    check_streams,
    gradients_possible,
    has_bfloat16,
    own_precision,
    stack,
)
from nic_helpers.codecs.bitstream import DECODED_PIXELS
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.codecs.coders import EntropyCoder, Walk, walk
from nic_helpers.codecs.quantisers import quantiser_of, round_true
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.images import as_images, check_images
from nic_helpers.memory import check_room, keep_freed_memory


class NeuralCodec(Codec):
    """A CompressAI model as a codec.

    Parameters of every call: ``x`` [B, 3, H, W] in [0, 1], or a list of [3, H, W]; at least 16×16 pixels, any size (the
    padding happens inside and is cropped again; rates count original pixels). Results come back on ``x``'s device. A codec computes
    in float32, whatever the precision and the layout of ``x``, torch's default, or a caller's autocast.

    Attributes: ``name``, ``quality``, ``lmbda`` (λ it was trained for), ``model`` (the CompressAI module, frozen, in
    evaluation mode), ``weights`` (provenance: source, file, SHA-256), ``arch``, ``device``.
    """

    @gradients_possible()  # also through a model that was loaded in inference mode
    def __init__(self, name: str, quality: int, weights: Weights, device: torch.device):
        self.name, self.quality, self.weights, self.device = name, quality, weights, device
        if device.type == "cpu":
            keep_freed_memory()
        self.lmbda = weights.lmbda
        kind = ARCHITECTURES[name]
        try:
            model = kind.build(*kind.widths_of(weights.state))
            missing, unexpected = nn.Module.load_state_dict(model, weights.state, strict=False)
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{weights.file} does not fit {name}: {error}") from error
        missing = sorted(set(missing).intersection(dict(model.named_parameters())))
        if missing or unexpected:
            raise ValueError(f"{weights.file} does not fit {name}: missing {missing[:3]}, unexpected {unexpected[:3]}")
        if not kind.variable:
            model.update(force=True)  # for CompressAI's own coder: ours makes tables of its own
        self.model = model.to(device).eval().requires_grad_(False)
        self.arch = kind(self.model, quality)
        self._differentiated = self.arch  # in the precision in which gradients are taken
        self._latents: tuple[Callable[[Tensor], Tensor], str] | None = None  # what the sender does to y, and its name
        self._coder: EntropyCoder | None = None
        self._quick: dict[str, NeuralCodec] = {}

    def __repr__(self) -> str:
        return f"NeuralCodec({self.name}, quality={self.quality}, weights={self.weights.source}, {self.device})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        changes = ["a map"] * (self.arch.quality_map is not None) + ([self._latents[1]] if self._latents else [])
        return ", ".join([f"{self.name} q{self.quality}", *changes])

    def with_latents(self, change: Callable[[Tensor], Tensor], named: str) -> NeuralCodec:
        """The same codec whose sender puts its latents y [B, M, h, w] through ``change`` before they are coded."""
        before = self._latents
        twin = copy.copy(self)
        twin._latents = (
            change if before is None else lambda y: change(before[0](y)),
            named if before is None else f"{before[1]}, {named}",
        )
        twin._quick = {}
        return twin

    def with_map(self, quality_map: Tensor) -> NeuralCodec:
        """The same codec with a quality map in place of its quality: 0 asks for the fewest bits at a pixel, 1 for the best picture.

        ``quality_map``: [H, W] in [0, 1] for images of that size, or [B, 1, H, W], a map each for batches of B. The decoder needs none:
        streams say nothing of it. λ is then another at every pixel, so the codec's is NaN. TypeError for an architecture that takes none.
        """
        if not self.arch.takes_map:
            takes = [name for name, kind in ARCHITECTURES.items() if kind.takes_map]
            raise TypeError(f"{self.name} takes no quality map: {', '.join(takes)} does")
        twin = copy.copy(self)
        twin.arch = self.arch.with_map(quality_map)
        twin._differentiated, twin._quick, twin.lmbda = twin.arch, {}, math.nan
        return twin

    @own_precision()
    def latents(self, x: Tensor) -> Tensor:
        """The latents y [B, M, h, w] that the sender makes of images [B, 3, H, W], before they are quantised."""
        check_images(x, SMALLEST_SIDE)
        return self._analysed(self.arch, self._pad(x))

    def _analysed(self, arch: Architecture, padded: Tensor) -> Tensor:
        y = arch.analysis(padded)
        return y if self._latents is None else self._latents[0](y)

    @property
    def activation_bytes(self) -> float:
        """Of a pixel, while a gradient is taken: as the architecture says."""
        return self.arch.width() * self.arch.activations

    @property
    @gradients_possible()
    def coder(self) -> EntropyCoder:
        """The exact entropy coder, built at first use."""
        if self._coder is None:
            self._coder = EntropyCoder(self.arch)
        return self._coder

    @gradients_possible()
    def quick(self, precision: str = "auto") -> NeuralCodec:
        """The same codec for gradients: channels-last where that pays, its transforms in the given precision.

        ``precision``: "float32", "bfloat16", or "auto", bfloat16 where the hardware computes with it. Its values differ
        in the last digits (a symbol here and there rounds the other way), so report none of them: use the codec itself.
        """
        if precision == "auto":
            precision = "bfloat16" if has_bfloat16(self.device) else "float32"
        if precision == "float32" and not self.arch.channels_last:
            return self
        if precision not in self._quick:
            twin = copy.copy(self)
            if self.arch.channels_last:
                twin.model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)
            amp = torch.bfloat16 if precision == "bfloat16" else None
            twin.arch = self.arch.over(twin.model)
            twin._differentiated = self.arch.over(twin.model, amp=amp, exact_ends=True)
            self._quick[precision] = twin
        return self._quick[precision]

    def bytes_per_pixel(self, gradient: bool) -> float:
        """About the memory that a pass takes on a CPU, with what its ``gradient`` needs or without (0 on other devices)."""
        return self.arch.bytes_per_pixel(gradient) if self.device.type == "cpu" else 0.0

    # ------------------------------------------------------------------------------------------------ differentiable
    def _pad(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        check_room(self.bytes_per_pixel(x.requires_grad and torch.is_grad_enabled()), height, width, len(x), "a pass over")
        x = x.to(self.device, torch.float32).contiguous()  # else the last digits would depend on the layout
        return self.arch.pad(x)

    @own_precision()
    def walk(self, x: Tensor, surrogate: str | None = "ste", *, rate: bool = True, synthesis: bool = True, set_to=None) -> Walk:
        """All intermediate tensors of one pass over the padded image (see :func:`nic_helpers.codecs.coders.walk`); with ``set_to``
        some branches of the entropy model are set from outside (:class:`nic_helpers.codecs.coders.Do`)."""
        check_images(x, SMALLEST_SIDE)
        quantiser = quantiser_of(surrogate)
        y = self._analysed(self._differentiated, self._pad(x))
        return walk(self._differentiated, None, quantiser, y=y, rate=rate, synthesis=synthesis, set_to=set_to)

    @own_precision()
    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """Differentiable pass over x [B, 3, H, W] (for a list of [3, H, W]: a list of outputs).

        ``surrogate``: how the gradient gets through rounding: "ste" (round forward, identity backward), "noise"
        (uniform noise), "identity" (no quantisation), or None (true rounding: the gradient is zero). Context models
        use their parallel form here; their true reconstruction is :meth:`reconstruct`. Samples that the clamp to [0, 1]
        holds have no gradient: a picture can get no worse there, and an attack must look elsewhere.
        ``rate=False`` leaves ``bits`` empty and computes only what the reconstruction needs.
        """
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in as_images(x)]
        w = self.walk(x, surrogate, rate=rate)
        x_hat = w.x_hat[..., : x.size(2), : x.size(3)].clamp(0, 1)
        bits = {k: v.to(x.device) for k, v in w.bits().items()} if rate else {}
        return CodecOutput(x_hat.to(x.device), bits, x.size(2) * x.size(3))

    forward = __call__

    @own_precision()
    def estimated_bpp(self, x: Tensor, surrogate: str | None = "ste") -> Tensor:
        """Estimated bits per original pixel [B] of x [B, 3, H, W], as in :meth:`__call__`, without the synthesis."""
        bits = self.walk(x, surrogate, synthesis=False).bits()
        return sum(bits.values()).to(x.device) / (x.size(2) * x.size(3))

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """What the receiver would see, [B, 3, H, W] in [0, 1], without coding any bytes.

        With ``surrogate=None`` the true reconstruction (equal to decoding the bytes), without gradient. Otherwise the
        differentiable one of :meth:`__call__`, without the rate.
        """
        if surrogate is not None:
            return self(x, surrogate, rate=False).x_hat
        return self._roundtrip(x, encode=False).x_hat

    # -------------------------------------------------------------------------------------------------- real streams
    def roundtrip(self, x: Images) -> Coded:
        """Encode for real and return the bitstreams with the encoder's own reconstruction (equal to decoding them)."""
        if isinstance(x, Tensor):
            return self._roundtrip(x, encode=True)
        parts = [self._roundtrip(image[None], encode=True) for image in as_images(x)]
        return Coded([p.streams[0] for p in parts], [p.x_hat[0] for p in parts])

    def encode(self, x: Images) -> list[bytes]:
        """One bitstream per image."""
        images = as_images(x)
        if isinstance(images, Tensor):
            return self._roundtrip(images, encode=True, synthesis=False).streams
        return [self._roundtrip(image[None], encode=True, synthesis=False).streams[0] for image in images]

    @torch.no_grad()
    @own_precision()
    def _roundtrip(self, x: Tensor, encode: bool, synthesis: bool = True) -> Coded:
        check_images(x, SMALLEST_SIDE)
        height, width = x.shape[2:]
        if encode:
            bitstream.check_size(height, width)
        y = self._analysed(self.arch, self._pad(x))
        y_hat, streams = None, []
        if self.arch.parallel_is_exact and not encode:
            y_hat = self.arch.latents(y.double(), round_true)
        if y_hat is None:
            z, latents = self.arch.hyper(y), []
            for k in range(len(x)):  # image by image: what the range coder sees must not depend on the batch
                one, strings = self.coder.encode(y[k : k + 1], None if z is None else z[k : k + 1], encode)
                latents.append(one)
                if encode:
                    streams.append(bitstream.pack(self.name, self.quality, self.weights.sha256, height, width, strings))
            y_hat = torch.cat(latents)
        x_hat = self._synthesise(y_hat, height, width).to(x.device) if synthesis else x
        return Coded(streams, x_hat)

    def _synthesise(self, y_hat: Tensor, height: int, width: int) -> Tensor:
        """Pictures of the original size; those that hold NaN or infinite values are named, and keep their NaN."""
        x_hat = self.arch.synthesis(y_hat.to(self.device, torch.float32))[..., :height, :width]
        lost = (~x_hat.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if lost:
            warnings.warn(
                f"image(s) {lost} of the batch: the synthesis of {self.name} gave values that are not finite", stacklevel=3
            )
        return x_hat.clamp(0, 1)

    def unpack(self, stream: bytes, most_pixels: float = math.inf) -> bitstream.Packet:
        """The checked parts of one bitstream: image size and one string per branch (y, then z)."""
        packet = bitstream.unpack(stream, self.name, self.quality, self.weights.sha256, len(self.arch.branches))
        bitstream.check_pixels(packet.height, packet.width, most_pixels, len(stream))
        self.coder.check(packet.strings, self.arch.shapes(packet.height, packet.width))
        return packet

    @torch.no_grad()
    @own_precision()
    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Bitstreams -> images on the CPU: [B, 3, H, W] in [0, 1], or a list where sizes differ.

        Raises :class:`nic_helpers.codecs.bitstream.BitstreamError` for anything that is not a whole, undamaged stream of this
        codec, and for one that claims more than ``most_pixels`` or more than its bytes can hold, before the entropy decoder runs.
        """
        check_streams(streams)
        packets = [self.unpack(s, most_pixels) for s in streams]
        return stack([self._decode(p)[0] for p in packets])

    def _decode(self, packet: bitstream.Packet) -> Tensor:
        check_room(self.bytes_per_pixel(False), packet.height, packet.width, doing="decoding")
        y_hat = self.coder.decode(packet.strings, self.arch.shapes(packet.height, packet.width))
        return self._synthesise(y_hat, packet.height, packet.width).cpu()
