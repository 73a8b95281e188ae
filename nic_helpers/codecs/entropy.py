"""Real entropy coding of latents: coding tables, the range coder, and the sequential walk of a context model.

Encoder and decoder must compute bit-identical coding parameters, or everything after the first difference is lost. So
the networks that feed the range coder run here in float64 on the CPU, whatever device the transforms run on: a
difference between two machines' last bits is then 2²⁹ times smaller than in float32, and as much less likely to move a symbol.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from compressai._CXX import pmf_to_quantized_cdf
from compressai.ans import BufferedRansEncoder, RansDecoder
from torch import Tensor, nn

from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.models import SMALLEST_SCALE, Architecture, bottleneck_step, dequantise, gain

_PRECISION = 16  # bits of the quantised probabilities
_TAIL = 1e-9
_LARGEST_SYMBOL = 2**27
SCALE_TABLE = torch.from_numpy(np.exp(np.linspace(np.log(SMALLEST_SCALE), np.log(256), 64)))  # as CompressAI's
# A string is followed by zero bytes, so that no input makes the decoder read out of bounds: an ordinary symbol takes up
# to two bytes, and each half byte of an escape's length can ask for fifteen more half bytes.
_SLACK_PER_SYMBOL, _SLACK_PER_BYTE = 8, 16
_LONGEST_PER_SYMBOL = 16  # bytes; no encoder writes more, and a longer string is refused


class Tables:
    """Quantised cumulative distributions: for index i, ``cdfs[i]`` over the symbols ``offsets[i]`` …, then an escape."""

    def __init__(self, pmfs: list[np.ndarray], tails: list[float], offsets: list[int]):
        self.cdfs = [pmf_to_quantized_cdf([*pmf, tail], _PRECISION) for pmf, tail in zip(pmfs, tails, strict=True)]
        self.offsets = offsets
        #: Bits of the likeliest symbol of each: no encoder writes fewer.
        self.fewest_bits = np.array([_PRECISION - np.log2(np.diff(c).max()) for c in self.cdfs])

    def _part(self, indexes: np.ndarray) -> tuple[list, list, list, list]:
        # only the rows in use cross over to C++: converting all of them costs more than coding
        used, compact = np.unique(indexes, return_inverse=True)
        cdfs = [self.cdfs[i] for i in used]
        return compact.tolist(), cdfs, [len(c) for c in cdfs], [self.offsets[i] for i in used]

    def encode(self, symbols: np.ndarray, indexes: np.ndarray) -> bytes:
        """Integer symbols and their tables' indexes (flat, in coding order) -> bytes."""
        encoder = BufferedRansEncoder()
        compact, *tables = self._part(indexes)
        encoder.encode_with_indexes(symbols.tolist(), compact, *tables)
        return encoder.flush()

    def decoder(self, string: bytes, count: int) -> Decoder:
        """A decoder of ``count`` symbols in all, asked for piece by piece."""
        return Decoder(self, string, count)


class Decoder:
    """Reads symbols off one string in coding order."""

    def __init__(self, tables: Tables, string: bytes, count: int):
        if len(string) > _LONGEST_PER_SYMBOL * count + 64:
            raise BitstreamError(f"a string of {len(string)} bytes is too long for {count} symbols")
        self._tables, self._rans = tables, RansDecoder()
        self._rans.set_stream(string + bytes(_SLACK_PER_SYMBOL * count + _SLACK_PER_BYTE * len(string) + 64))

    def read(self, indexes: np.ndarray) -> np.ndarray:
        """The next len(indexes) symbols."""
        compact, *tables = self._tables._part(indexes)
        return np.array(self._rans.decode_stream(compact, *tables), dtype=np.int64)


def gaussian_tables() -> Tables:
    """Tables of zero-mean Gaussians at the scales of :data:`SCALE_TABLE`."""
    reach = np.ceil(SCALE_TABLE.numpy() * -scipy.stats.norm.ppf(_TAIL / 2)).astype(int)
    pmfs, tails = [], []
    for scale, r in zip(SCALE_TABLE.numpy(), reach, strict=True):
        distance = np.abs(np.arange(-r, r + 1))
        lower = scipy.stats.norm.cdf((-0.5 - distance) / scale)
        pmfs.append(scipy.stats.norm.cdf((0.5 - distance) / scale) - lower)
        tails.append(2 * lower[0])
    return Tables(pmfs, tails, (-reach).tolist())


@torch.no_grad()
def bottleneck_tables(bottleneck: nn.Module, step: Tensor | None = None) -> Tables:
    """Tables of a factorised entropy bottleneck, one for each channel, over its quantiles' range.

    ``step``: the quantiser's step, where it is not 1 (variable-rate codecs).
    """
    bottleneck = copy.deepcopy(bottleneck).cpu().double()
    width = torch.ones(1, dtype=torch.float64) if step is None else step
    low, median, high = (bottleneck.quantiles[:, 0] / width).unbind(1)
    below = torch.ceil(median - low).clamp(0, 4096).long()
    above = torch.ceil(high - median).clamp(0, 4096).long()
    steps = torch.arange(int((below + above).max()) + 1)
    samples = (steps - below[:, None] + median[:, None])[:, None] * width
    if step is None:
        likelihood, lower, upper = bottleneck._likelihood(samples)
    else:
        likelihood, lower, upper = bottleneck._likelihood_variable(samples, qs=step)
    tail = torch.sigmoid(lower[:, 0, 0])
    pmfs, tails = [], []
    for c, length in enumerate((below + above + 1).tolist()):
        pmfs.append(likelihood[c, 0, :length].clamp_min(0).numpy())
        tails.append(float(tail[c] + torch.sigmoid(-upper[c, 0, length - 1])))
    return Tables(pmfs, tails, (-below).tolist())


class EntropyCoder:
    """The exact (float64, CPU) side of a codec's entropy model: from latents to strings and back."""

    def __init__(self, arch: Architecture, model: nn.Module):
        self.arch = arch
        self.step = self.gain = None
        if arch.variable:
            exact = copy.deepcopy(model).cpu().double()
            exact.level = model.level
            self.gain, self.step, self.offsets = gain(exact), bottleneck_step(exact).detach(), exact.QuantABCD
        self.bottleneck = bottleneck_tables(model.entropy_bottleneck, self.step)
        self.medians = model.entropy_bottleneck._get_medians().detach().double().cpu().reshape(1, -1, 1, 1)
        if not arch.side_information:
            return
        self.gaussian = gaussian_tables()
        self.h_s = copy.deepcopy(model.h_s).cpu().double()
        if arch.context:
            self.parameters = copy.deepcopy(model.entropy_parameters).cpu().double()
            masked = (model.context_prediction.weight * model.context_prediction.mask).detach().double().cpu()
            self.taps = [(i, j) for i in range(5) for j in range(5) if (i, j) < (2, 2)]  # what is decoded already
            self.context_weight = torch.cat([masked[:, :, i, j] for i, j in self.taps], dim=1)  # [2M, 12·M]
            self.context_bias = model.context_prediction.bias.detach().double().cpu()

    def check_bottleneck(self, string: bytes, shape: tuple[int, int]) -> None:
        """BitstreamError for a string shorter than any that stands for (h, w) positions of what the bottleneck codes.

        Each costs at least what the likeliest symbol of each table does, so a few bytes can't ask for a large image. (Of the
        latents under a hyperprior nearly any number fits into a byte: at the smallest scale a zero is as good as certain.)
        """
        bits = self.bottleneck.fewest_bits.sum() * shape[0] * shape[1]
        if 8 * len(string) < 0.99 * bits:  # the range coder's own rounding is far below a hundredth
            raise BitstreamError(
                f"a string of {len(string)} bytes is too short for the size that the bitstream claims: this codec's "
                f"encoder writes at least {math.ceil(bits / 8)}"
            )

    # ------------------------------------------------------------------------------------------------- bottleneck
    @property
    def _step(self) -> Tensor | float:
        return 1.0 if self.step is None else self.step

    def _bottleneck_indexes(self, shape: torch.Size) -> np.ndarray:
        return np.repeat(np.arange(shape[1]), shape[2] * shape[3])

    def quantise_bottleneck(self, v: Tensor) -> Tensor:
        """Integer symbols of what the bottleneck codes (z, or y without side information), float64 on the CPU."""
        return torch.round((_codable(v) - self.medians) / self._step)

    def dequantise_bottleneck(self, symbols: Tensor) -> Tensor:
        """The values [1, C, h, w] that symbols stand for."""
        return symbols * self._step + self.medians

    def encode_bottleneck(self, symbols: Tensor) -> bytes:
        """Symbols [1, C, h, w] -> string."""
        return self.bottleneck.encode(symbols.long().flatten().numpy(), self._bottleneck_indexes(symbols.shape))

    def decode_bottleneck(self, string: bytes, shape: tuple[int, int]) -> Tensor:
        """String -> dequantised [1, C, h, w], float64."""
        full = torch.Size((1, self.medians.size(1), *shape))
        symbols = self.bottleneck.decoder(string, full.numel()).read(self._bottleneck_indexes(full))
        return self.dequantise_bottleneck(torch.from_numpy(symbols).reshape(full).double())

    # ---------------------------------------------------------------------------------------------------- latents
    @torch.no_grad()
    def latents(self, y: Tensor, z_hat: Tensor, encode: bool = False) -> tuple[Tensor, bytes]:
        """What the decoder rebuilds from y [1, M, h, w] given ẑ: (ŷ float64, its string, empty unless ``encode``)."""
        y = _codable(y)
        if self.arch.context:
            return self._wavefront(self.h_s(z_hat), y=y, encode=encode)
        scales, means = self._scales_and_means(z_hat)
        symbols = torch.round(y - means if self.gain is None else y * self.gain)
        string = b""
        if encode:
            string = self.gaussian.encode(symbols.long().flatten().numpy(), _scale_indexes(scales).flatten())
        return self._dequantised(symbols, scales, means), string

    @torch.no_grad()
    def decode_latents(self, string: bytes, z_hat: Tensor) -> Tensor:
        """ŷ [1, M, h, w] from its string, given ẑ."""
        if self.arch.context:
            return self._wavefront(self.h_s(z_hat), string=string)[0]
        scales, means = self._scales_and_means(z_hat)
        symbols = self.gaussian.decoder(string, scales.numel()).read(_scale_indexes(scales).flatten())
        return self._dequantised(torch.from_numpy(symbols).reshape(scales.shape).double(), scales, means)

    def _scales_and_means(self, z_hat: Tensor) -> tuple[Tensor, Tensor | float]:
        params = self.h_s(z_hat)
        if self.gain is not None:
            return params * self.gain, 0.0
        return params.chunk(2, 1) if self.arch.means else (params, 0.0)

    def _dequantised(self, symbols: Tensor, scales: Tensor, means: Tensor | float) -> Tensor:
        if self.gain is None:
            return symbols + means
        return dequantise(self.offsets, symbols, scales, self.gain)

    def _wavefront(self, params: Tensor, y: Tensor | None = None, string: bytes = b"", encode: bool = False):
        """A context model, coded along wavefronts.

        The 5×5 context of position (i, j) reaches back two rows and, in the rows above, two columns ahead; so all
        positions with the same j + 3·i depend on earlier ones only and are computed together: W + 3·(H − 1) steps
        instead of H·W. Symbols are written in that order.
        """
        height, width = params.shape[2:]
        channels = params.size(1) // 2
        y_hat = F.pad(torch.zeros(1, channels, height, width, dtype=torch.float64), (2, 2, 2, 2))[0]
        decoder = self.gaussian.decoder(string, channels * height * width) if y is None else None
        written: list[tuple[np.ndarray, np.ndarray]] = []
        rows = torch.arange(height)
        for step in range(width + 3 * (height - 1)):
            i = rows[(step - 3 * rows >= 0) & (step - 3 * rows < width)]
            j = step - 3 * i
            crops = torch.cat([y_hat[:, i + a, j + b] for a, b in self.taps])  # [12·M, n]
            context = self.context_weight @ crops + self.context_bias[:, None]
            merged = torch.cat((params[0][:, i, j], context))[None, :, :, None]
            scales, means = self.parameters(merged)[0, :, :, 0].chunk(2)
            if decoder is None:
                symbols = torch.round(y[0][:, i, j] - means)
                if encode:
                    written.append((symbols.long().T.flatten().numpy(), _scale_indexes(scales.T).flatten()))
            else:
                read = decoder.read(_scale_indexes(scales.T).flatten())
                symbols = torch.from_numpy(read).reshape(len(i), channels).T.double()
            y_hat[:, i + 2, j + 2] = symbols + means
        coded = b""
        if encode:
            coded = self.gaussian.encode(*(np.concatenate(part) for part in zip(*written, strict=True)))
        return y_hat[None, :, 2:-2, 2:-2], coded


def _codable(v: Tensor) -> Tensor:
    """v as float64 on the CPU; a ValueError for values that no range coder takes."""
    v = v.double().cpu()
    if not bool((v.abs() < _LARGEST_SYMBOL).all()):  # false for NaN too
        raise ValueError("the latents are not finite or far out of range: this image cannot be coded")
    return v


def _scale_indexes(scales: Tensor) -> np.ndarray:
    """Index of the smallest tabled scale that is not below each given one (the largest, where none is)."""
    return torch.searchsorted(SCALE_TABLE[:-1], scales.contiguous()).numpy()
