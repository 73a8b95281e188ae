"""A codec of two transforms and a quantiser of one step: the shortest way from networks of one's own to attacks, files and tables.

class Blocks(TransformCodec):                       # or TransformCodec from a folder: OnnxCodec("my_networks", step=1.0)
    def analysis(self, x): ...                      # [B, 3, H, W] in [0, 1] -> latents [B, C, h, w]
    def synthesis(self, y): ...                     # and back

It has no entropy model. Its files hold the whole numbers packed by zlib: real files, and larger than a trained entropy model's.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.codecs.base import Codec, CodecOutput, Images, check_streams, stack
from nic_helpers.codecs.bitstream import DECODED_PIXELS, BitstreamError, check_pixels, check_size
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.codecs.quantisers import quantiser_of
from nic_helpers.images import check_images
from nic_helpers.settings import get_device

_HEADER = struct.Struct(">HHHHH")  # height and width of the image; channels, height and width of the latents
LARGEST = 2**15 - 1  # of a whole number in a file
FILES = ("analysis.onnx", "synthesis.onnx")


class TransformCodec(Codec):
    """The base of such codecs: a subclass gives ``analysis`` and ``synthesis``.

    ``step``: the quantiser's, on all latents, and the codec's ``quality`` (lower is better). ``multiple``: the sides that the
    transforms take; images are padded by their edge inside. ``bits`` are those of a two-sided geometric law fitted to each channel
    of each image: smooth, near what zlib makes of it, and the law itself is not sent.
    """

    name = "transforms"

    def __init__(self, step: float = 1.0, multiple: int = 16, name: str | None = None, device=None):
        if not isinstance(step, Real) or isinstance(step, bool) or not 0 < step < math.inf:
            raise ValueError(f"step is the quantiser's, a number above 0, got {step!r}")
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f"multiple is the sides that the transforms take, a whole number from 1, got {multiple!r}")
        self.quality, self.multiple, self.device = float(step), multiple, get_device(device)
        self.name = name or self.name

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.name}, step {self.quality:.3g}"

    def analysis(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] with padded sides -> latents [B, C, h, w]."""
        raise TypeError(f"{type(self).__name__} needs analysis(x) and synthesis(y)")

    def synthesis(self, y: Tensor) -> Tensor:
        """Latents -> images; the clamp to [0, 1] is done for you."""
        raise TypeError(f"{type(self).__name__} needs analysis(x) and synthesis(y)")

    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """Differentiable pass over x [B, 3, H, W] in [0, 1]; of a list of [3, H, W] a list of outputs."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in x]
        check_images(x)
        height, width = x.shape[2:]
        q = quantiser_of(surrogate)(self._latents(x))
        x_hat = self._picture(q, height, width).to(x.device)
        return CodecOutput(x_hat, {"y": _bits(q).to(x.device)} if rate else {}, height * width)

    def encode(self, x: Images) -> list[bytes]:
        """One file per image: sizes, the latents' whole numbers packed by zlib, a checksum."""
        with torch.no_grad():
            return [self._file(image) for image in x]

    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Files -> images on the CPU; BitstreamError for what is none, or claims more than ``most_pixels``."""
        check_streams(streams)
        with torch.no_grad():
            return stack([self._image(bytes(s), most_pixels) for s in streams])

    def _latents(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.to(self.device, torch.float32)
        return self.analysis(F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")) / self.quality

    def _picture(self, q: Tensor, height: int, width: int) -> Tensor:
        x_hat = self.synthesis(q * self.quality)
        if x_hat.ndim != 4 or x_hat.shape[1] != 3 or x_hat.shape[2] < height or x_hat.shape[3] < width:
            raise ValueError(f"the synthesis gives {tuple(x_hat.shape)}, and pictures [B, 3, {height}, {width}] are needed")
        return x_hat[..., :height, :width].clamp(0, 1)

    def _file(self, image: Tensor) -> bytes:
        check_images(image[None])
        height, width = image.shape[1:]
        check_size(height, width)
        q = self._latents(image[None])[0].round()
        if not bool(q.isfinite().all()) or float(q.abs().max()) > LARGEST:
            raise ValueError(f"a latent is beyond ±{LARGEST} steps: take a larger step")
        body = _HEADER.pack(height, width, *q.shape) + zlib.compress(_bytes(q), 9)
        return body + struct.pack(">I", zlib.crc32(body))

    def _image(self, stream: bytes, most_pixels: float) -> Tensor:
        body, end = stream[:-4], stream[-4:]
        if len(body) <= _HEADER.size or struct.pack(">I", zlib.crc32(body)) != end:
            raise BitstreamError(f"not a whole, undamaged file of {self.name}: its checksum does not match")
        height, width, *shape = _HEADER.unpack_from(body)
        check_pixels(height, width, most_pixels, len(stream))
        blank = torch.zeros(1, 3, self.multiple, self.multiple, device=self.device)
        unit = self.analysis(blank).shape  # of one padded block, by which the latents' size is known
        expected = (unit[1], *(-(-side // self.multiple) * u for side, u in zip((height, width), unit[2:], strict=True)))
        count = 2 * math.prod(shape)
        if 0 in (height, width) or tuple(shape) != tuple(expected):
            raise BitstreamError(
                f"{self.name}'s latents of {height}×{width} pixels are {expected}, and the file says {tuple(shape)}"
            )
        unpacker = zlib.decompressobj()
        try:
            numbers = unpacker.decompress(body[_HEADER.size :], count)
        except zlib.error as error:
            raise BitstreamError(f"{self.name} cannot unpack this: {error}") from error
        if len(numbers) != count:
            raise BitstreamError(f"{self.name}'s file holds {len(numbers)} bytes of latents, and needs {count}")
        q = _numbers(numbers).reshape(1, *shape)
        return self._picture(q.to(self.device), height, width)[0].cpu()


class OnnxCodec(TransformCodec):
    """A codec of a folder's ``analysis.onnx`` and ``synthesis.onnx``, each with one input and one output, by onnx2torch.

    FileNotFoundError where one is missing; ValueError where they do not fit together, or hold what onnx2torch cannot read.
    """

    name = "onnx"

    def __init__(self, folder: str | Path, step: float = 1.0, multiple: int = 16, name: str | None = None, device=None):
        import onnx  # only here, as it takes a while
        import onnx2torch

        super().__init__(step, multiple, name, device)
        folder = Path(folder)
        if missing := [f for f in FILES if not (folder / f).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {' and '.join(missing)}: a codec is a folder that holds {' and '.join(FILES)}")
        contents = [(folder / f).read_bytes() for f in FILES]
        self._networks = []
        for file, content in zip(FILES, contents, strict=True):
            try:
                network = onnx2torch.convert(onnx.load_model_from_string(content))
            except Exception as error:  # of many kinds
                raise ValueError(f"{folder / file} cannot be read by onnx2torch: {type(error).__name__}: {error}") from error
            self._networks.append(network.eval().requires_grad_(False).to(self.device))
        digest = hashlib.sha256(b"".join(contents)).hexdigest()
        self.weights = Weights({}, "onnx", folder.name, digest, math.nan)
        try:
            self.reconstruct(torch.full((1, 3, multiple, multiple), 0.5))
        except Exception as error:
            raise ValueError(
                f"{folder}: the two networks do not fit together, or multiple={multiple} is not theirs: {error}"
            ) from error

    def analysis(self, x: Tensor) -> Tensor:
        """The first network."""
        return self._networks[0](x)

    def synthesis(self, y: Tensor) -> Tensor:
        """The second."""
        return self._networks[1](y)


def _bytes(q: Tensor) -> bytes:
    """Whole numbers as bytes: 0, −1, 1, −2 … counted from 0, all low bytes before all high ones, which zlib packs better."""
    counted = torch.where(q < 0, -2 * q - 1, 2 * q).to(torch.int32).flatten().cpu()
    return torch.cat((counted & 255, counted >> 8)).to(torch.uint8).numpy().tobytes()


def _numbers(packed: bytes) -> Tensor:
    """The inverse of :func:`_bytes`."""
    low, high = torch.frombuffer(bytearray(packed), dtype=torch.uint8).to(torch.int32).chunk(2)
    counted = low + (high << 8)
    return torch.where(counted % 2 == 1, -(counted + 1) // 2, counted // 2).float()


def _bits(q: Tensor) -> Tensor:
    """Bits [B] of the latents [B, C, h, w]: magnitudes by a geometric law with each channel's mean, a sign where not zero."""
    mean = q.abs().mean((2, 3)) + 1e-4
    each = (1 + mean) * torch.log2(1 + mean) - mean * torch.log2(mean) + mean / (1 + mean)
    return q.shape[2] * q.shape[3] * each.sum(1)
