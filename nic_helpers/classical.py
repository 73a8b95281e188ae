"""Classical codecs behind the neural codecs' protocol: real files, native quality scales, no gradient."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from nic_helpers.bitstream import BitstreamError
from nic_helpers.codecs import Coded, Images, by_size, stack
from nic_helpers.images import check_images, from_pil, to_pil


@dataclass(frozen=True)
class Format:
    """One file format: Pillow's name for it, its save options at a quality, and its native quality scale."""

    pillow: str
    options: Callable[[float], dict]
    qualities: tuple[float, ...]  # from low to high rate
    default: float
    lowest: float
    highest: float
    scale: str


#: Settings are each format's usual best for still images: optimised Huffman tables for JPEG, 4:4:4 for AVIF.
CLASSICAL: dict[str, Format] = {
    "jpeg": Format(
        "JPEG", lambda q: {"quality": int(q), "optimize": True}, tuple(range(5, 100, 5)), 30, 1, 100,
        "quality 1–100, Pillow's 4:2:0 chroma, optimised Huffman tables",
    ),
    "jpeg-plain": Format(
        "JPEG", lambda q: {"quality": int(q)}, tuple(range(5, 100, 5)), 30, 1, 100,
        "quality 1–100, Pillow's defaults (4:2:0, standard Huffman tables), as in CompressAI's published curve",
    ),
    "jpeg2000": Format(
        "JPEG2000",
        lambda r: {"quality_mode": "rates", "quality_layers": [r], "irreversible": True, "mct": 1, "no_jp2": True},
        (160, 120, 96, 72, 56, 48, 40, 32, 26, 20, 16, 12, 10), 48, 1, 2000,
        "compression ratio against 24 bits a pixel: lower is better quality (9/7 wavelet, raw codestream)",
    ),
    "webp": Format(
        "WEBP", lambda q: {"quality": int(q), "method": 6}, (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95), 40, 0, 100,
        "quality 0–100, lossy, method 6 (always 4:2:0)",
    ),
    "avif": Format(
        "AVIF", lambda q: {"quality": int(q), "subsampling": "4:4:4", "speed": 6, "max_threads": 1},
        (10, 20, 30, 40, 50, 60, 70, 80, 90), 50, 0, 100, "quality 0–100, 4:4:4, speed 6",
    ),
}  # fmt: skip


class ClassicalCodec:
    """A Pillow format as a codec: the same ``encode``, ``decode``, ``reconstruct``, ``roundtrip`` as a neural one."""

    differentiable = False
    lmbda = float("nan")

    def __init__(self, name: str, quality: float | None = None):
        self.name, self.format = name, CLASSICAL[name]
        self.quality = self.format.default if quality is None else quality
        if not isinstance(self.quality, (int, float)) or not self.format.lowest <= self.quality <= self.format.highest:
            raise ValueError(
                f"{name} has no quality {quality!r}: give {self.format.lowest} to {self.format.highest} ({self.format.scale})"
            )

    def __repr__(self) -> str:
        return f"ClassicalCodec({self.name}, quality={self.quality})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.name} {self.quality}"

    def __call__(self, x, surrogate=None, rate=True):
        """Not available: says what to use instead."""
        raise TypeError(f"{self.name} is not differentiable: attack it through BPDA (identity backward) or with Square")

    forward = __call__

    def encode(self, x: Images) -> list[bytes]:
        """One complete file per image."""
        if isinstance(x, Tensor):
            check_images(x)
        return [self._encode(image) for image in x]

    def _encode(self, image: Tensor) -> bytes:
        check_images(image[None])
        buffer = io.BytesIO()
        to_pil(image).save(buffer, self.format.pillow, **self.format.options(self.quality))
        return buffer.getvalue()

    def decode(self, streams: Sequence[bytes]) -> Images:
        """Files -> images: [B, 3, H, W] in [0, 1], or a list where sizes differ; BitstreamError for what is no file."""
        if isinstance(streams, (bytes, bytearray)):
            raise TypeError("decode takes a list of bitstreams: decode([stream])")
        return stack([self._decode(s) for s in streams])

    def _decode(self, stream: bytes) -> Tensor:
        try:
            with Image.open(io.BytesIO(stream), formats=[self.format.pillow]) as image:
                return from_pil(image)
        except Exception as error:  # Pillow's decoders raise many kinds; none of them may pass as a picture
            raise BitstreamError(f"not a whole {self.format.pillow} file: {error}") from error

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """The decoded image, [B, 3, H, W] in [0, 1]."""
        if surrogate is not None:
            self(x)
        return self.decode(self.encode(x)).to(x.device)

    def roundtrip(self, x: Images) -> Coded:
        """The files and what they decode to."""
        streams = self.encode(x)
        images = [self._decode(s).to(image.device) for s, image in zip(streams, x, strict=True)]
        return Coded(streams, torch.stack(images) if isinstance(x, Tensor) else images)
