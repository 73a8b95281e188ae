"""Who reads an architecture's ``code``: an estimator of bits, an intervention, the encoder, the decoder.

Each has ``bottleneck(name, v)``, for what the factorised bottleneck codes, and ``gaussian(name, v, scales, means)``; both take the values
v (None while decoding) and give what the decoder rebuilds of them. ``tap(name, v)`` names a branch on the way. ``parallel`` says whether
all positions are computed at once, with a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.likelihoods import bottleneck_likelihood, gaussian_likelihood, medians
from nic_helpers.codecs.quantisers import Quantiser, add_noise, round_true, share_noise
from nic_helpers.codecs.tables import Tables, bottleneck_tables, codable, gaussian_tables, scale_indexes

Branches = dict[str, Tensor]


# --------------------------------------------------------------------------------------------- estimates, with a gradient
class Estimator:
    """Likelihoods of everything, all positions at once, differentiable.

    ``quantise`` stands for rounding; ``see`` (default: the same) for rounding in what the synthesis sees. ``rate=False`` leaves the
    likelihoods out. Afterwards ``likelihoods``, ``scales`` and ``means`` hold one tensor [B, C, h, w] a branch, ``taps`` what passed each
    named place.
    """

    parallel = True

    def __init__(self, arch: Architecture, quantise: Quantiser, rate: bool = True, see: Quantiser | None = None):
        self._arch, self._quantise, self._rate, self._see = arch, quantise, rate, see
        self._taps: dict[str, list[Tensor]] = {}
        self._parts: dict[str, dict[str, list[Tensor]]] = {"likelihoods": {}, "scales": {}, "means": {}}

    @property
    def noisy(self) -> bool:
        """Whether noise stands for rounding: drawn again it would be another value."""
        return self._quantise in (add_noise, share_noise)

    def tap(self, name: str, v: Tensor) -> Tensor:
        """The value of a named branch, noted."""
        self._taps.setdefault(name, []).append(v)
        return v

    @property
    def taps(self) -> dict[str, Tensor | list[Tensor]]:
        """What passed each named place: a tensor, or a list where an architecture passes it several times (once a slice of channels)."""
        return {name: seen[0] if len(seen) == 1 else seen for name, seen in self._taps.items()}

    def quantise(self, v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """v as if rounded to integers away from the offset."""
        return self._quantise(v, offset)

    def seen(self, v_hat: Tensor, v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """What the synthesis sees of v, whose quantised values are v_hat."""
        return v_hat if self._see is None else self._see(v, offset)

    def bottleneck(self, name: str, v: Tensor) -> Tensor:
        """Quantised around the bottleneck's medians."""
        step, offset = self._arch.step(), self._arch.medians()
        v_hat = self.quantise(v, offset) if step is None else self.quantise(v / step, offset / step) * step
        v_hat = self.tap(name, v_hat)
        if self._rate:
            self._note("likelihoods", name, bottleneck_likelihood(self._arch.model.entropy_bottleneck, v_hat, step))
        return self.seen(v_hat, v, offset) if name == "y" else v_hat

    def gaussian(self, name: str, v: Tensor, scales: Tensor, means: Tensor | None = None) -> Tensor:
        """Quantised around the means."""
        offset = 0.0 if means is None else means
        v_hat = self.quantise(v, offset)
        self.rate(name, v_hat, scales, means)
        return self.seen(v_hat, v, offset)

    def rate(self, name: str, v_hat: Tensor, scales: Tensor, means: Tensor | None = None) -> None:
        """Note how likely v_hat is; called by :meth:`gaussian`."""
        v_hat = self.tap("samples", v_hat)
        self._note("scales", name, scales)
        if means is not None:
            self._note("means", name, means)
        if self._rate:
            self._note("likelihoods", name, gaussian_likelihood(self._arch.model.gaussian_conditional, v_hat, scales, means))

    def _note(self, what: str, name: str, v: Tensor) -> None:
        self._parts[what].setdefault(name, []).append(v)

    def _whole(self, what: str) -> Branches:
        return {name: parts[0] if len(parts) == 1 else torch.cat(parts, 1) for name, parts in self._parts[what].items()}

    @property
    def likelihoods(self) -> Branches:
        """Of each element of each branch."""
        return self._whole("likelihoods")

    @property
    def scales(self) -> Branches:
        """Of the Gaussians."""
        return self._whole("scales")

    @property
    def means(self) -> Branches:
        """Of the Gaussians, where the architecture predicts them."""
        return self._whole("means")


class Do(Estimator):
    """An estimator in which some branches are set from outside.

    ``set_to``: branch -> its value (as ``taps`` of another pass have it), or a function of what it would be:
    "z" (the side information, and its rate), "side" (what
    is predicted from it), "context" (what is predicted from latents already decoded), "samples" (the latents as they are coded).
    ValueError for a branch that the architecture has not got, when :meth:`check` is called after the pass.
    """

    def __init__(self, arch: Architecture, quantise: Quantiser, set_to: Mapping[str, Tensor | Callable[[Tensor], Tensor]]):
        super().__init__(arch, quantise)
        self._set_to = set_to

    def tap(self, name: str, v: Tensor) -> Tensor:
        """The value from outside, where there is one."""
        value = self._set_to.get(name, v)
        if isinstance(value, (list, tuple)):
            value = value[len(self._taps.get(name, ()))]
        return super().tap(name, value(v) if callable(value) and not isinstance(value, Tensor) else value)

    def check(self) -> None:
        """Raise if a branch that was to be set was not met."""
        unknown = sorted(set(self._set_to) - set(self.taps))
        if unknown:
            raise ValueError(f"{self._arch.name} has no branch {', '.join(unknown)}: there are {', '.join(self.taps)}")


@dataclass
class Walk:
    """What one differentiable pass through a codec gave. Tensors are [B, C, h, w]; those not asked for are None or not there."""

    y: Tensor
    y_hat: Tensor  # with all that the synthesis sees: for some architectures more channels than y has
    x_hat: Tensor | None = None  # not clamped
    z: Tensor | None = None
    scales: Tensor | None = None  # of y's Gaussians
    means: Tensor | None = None
    likelihoods: Branches = field(default_factory=dict)  # branch -> likelihood of each element
    taps: dict[str, Tensor | list[Tensor]] = field(default_factory=dict)  # what the coder was shown on the way

    def bits(self) -> Branches:
        """Estimated bits per image [B] of each branch: −Σ log2 likelihood."""
        return {k: -torch.log2(v).flatten(1).sum(1) for k, v in self.likelihoods.items()}


def walk(
    arch: Architecture,
    x: Tensor | None,
    quantise: Quantiser = round_true,
    *,
    y: Tensor | None = None,
    synthesis: bool = True,
    rate: bool = True,
    see: Quantiser | None = None,
    set_to: Mapping | None = None,
) -> Walk:
    """Run a codec on padded images x [B, 3, H, W] in [0, 1], in its parallel (differentiable) form.

    ``y`` gives the latents instead of the images. ``rate=False`` skips everything that the reconstruction does not depend on;
    ``synthesis=False`` skips the synthesis. ``see``: as of :class:`Estimator`; ``set_to``: of :class:`Do`.
    """
    y = arch.analysis(x) if y is None else y
    w = Walk(y=y, y_hat=None)
    w.y_hat = arch.latents(y, see or quantise) if not rate and set_to is None else None
    if w.y_hat is None:
        coder = Estimator(arch, quantise, rate, see) if set_to is None else Do(arch, quantise, set_to)
        w.z = arch.hyper(y)
        w.y_hat = arch.code(coder, y, w.z)
        w.likelihoods, w.taps = coder.likelihoods, coder.taps
        w.scales, w.means = coder.scales.get("y"), coder.means.get("y")
        if set_to is not None:
            coder.check()
    if synthesis:
        w.x_hat = arch.synthesis(w.y_hat)
    return w


# ------------------------------------------------------------------------------------------------------ real strings
class Exact:
    """One end of the channel, float64 on the CPU, an image at a time: what encoder and decoder compute alike."""

    parallel = False

    def __init__(self, coder: EntropyCoder):
        self._coder = coder

    def tap(self, name: str, v: Tensor) -> Tensor:
        """The value as it is."""
        return v

    def bottleneck(self, name: str, v: Tensor | None) -> Tensor:
        """The values that the symbols stand for."""
        step, offset = self._coder.step, self._coder.medians
        tables = self._coder.tables
        if v is None:
            shape = self._shapes[name]
            symbols = self._code(name, tables, None, np.repeat(np.arange(shape[1]), shape[2] * shape[3])).reshape(shape)
        else:
            indexes = np.repeat(np.arange(v.size(1)), v[0, 0].numel())
            symbols = self._code(name, tables, torch.round((v - offset) / step), indexes)
        return symbols * step + offset

    def gaussian(self, name: str, v: Tensor | None, scales: Tensor, means: Tensor | None = None) -> Tensor:
        """The values that the symbols stand for."""
        offset = 0.0 if means is None else means
        symbols = None if v is None else torch.round(v - offset)
        return self._code(name, gaussian_tables(), symbols, scale_indexes(scales).flatten()).reshape(scales.shape) + offset


class Encoder(Exact):
    """Collects the symbols, and writes them into one string a branch (with ``write=False`` it does not even collect them)."""

    def __init__(self, coder: EntropyCoder, write: bool = True):
        super().__init__(coder)
        self._write, self._parts = write, {}

    def _code(self, name: str, tables: Tables, symbols: Tensor, indexes: np.ndarray) -> Tensor:
        if self._write:
            self._parts.setdefault(name, (tables, []))[1].append((symbols.long().flatten().numpy(), indexes))
        return symbols

    def strings(self, order: tuple[str, ...]) -> tuple[bytes, ...]:
        """One string a branch."""
        joined = ((tables, *map(np.concatenate, zip(*parts, strict=True))) for tables, parts in (self._parts[n] for n in order))
        return tuple(tables.encode(symbols, indexes) for tables, symbols, indexes in joined)


class Decoder(Exact):
    """Reads the symbols off one string a branch."""

    def __init__(self, coder: EntropyCoder, strings: Mapping[str, bytes], shapes: Mapping[str, tuple[int, ...]]):
        super().__init__(coder)
        self._strings, self._shapes, self._readers = strings, shapes, {}

    def _code(self, name: str, tables: Tables, symbols: None, indexes: np.ndarray) -> Tensor:
        if name not in self._readers:
            self._readers[name] = tables.reader(self._strings[name], int(np.prod(self._shapes[name])))
        return torch.from_numpy(self._readers[name].read(indexes)).double()


class EntropyCoder:
    """The exact side of a codec's entropy model: from latents to strings and back."""

    def __init__(self, arch: Architecture):
        self._arch = arch.exact()
        found = self._arch.step()
        self.step = 1.0 if found is None else found
        bottleneck = self._arch.model.entropy_bottleneck
        self.tables = bottleneck_tables(bottleneck, found)
        self.medians = medians(bottleneck)

    @torch.no_grad()
    def encode(self, y: Tensor, z: Tensor | None, write: bool = True) -> tuple[Tensor, tuple[bytes, ...]]:
        """What the decoder rebuilds of the latents y [1, M, h, w], float64, and the strings (none without ``write``).

        ValueError for latents that no range coder takes.
        """
        encoder = Encoder(self, write)
        y_hat = self._arch.code(encoder, codable(y), None if z is None else codable(z))
        return y_hat, encoder.strings(tuple(self._arch.branches)) if write else ()

    @torch.no_grad()
    def decode(self, strings: tuple[bytes, ...], shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
        """ŷ [1, M, h, w], float64, from one string a branch and the branches' shapes."""
        return self._arch.code(Decoder(self, dict(zip(self._arch.branches, strings, strict=True)), shapes))

    def check(self, strings: tuple[bytes, ...], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """BitstreamError for a string shorter than any that stands for so many positions of what the bottleneck codes.

        Each costs at least what the likeliest symbol of each table does, so a few bytes can't ask for a large image. (Of the
        latents under a hyperprior nearly any number fits into a byte: at the smallest scale a zero is as good as certain.)
        """
        for name, string in zip(self._arch.branches, strings, strict=True):
            bits = self.tables.fewest_bits.sum() * np.prod(shapes[name][2:])
            if name in self._arch.bottlenecks and 8 * len(string) < 0.99 * bits:  # the range coder's own rounding is far below that
                raise BitstreamError(
                    f"a string of {len(string)} bytes is too short for the size that the bitstream claims: this codec's "
                    f"encoder writes at least {int(np.ceil(bits / 8))}"
                )
