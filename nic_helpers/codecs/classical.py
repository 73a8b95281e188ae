"""Classical codecs behind the neural codecs' protocol: real files, native quality scales, no gradient.

The image formats are Pillow's; HEVC, VVC and JPEG XL are those of the ffmpeg that imageio-ffmpeg brings
(IMAGEIO_FFMPEG_EXE names another). A standard's reference software is plugged in by
:class:`nic_helpers.codecs.files.CommandCodec`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from nic_helpers.codecs.bitstream import BitstreamError, check_pixels
from nic_helpers.codecs.files import CommandCodec, FileCodec, ffmpeg
from nic_helpers.images import from_pil, to_pil


@dataclass(frozen=True)
class Format:
    """A native quality scale, and ``coder``, which makes the codec at a point of it."""

    coder: Callable[[float], FileCodec]
    qualities: tuple[float, ...]  # from low to high rate
    default: float
    lowest: float
    highest: float
    scale: str
    densest: float = math.inf  # pixels a byte: four times those of a grey picture of 32 megapixels at the lowest quality


class PillowCodec(FileCodec):
    """A format of Pillow's with its save options."""

    def __init__(self, name: str, quality: float, options: dict):
        self.name, self.quality, self._options = name, quality, options

    def _encode(self, image: Tensor) -> bytes:
        buffer = io.BytesIO()
        to_pil(image).save(buffer, self.name, **self._options)
        return buffer.getvalue()

    def _decode(self, stream: bytes, most_pixels: float) -> Tensor:
        try:
            with Image.open(io.BytesIO(stream), formats=[self.name]) as image:  # reads the header alone
                check_pixels(image.height, image.width, most_pixels, len(stream), self.densest)
                return from_pil(image)
        except BitstreamError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds; none of them may pass as a picture
            raise BitstreamError(f"not a whole {self.name} file: {error}") from error


def _pillow(name: str, options: Callable[[float], dict]) -> Callable[[float], FileCodec]:
    return lambda quality: PillowCodec(name, quality, options(quality))


# full-range YCbCr (BT.709) in ten bits, so that the conversion costs nothing beside the coding
_EXACT = "flags=accurate_rnd+full_chroma_int+lanczos"
_TO_YCBCR = f"scale=out_color_matrix=bt709:in_range=full:out_range=full:{_EXACT}"
_TO_RGB = f"scale=in_color_matrix=bt709:in_range=full:out_range=full:{_EXACT},format=rgb24"


def _ffmpeg(name: str, suffix: str, encoder: list[str], decoder: list[str], multiple: int | None):
    def coder(quality: float) -> FileCodec:
        start = [ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-xerror", "-y", "-threads", "1"]
        return CommandCodec(
            name,
            encode=[*start, "-i", "{source}", *encoder, "-threads", "1", "-frames:v", "1", "{stream}"],
            decode=[
                *start,
                "-max_pixels",
                "{most_pixels}",
                *decoder,
                "-i",
                "{stream}",
                "-vf",
                _TO_RGB if multiple else "format=rgb24",
                "-frames:v",
                "1",
                "{picture}",
            ],
            quality=quality,
            suffix=suffix,
            multiple=multiple,
            smallest=32,
        )

    return coder


_X265 = "qp={quality}:keyint=1:info=0:log-level=error:pools=none:frame-threads=1:range=full:colormatrix=bt709"
#: Settings are each format's usual best for still images: optimised Huffman tables for JPEG, 4:4:4 where the encoder has
#: it, no perceptual tuning where PSNR is measured.
CLASSICAL: dict[str, Format] = {
    "jpeg": Format(
        _pillow("JPEG", lambda q: {"quality": int(q), "optimize": True}),
        tuple(range(5, 100, 5)),
        30,
        1,
        100,
        "quality 1–100, Pillow's 4:2:0 chroma, optimised Huffman tables",
        700,
    ),
    "jpeg-plain": Format(
        _pillow("JPEG", lambda q: {"quality": int(q)}),
        tuple(range(5, 100, 5)),
        30,
        1,
        100,
        "quality 1–100, Pillow's defaults (4:2:0, standard Huffman tables), as in CompressAI's published curve",
        700,
    ),
    "jpeg2000": Format(
        _pillow(
            "JPEG2000", lambda r: {"quality_mode": "rates", "quality_layers": [r], "irreversible": True, "mct": 1, "no_jp2": True}
        ),
        (160, 120, 96, 72, 56, 48, 40, 32, 26, 20, 16, 12, 10),
        48,
        1,
        2000,
        "compression ratio against 24 bits a pixel: lower is better quality (9/7 wavelet, raw codestream)",
    ),
    "webp": Format(
        _pillow("WEBP", lambda q: {"quality": int(q), "method": 6}),
        (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
        40,
        0,
        100,
        "quality 0–100, lossy, method 6 (always 4:2:0)",
        2_300,
    ),
    "avif": Format(
        _pillow("AVIF", lambda q: {"quality": int(q), "subsampling": "4:4:4", "speed": 6, "max_threads": 1}),
        (10, 20, 30, 40, 50, 60, 70, 80, 90),
        50,
        0,
        100,
        "quality 0–100, 4:4:4, speed 6",
        160_000,
    ),
    "jpegxl": Format(
        _ffmpeg(
            "jpegxl",
            "jxl",
            ["-c:v", "libjxl", "-distance", "{quality}", "-effort", "7"],
            ["-f", "jpegxl_pipe", "-c:v", "libjxl"],
            None,
        ),
        (9.5, 7, 5, 3, 2, 1, 0.5),
        3,
        0.1,
        15,  # at 10 a picture has more bytes than at 9.5, and is 0.6 dB worse
        "Butteraugli distance 0.1–15: lower is better quality (libjxl, effort 7, tuned to the eye and not to PSNR; from "
        "distance 10 on it codes the picture at half its size)",
    ),
    "hevc": Format(
        _ffmpeg(
            "hevc",
            "hevc",
            [
                "-vf",
                f"{_TO_YCBCR},format=yuv444p10le",
                "-c:v",
                "libx265",
                "-preset",
                "slow",
                "-tune",
                "psnr",
                "-x265-params",
                _X265,
            ],
            ["-f", "hevc"],
            8,
        ),
        (44, 40, 36, 32, 28, 24, 20),
        34,
        0,
        51,
        "QP 0–51: lower is better quality (x265, intra, 4:4:4, 10 bits, preset slow, tuned to PSNR)",
        18_000,
    ),
    "vvc": Format(
        _ffmpeg(
            "vvc",
            "vvc",
            ["-vf", f"{_TO_YCBCR},format=yuv420p10le", "-c:v", "libvvenc", "-preset", "medium", "-qp", "{quality}", "-qpa", "0"],
            ["-f", "vvc"],
            8,
        ),
        (46, 42, 38, 34, 30, 26, 22),
        36,
        0,
        63,
        "QP 0–63: lower is better quality (VVenC, intra, preset medium, tuned to PSNR; always 4:2:0, 10 bits)",
        220_000,
    ),
}


class ClassicalCodec(FileCodec):
    """A format of :data:`CLASSICAL` at a point of its quality scale."""

    def __init__(self, name: str, quality: float | None = None):
        self.name, self.format = name, CLASSICAL[name]
        self.quality = self.format.default if quality is None else quality
        if not isinstance(self.quality, (int, float)) or not self.format.lowest <= self.quality <= self.format.highest:
            raise ValueError(
                f"{name} has no quality {quality!r}: give {self.format.lowest} to {self.format.highest} ({self.format.scale})"
            )
        self._coder = self.format.coder(self.quality)
        self._coder.densest = self.format.densest

    def _encode(self, image: Tensor) -> bytes:
        return self._coder._encode(image)

    def _decode(self, stream: bytes, most_pixels: float) -> Tensor:
        return self._coder._decode(stream, most_pixels)
