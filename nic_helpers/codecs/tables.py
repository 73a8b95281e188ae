"""The range coder and its tables of quantised probabilities.

Encoder and decoder must compute bit-identical tables and indexes, or everything after the first difference is lost. So all of it is
float64 on the CPU, whatever device the transforms run on: a difference between two machines' last bits is then 2²⁹ times smaller than
in float32, and as much less likely to move a symbol.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import scipy.stats
import torch
from compressai._CXX import pmf_to_quantized_cdf
from compressai.ans import BufferedRansEncoder, RansDecoder
from torch import Tensor, nn

from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.likelihoods import SMALLEST_SCALE

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

    def reader(self, string: bytes, count: int) -> SymbolReader:
        """A reader of ``count`` symbols in all, asked for piece by piece."""
        return SymbolReader(self, string, count)


class SymbolReader:
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


@functools.cache
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


def codable(v: Tensor) -> Tensor:
    """v as float64 on the CPU; a ValueError for values that no range coder takes."""
    v = v.double().cpu()
    if not bool((v.abs() < _LARGEST_SYMBOL).all()):  # false for NaN too
        raise ValueError("the latents are not finite or far out of range: this image cannot be coded")
    return v


def scale_indexes(scales: Tensor) -> np.ndarray:
    """Index of the smallest tabled scale that is not below each given one (the largest, where none is)."""
    return torch.searchsorted(SCALE_TABLE[:-1], scales.contiguous()).numpy()
