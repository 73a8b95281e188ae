"""Defences: a step before a codec and one after it make another codec, which is coded, attacked and measured like any.

safe = defences.BitDepth(bits=5)(defences.Flip(seed=0)(codec))     # they nest
streams = safe.encode(x); y = safe.decode(streams)                 # three bytes more a defence: the choice, and a check

A random defence draws for an image from (its seed, the image's 8-bit content): the same alone and in a batch, now and in a year. An
attacked image is another one, and the sender draws anew for it. An evaluation wants to see the attack and not the draw:
``safe.for_images(x)`` is the codec that draws for an attacked version what it draws for the image itself. Attacks,
``metrics.before_after`` and sweeps do so by themselves; an attack on ``safe`` thus knows the draw, and one on
``attacks.eot(safe, draws)``, the mean over other draws, doesn't.
"""

from __future__ import annotations

import binascii
import copy
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nic_helpers.codecs.base import Around, Codec, CodecOutput, Coded, Images, by_size, check_streams, stack
from nic_helpers.codecs.bitstream import DECODED_PIXELS, BitstreamError
from nic_helpers.images import check_images, to_uint8


class Defence:
    """The base of defences: the two steps, done in one of ``choices`` ways (1 to 256); called with a codec it gives the defended one.

    ``before(x, k)`` and ``after(x_hat, k)`` take [B, 3, H, W] in [0, 1] and way k to the same range; the receiver knows k, which is
    in the stream, and nothing else of the sender's. ``differentiable`` False: gradients pass both steps as if they did nothing.
    """

    choices: ClassVar[int] = 1
    differentiable: ClassVar[bool] = True
    seed = 0

    def before(self, x: Tensor, k: int) -> Tensor:
        """What the sender does to an image before it is coded."""
        return x

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """What the receiver does to the decoded image."""
        return x_hat

    def __call__(self, codec: Codec) -> Defended:
        """The codec behind this defence."""
        return Defended(codec, self, self.seed)


class Defended(Around):
    """A codec behind a defence ``how``: an object with ``choices``, ``differentiable``, ``before(x, k)`` and ``after(x_hat, k)``.

    A bitstream is the way taken (one byte), a checksum that also says which defence it is of (two), and the codec's own.
    Estimated bits are the codec's alone. Raises TypeError for a ``how`` that lacks one of these, ValueError for choices that a
    byte doesn't hold.
    """

    def __init__(self, codec: Codec, how, seed: int = 0):
        super().__init__(codec)
        missing = [m for m in ("choices", "differentiable", "before", "after") if m not in dir(how)]
        if missing:
            raise TypeError(f"{how!r} is no defence: it lacks {', '.join(missing)}. Derive its class from defences.Defence")
        if how.choices not in range(1, 257):
            raise ValueError(f"{how!r} has {how.choices!r} choices: one byte holds 1 to 256")
        self.how, self.random = how, codec.random or how.choices > 1
        self._draws: tuple = (seed,)
        self._nesting = (_text(how), *(codec._nesting if isinstance(codec, Defended) else ()))
        self._known: list[tuple[Tensor, str]] = []

    def __repr__(self) -> str:
        return f"{self.how!r}({self.codec!r})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.codec.label}, {self.how!r}"

    # ------------------------------------------------------------------------------------------------------ the draws
    def choice(self, image: Tensor) -> int:
        """The way taken for one image [3, H, W]."""
        if self.how.choices == 1:
            return 0
        # the nesting is in it, so that two flips, one in the other, draw apart
        drawn = hashlib.sha256(repr((self._draws, self._nesting, self._identity(image))).encode()).digest()
        return int.from_bytes(drawn[:8], "big") % self.how.choices

    def _identity(self, image: Tensor) -> str:
        alike = [known for known in self._known if known[0].shape == image.shape]
        if not alike:
            return hashlib.sha256(to_uint8(image).tobytes()).hexdigest()
        return min(alike, key=lambda known: float((known[0].to(image) - image.detach()).square().mean()))[1]

    def redrawn(self, k: int) -> Codec:
        """The same with other draws, number ``k``, for :func:`nic_helpers.attacks.eot`; TypeError where nothing is drawn."""
        if not self.random:
            return super().redrawn(k)
        other = copy.copy(self)
        other._draws = (*self._draws[:1], k)
        if self.codec.random:
            other.codec = self.codec.redrawn(k)
        return other.for_images([image for image, _ in self._known]) if self._known else other

    def for_images(self, x: Images) -> Codec:
        """The same for an evaluation of the images x and of versions of them: each draws as the nearest of x that has its size.

        Done again it adds up: an image of x that is itself a version of an earlier one goes on drawing as that.
        """
        if not self.random:
            return self
        check_images(x)
        other = copy.copy(self)
        other._known = [(image.detach(), self._identity(image)) for image in x]
        seen = [self.how.before(image[None], other.choice(image))[0] for image, _ in other._known]
        other.codec = self.codec.for_images(seen)
        return other

    def _each(self, x: Tensor, do: Callable[[Tensor, int], Sequence]) -> list[Any]:
        """What ``do(images, k)`` gives for each image of x, in the order of x; images that take the same way go together."""
        check_images(x)
        ways, found = [self.choice(image) for image in x], [None] * len(x)
        for k in sorted(set(ways)):
            rows = [n for n, way in enumerate(ways) if way == k]
            for n, one in zip(rows, do(x[rows], k), strict=True):
                found[n] = one
        return found

    # ------------------------------------------------------------------------------------------------- differentiable
    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """The codec's differentiable pass with the defence's steps around it (for a list: a list)."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in x]

        def through(part: Tensor, k: int) -> list:
            out = self.codec(self._through(self.how.before, part, k), surrogate, rate)
            x_hat = self._through(self.how.after, out.x_hat, k)
            return [(x_hat[n], {b: v[n] for b, v in out.bits.items()}) for n in range(len(part))]

        images, bits = zip(*self._each(x, through), strict=True)
        bits = {b: torch.stack([own[b] for own in bits]) for b in bits[0]}
        return CodecOutput(torch.stack(images), bits, x.size(2) * x.size(3))

    def estimated_bpp(self, x: Tensor, surrogate: str | None = "ste") -> Tensor:
        """The codec's estimated bits per original pixel [B]."""

        def through(part: Tensor, k: int) -> Tensor:
            seen = self._through(self.how.before, part, k)
            return self.codec.estimated_bpp(seen, surrogate) * (seen[0, 0].numel() / part[0, 0].numel())

        return torch.stack(self._each(x, through))

    def _through(self, step: Callable[[Tensor, int], Tensor], v: Tensor, k: int) -> Tensor:
        if self.how.differentiable:
            return step(v, k)
        w = step(v.detach(), k)
        if w.shape != v.shape:
            raise TypeError(
                f"{self.how!r} makes {tuple(w.shape)} of {tuple(v.shape)} and has no gradient, and none can pass straight "
                "through that: give it one (differentiable = True)"
            )
        return w + (v - v.detach())

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """What the receiver would see, [B, 3, H, W]; with a surrogate, that of the differentiable pass."""
        if surrogate is not None:
            return self(x, surrogate, rate=False).x_hat

        def through(part: Tensor, k: int) -> Tensor:
            return self.how.after(self.codec.reconstruct(self.how.before(part, k)), k)

        with torch.no_grad():
            return torch.stack(self._each(x, through))

    # -------------------------------------------------------------------------------------------------- real streams
    def roundtrip(self, x: Images) -> Coded:
        """The real bitstreams and what they decode to."""
        if not isinstance(x, Tensor):
            parts = [self.roundtrip(image[None]) for image in x]
            return Coded([p.streams[0] for p in parts], [p.x_hat[0] for p in parts])

        def through(part: Tensor, k: int) -> list:
            coded = self.codec.roundtrip(self.how.before(part, k))
            return list(zip([self._pack(k, s) for s in coded.streams], self.how.after(coded.x_hat, k), strict=True))

        with torch.no_grad():
            streams, images = zip(*self._each(x, through), strict=True)
        return Coded(list(streams), torch.stack(images))

    def encode(self, x: Images) -> list[bytes]:
        """One bitstream per image."""
        if not isinstance(x, Tensor):
            return [self.encode(image[None])[0] for image in x]
        with torch.no_grad():
            return self._each(x, lambda part, k: [self._pack(k, s) for s in self.codec.encode(self.how.before(part, k))])

    @torch.no_grad()
    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Bitstreams -> images on the CPU: [B, 3, H, W] in [0, 1], or a list where sizes differ. The receiver needs no seed.

        Raises :class:`nic_helpers.bitstream.BitstreamError` for a damaged stream, one of another defence or nesting, and what
        the codec itself refuses.
        """
        check_streams(streams)
        images = []
        for k, inner in map(self._unpack, streams):
            x_hat = self.codec.decode([inner], most_pixels)[0]
            images.append(self.how.after(x_hat[None], k)[0])
        return stack(images)

    def _check(self, body: bytes) -> bytes:
        """Two bytes: a CRC that starts at the nesting's own. Started elsewhere it is another, whatever the body."""
        start = binascii.crc_hqx(repr(self._nesting).encode(), 0)
        return binascii.crc_hqx(body, start).to_bytes(2, "big")

    def _pack(self, k: int, inner: bytes) -> bytes:
        return bytes([k]) + self._check(bytes([k]) + inner) + inner

    def _unpack(self, stream: bytes) -> tuple[int, bytes]:
        if not isinstance(stream, (bytes, bytearray, memoryview)):
            raise TypeError(f"a bitstream is bytes, got {type(stream).__name__}")
        stream = bytes(stream)
        if len(stream) <= 3 or stream[1:3] != self._check(stream[:1] + stream[3:]):
            raise BitstreamError(
                f"not a whole, undamaged bitstream behind {' of '.join(self._nesting)}: damaged, cut off, or made by "
                "another defence, or the same in another order"
            )
        if stream[0] >= self.how.choices:
            raise BitstreamError(f"the bitstream claims way {stream[0]} of {self.how!r}, which has {self.how.choices}")
        return stream[0], stream[3:]


def _text(how) -> str:
    """A defence's name and plain settings: what sender and receiver share. Not the seed, which is the sender's."""
    settings = vars(how) if dataclasses.is_dataclass(how) else {}
    said = (f"{n}={v!r}" for n, v in settings.items() if n != "seed" and isinstance(v, (bool, int, float, str, tuple, type(None))))
    return f"{type(how).__name__}({', '.join(said)})"
