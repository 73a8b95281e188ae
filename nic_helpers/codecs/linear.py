"""A codec without a network: learned principal components of blocks, and rounding. What an attack can do to it is known exactly.

codec = LinearCodec(load_images("bundled"), step=8, keep=48)

Between the two roundings everything is linear, and its basis is orthonormal: no change of the picture leaves it larger than it came in,
but for what the rounding adds (:func:`nic_helpers.analysis.worst_case` says how much).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.codecs import bitstream
from nic_helpers.codecs.base import SMALLEST_SIDE, Codec, CodecOutput, Images, check_streams, own_precision, stack
from nic_helpers.codecs.bitstream import DECODED_PIXELS
from nic_helpers.codecs.quantisers import quantiser_of, round_true
from nic_helpers.codecs.tables import Tables, codable
from nic_helpers.images import as_images, check_images
from nic_helpers.settings import get_device

BLOCK = 8  # pixels a side
COMPONENTS = 3 * BLOCK**2
_LONGEST_TABLE = 4096  # symbols on either side of zero
_SMALLEST_SPREAD = 0.08  # of a table, in symbols
_LEAST = 1e-9  # likelihood


class LinearCodec(Codec):
    """The Karhunen–Loève transform of 8×8 blocks over all three colours, and rounding.

    ``images``: tensors [3, H, W] in [0, 1] whose blocks' principal components are the basis (at least 192 blocks in all); ``step``: the
    quantiser's step in 8-bit levels, a whole number from 1 to 255, and the codec's ``quality`` (lower is better); ``keep``: how many of
    the 192 components are coded, those of the largest variance; the others are set to their mean. ValueError for what is none of that.

    Each component has a table of a Laplace distribution with the spread that it has in ``images``; there is no side information.
    ``basis`` [keep, 3, 8, 8], orthonormal; ``centre`` [1, 3, 1, 1], the images' mean colour. It computes in float64.
    """

    name = "klt"
    activation_bytes = 200.0

    def __init__(self, images: Sequence[Tensor], step: int = 8, keep: int = COMPONENTS, device: str | torch.device | None = None):
        if not isinstance(step, Integral) or isinstance(step, bool) or not 1 <= step <= 255:
            raise ValueError(f"step must be a whole number of 8-bit levels from 1 to 255, got {step!r}")
        if not isinstance(keep, Integral) or isinstance(keep, bool) or not 1 <= keep <= COMPONENTS:
            raise ValueError(f"keep must be a whole number of components from 1 to {COMPONENTS}, got {keep!r}")
        check_images(list(images), BLOCK)
        self.quality, self.keep, self.device = int(step), int(keep), get_device(device)
        centre, basis, spread = principal_components(images)
        self.centre, self.basis = centre.to(self.device), basis[:keep].to(self.device)
        self.spread = spread[:keep] * 255 / step  # in symbols
        self._tables = laplace_tables(self.spread)
        parts = (self.basis.float(), self.spread.float(), self.centre.float())
        self._fingerprint = hashlib.sha256(b"".join(p.cpu().numpy().tobytes() for p in parts)).hexdigest()

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.name}, step {self.quality}" + (f", {self.keep} of {COMPONENTS}" if self.keep < COMPONENTS else "")

    # ------------------------------------------------------------------------------------------------ differentiable
    def analysis(self, x: Tensor) -> Tensor:
        """Coefficients y [B, keep, ⌈H/8⌉, ⌈W/8⌉] of images x [B, 3, H, W], in steps; not rounded."""
        check_images(x, SMALLEST_SIDE)
        x = x.to(self.device, torch.float64)
        x = F.pad(x, (0, -x.size(3) % BLOCK, 0, -x.size(2) % BLOCK), mode="replicate")
        return F.conv2d(x - self.centre, self.basis, stride=BLOCK) * (255 / self.quality)

    def synthesis(self, y_hat: Tensor) -> Tensor:
        """The picture [B, 3, 8h, 8w], not clamped, of coefficients in steps."""
        return F.conv_transpose2d(y_hat * (self.quality / 255), self.basis, stride=BLOCK) + self.centre

    @own_precision()
    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """Differentiable pass over x [B, 3, H, W] (for a list of [3, H, W]: a list of outputs)."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in as_images(x)]
        quantise = quantiser_of(surrogate)
        y_hat = quantise(self.analysis(x))
        x_hat = self._picture(y_hat, *x.shape[2:]).to(x)
        bits = {"y": self._bits(y_hat).to(x)} if rate else {}
        return CodecOutput(x_hat, bits, x.size(2) * x.size(3))

    def _picture(self, y_hat: Tensor, height: int, width: int) -> Tensor:
        return self.synthesis(y_hat)[..., :height, :width].clamp(0, 1)

    def _bits(self, y_hat: Tensor) -> Tensor:
        """Estimated bits [B]: −Σ log2 of the Laplace distribution's mass within ±½ of each coefficient."""
        spread = self.spread.clamp_min(_SMALLEST_SPREAD).to(y_hat).view(1, -1, 1, 1)
        mass = _laplace_below(0.5 - y_hat.abs(), spread) - _laplace_below(-0.5 - y_hat.abs(), spread)
        return -torch.log2(mass.clamp_min(_LEAST)).flatten(1).sum(1)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """What comes out of each layer for images x, the (padded) images first, the clamped picture last."""
        y = self.analysis(x)
        y_hat = round_true(y)
        x = F.pad(x.to(y), (0, -x.size(3) % BLOCK, 0, -x.size(2) % BLOCK), mode="replicate")
        return {"input": x, "g_a.0": y, "quantiser": y_hat, "g_s.0": self.synthesis(y_hat).clamp(0, 1)}

    # -------------------------------------------------------------------------------------------------- real streams
    @torch.no_grad()
    @own_precision()
    def encode(self, x: Images) -> list[bytes]:
        """One bitstream per image, in the container of the learned codecs."""
        return [self._encode(image[None]) for image in as_images(x)]

    def _encode(self, x: Tensor) -> bytes:
        height, width = x.shape[2:]
        bitstream.check_size(height, width)
        symbols = codable(round_true(self.analysis(x))[0]).flatten(1)
        indexes = np.repeat(np.arange(self.keep), symbols.size(1))
        string = self._tables.encode(symbols.long().flatten().numpy(), indexes)
        return bitstream.pack(self.name, self.quality, self._fingerprint, height, width, (string,))

    @torch.no_grad()
    @own_precision()
    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Bitstreams -> images on the CPU: [B, 3, H, W] in [0, 1], or a list where sizes differ."""
        check_streams(streams)
        return stack([self._decode(s, most_pixels) for s in streams])

    def _decode(self, stream: bytes, most_pixels: float) -> Tensor:
        packet = bitstream.unpack(stream, self.name, self.quality, self._fingerprint, 1)
        densest = 8 * BLOCK**2 / max(0.99 * self._tables.fewest_bits.sum(), 1e-3)
        bitstream.check_pixels(packet.height, packet.width, most_pixels, len(stream), densest)
        h, w = (-(-side // BLOCK) for side in (packet.height, packet.width))
        reader = self._tables.reader(packet.strings[0], self.keep * h * w)
        symbols = torch.from_numpy(reader.read(np.repeat(np.arange(self.keep), h * w)))
        y_hat = symbols.double().view(1, self.keep, h, w).to(self.device)
        return self._picture(y_hat, packet.height, packet.width)[0].float().cpu()


@torch.no_grad()
@own_precision()
def principal_components(images: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of all whole 8×8 blocks of images [3, H, W]: their mean colour [1, 3, 1, 1], principal components [192, 3, 8, 8], the largest
    variance first, and the mean size of each one's coefficient [192], on [0, 1]. ValueError for fewer than 192 blocks."""
    cut = [F.unfold(image[None].double().cpu(), BLOCK, stride=BLOCK)[0].T for image in images]
    blocks = torch.cat(cut)
    if len(blocks) < COMPONENTS:
        raise ValueError(
            f"{len(blocks)} blocks of {BLOCK}×{BLOCK} pixels are too few for {COMPONENTS} components: give more images"
        )
    centre = blocks.view(len(blocks), 3, -1).mean((0, 2))
    blocks = blocks - centre.repeat_interleave(BLOCK**2)
    vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks)).eigenvectors.flip(1).T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * largest.sign()  # of a vector and its opposite always the same
    return centre.view(1, 3, 1, 1), vectors.reshape(-1, 3, BLOCK, BLOCK), (blocks @ vectors.T).abs().mean(0)


def _laplace_below(v: Tensor, spread: Tensor) -> Tensor:
    """The mass of a Laplace distribution with mean size ``spread`` below v."""
    half = 0.5 * torch.exp(-v.abs() / spread)
    return torch.where(v < 0, half, 1 - half)


def laplace_tables(spread: Tensor) -> Tables:
    """The range coder's tables of Laplace distributions with these mean sizes [K], in symbols."""
    pmfs, tails, offsets = [], [], []
    for size in spread.clamp_min(_SMALLEST_SPREAD).double().cpu():
        reach = min(_LONGEST_TABLE, math.ceil(float(size) * -math.log(1e-7)))
        away = torch.arange(-reach, reach + 1, dtype=torch.float64).abs()
        pmfs.append((_laplace_below(0.5 - away, size) - _laplace_below(-0.5 - away, size)).numpy())
        tails.append(2 * float(_laplace_below(torch.tensor(-reach - 0.5, dtype=torch.float64), size)))
        offsets.append(-reach)
    return Tables(pmfs, tails, offsets)
