"""Defences of a sender who looks at what it made before it sends it: a worse picture or a larger file than allowed is not sent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nic_helpers.codecs.base import Codec, CodecOutput, Coded, Images, by_size, check_streams, real_bpp, stack
from nic_helpers.codecs.bitstream import DECODED_PIXELS
from nic_helpers.codecs.classical import PillowCodec
from nic_helpers.codecs.load import load_codec
from nic_helpers.defences.base import Behind, pack, unpack
from nic_helpers.images import check_images
from nic_helpers.metrics import psnr

LADDER = (5, 10, 20, 30, 45, 60, 75, 85, 95)  # the qualities at which JPEG is tried
CODEC, JPEG, PNG = range(3)  # what a stream holds


@dataclass(frozen=True)
class VerifyOrFallBack:
    """Send JPEG, or the picture as PNG, where the codec's own decoded picture is below ``floor`` (PSNR to the source, dB) or its file
    above ``cap`` (bits per pixel). Called with a codec it gives the defended one.

    The fallback is the smallest JPEG that reaches the floor within the cap; PNG where no JPEG reaches it and there is no cap; and
    where floor and cap cannot both be kept, the best JPEG within the cap, or the smallest there is, with a warning.
    """

    floor: float = 28.0
    cap: float = math.inf

    def __post_init__(self):
        if math.isnan(self.floor) or not self.cap > 0:
            raise ValueError(f"floor is a PSNR in dB, cap a positive number of bits per pixel, got {self.floor!r} and {self.cap!r}")

    def __call__(self, codec: Codec) -> Verified:
        """The codec behind this check."""
        return Verified(codec, self)


@dataclass(frozen=True)
class RateCap(VerifyOrFallBack):
    """The cap alone: no file is larger than ``cap`` bits per pixel, as far as JPEG can do it."""

    floor: float = -math.inf
    cap: float = 4.0


class Verified(Behind):
    """A codec whose sender decodes what it made, and falls back (see :class:`VerifyOrFallBack`).

    A gradient passes the codec where its picture is sent, and JPEG as if it did nothing where that is.
    """

    how: VerifyOrFallBack

    # --------------------------------------------------------------------------------------------------- what is sent
    def _send(self, image: Tensor, stream: bytes, x_hat: Tensor) -> tuple[bytes, Tensor]:
        """The stream for one image [1, 3, H, W], and its picture, from what the codec made of it."""
        if float(psnr(image, x_hat)) >= self.how.floor and self._bpp(stream, image) <= self.how.cap:
            return pack(CODEC, stream, self.nesting), x_hat
        way, stream, x_hat = self._fallback(image)
        return pack(way, stream, self.nesting), x_hat

    def _fallback(self, image: Tensor) -> tuple[int, bytes, Tensor]:
        """The way, the stream and the picture of what is sent in the codec's place."""
        kept = None  # the best JPEG so far within the cap, or the smallest
        for quality in LADDER:
            coded = load_codec("jpeg", quality).roundtrip(image)
            stream, x_hat = coded.streams[0], coded.x_hat.to(image)
            fits = self._bpp(stream, image) <= self.how.cap
            kept = (stream, x_hat) if fits or kept is None else kept
            if not fits:
                break
            if float(psnr(image, x_hat)) >= self.how.floor:
                return JPEG, stream, x_hat
        if math.isinf(self.how.cap):
            coded = PillowCodec("PNG", 0, {"optimize": True}).roundtrip(image)
            return PNG, coded.streams[0], coded.x_hat.to(image)
        stream, x_hat = kept
        warnings.warn(
            f"no JPEG has {self.how.floor:g} dB within {self.how.cap:g} bits per pixel: one of {float(psnr(image, x_hat)):.1f} dB and "
            f"{self._bpp(stream, image):.2f} bits per pixel is sent",
            stacklevel=3,
        )
        return JPEG, stream, x_hat

    @staticmethod
    def _bpp(stream: bytes, image: Tensor) -> float:
        """Bits per pixel of a stream with the three bytes that :func:`pack` puts before it."""
        return 8 * (len(stream) + 3) / image[0, 0].numel()

    def roundtrip(self, x: Images) -> Coded:
        """What is sent, and what it decodes to."""
        check_images(x)
        coded = self.codec.roundtrip(x)
        sent = [self._send(x[n][None], s, coded.x_hat[n][None]) for n, s in enumerate(coded.streams)]
        streams, images = [s for s, _ in sent], [x_hat[0] for _, x_hat in sent]
        return Coded(streams, torch.stack(images) if isinstance(x, Tensor) else images)

    def encode(self, x: Images) -> list[bytes]:
        """One bitstream per image."""
        return self.roundtrip(x).streams

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """What the receiver would see; with a surrogate, that of the differentiable pass."""
        return self.roundtrip(x).x_hat if surrogate is None else self(x, surrogate, rate=False).x_hat

    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Bitstreams -> images on the CPU: [B, 3, H, W] in [0, 1], or a list where sizes differ; BitstreamError as of every codec."""
        check_streams(streams)
        images = []
        for stream in streams:
            way, inner = unpack(stream, 3, self.nesting)
            codec = (self.codec, load_codec("jpeg"), PillowCodec("PNG", 0, {}))[way]
            images.append(codec.decode([inner], most_pixels)[0])
        return stack(images)

    # ------------------------------------------------------------------------------------------------- differentiable
    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """The codec's pass; where its picture would not be sent, the fallback's picture with the identity's gradient, and its size."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in x]
        out = self.codec(x, surrogate, rate)
        x_hat, bits = list(out.x_hat), {b: list(v) for b, v in out.bits.items()}
        for n, image in enumerate(self._not_sent(x)):
            if image is None:
                continue
            stream, picture = image
            x_hat[n] = picture + (x[n] - x[n].detach() if surrogate is not None else 0 * x[n])
            for k, branch in enumerate(bits):
                bits[branch][n] = x.new_tensor(8.0 * len(stream) if k == 0 else 0.0)
        return CodecOutput(torch.stack(x_hat), {b: torch.stack(v) for b, v in bits.items()}, out.pixels)

    def estimated_bpp(self, x: Tensor, surrogate: str | None = "ste") -> Tensor:
        """Of what is sent, [B]."""
        bpp = list(self.codec.estimated_bpp(x, surrogate))
        for n, image in enumerate(self._not_sent(x)):
            if image is not None:
                bpp[n] = x.new_tensor(real_bpp([image[0]], x[n : n + 1])[0])
        return torch.stack(bpp)

    @torch.no_grad()
    def _not_sent(self, x: Tensor) -> list[tuple[bytes, Tensor] | None]:
        """For each image None where the codec's picture is sent, judged by its true rounding and estimated bits, else the fallback."""
        seen = x.detach().clamp(0, 1)
        out = self.codec(seen, None, rate=not math.isinf(self.how.cap))
        bad = psnr(seen, out.x_hat) < self.how.floor
        if not math.isinf(self.how.cap):
            bad |= (out.bpp > self.how.cap).to(bad)
        found = [self._fallback(seen[n : n + 1])[1:] if fails else None for n, fails in enumerate(bad.tolist())]
        return [(f[0], f[1][0]) if f else None for f in found]
