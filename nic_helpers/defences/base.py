"""What all defences share: the two steps, the way taken, and the codec that they make."""

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

    @property
    def random(self) -> bool:
        """Whether the way is drawn; else :meth:`way` finds it."""
        return self.choices > 1

    def before(self, x: Tensor, k: int) -> Tensor:
        """What the sender does to an image before it is coded."""
        return x

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """What the receiver does to the decoded image."""
        return x_hat

    def sender(self, x: Tensor, k: int, codec: Codec) -> Tensor:
        """The sender's step where it needs the codec, too."""
        return self.before(x, k)

    def way(self, image: Tensor, codec: Codec) -> int:
        """The way that the sender takes for an image [3, H, W], where it is not drawn."""
        return 0

    def pixels(self, height: int, width: int, k: int) -> int:
        """How many pixels :meth:`after` makes of a decoded picture."""
        return height * width

    def __call__(self, codec: Codec) -> Defended:
        """The codec behind this defence."""
        return Defended(codec, self, self.seed)


class OneWay(Defence):
    """Another defence ``how`` that always goes way ``k``: what an attacker sees who looks at its ways one by one."""

    def __init__(self, how: Defence, k: int):
        self.how, self.k, self.differentiable = how, k, how.differentiable

    def __repr__(self) -> str:
        return f"OneWay({self.how!r}, {self.k})"

    def before(self, x: Tensor, k: int) -> Tensor:
        """As the other's way."""
        return self.how.before(x, self.k)

    def after(self, x_hat: Tensor, k: int) -> Tensor:
        """As the other's way."""
        return self.how.after(x_hat, self.k)


@dataclasses.dataclass(frozen=True)
class EveryWay:
    """What an attacker sees who attacks all ways of a defence at once, because the sender will take the best of them."""

    defence: Defence

    def __call__(self, codec: Codec) -> list[Codec]:
        """One codec a way."""
        return [OneWay(self.defence, k)(codec) for k in range(self.defence.choices)]


class Behind(Around):
    """A codec behind something whose bitstream is the way taken, a check, and an inner stream (:func:`pack`)."""

    def __init__(self, codec: Codec, how):
        super().__init__(codec)
        self.how = how
        #: What it stands behind, the outermost first: sender and receiver must agree on it.
        self.nesting: tuple[str, ...] = (said(how), *(codec.nesting if isinstance(codec, Behind) else ()))

    def __repr__(self) -> str:
        return f"{self.how!r}({self.codec!r})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.codec.label}, {self.how!r}"


class Defended(Behind):
    """A codec behind a defence ``how``.

    A bitstream is the way taken (one byte), a checksum that also says which defence it is of (two), and the codec's own.
    Estimated bits are the codec's alone. Raises TypeError for a ``how`` that is no :class:`Defence`, ValueError for choices that a
    byte doesn't hold.
    """

    def __init__(self, codec: Codec, how: Defence, seed: int = 0):
        if not isinstance(how, Defence):
            raise TypeError(f"{how!r} is no defence: derive its class from defences.Defence, with before(x, k) and after(x_hat, k)")
        if how.choices not in range(1, 257):
            raise ValueError(f"{how!r} has {how.choices!r} choices: one byte holds 1 to 256")
        super().__init__(codec, how)
        self.random = codec.random or how.random
        self._draws: tuple = (seed,)
        self._known: list[tuple[Tensor, str]] = []

    # ------------------------------------------------------------------------------------------------------ the draws
    def choice(self, image: Tensor) -> int:
        """The way taken for one image [3, H, W]."""
        if not self.how.random:
            return self.how.way(image, self.codec)
        # the nesting is in it, so that two flips, one in the other, draw apart
        drawn = hashlib.sha256(repr((self._draws, self.nesting, self._identity(image))).encode()).digest()
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
        seen = [self.how.sender(image[None], other.choice(image), self.codec)[0] for image, _ in other._known]
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
            out = self.codec(self._through(self._sender, part, k), surrogate, rate)
            x_hat = self._through(self.how.after, out.x_hat, k)
            return [(x_hat[n], {b: v[n] for b, v in out.bits.items()}) for n in range(len(part))]

        images, bits = zip(*self._each(x, through), strict=True)
        bits = {b: torch.stack([own[b] for own in bits]) for b in bits[0]}
        return CodecOutput(torch.stack(images), bits, x.size(2) * x.size(3))

    def estimated_bpp(self, x: Tensor, surrogate: str | None = "ste") -> Tensor:
        """The codec's estimated bits per original pixel [B]."""

        def through(part: Tensor, k: int) -> Tensor:
            seen = self._through(self._sender, part, k)
            return self.codec.estimated_bpp(seen, surrogate) * (seen[0, 0].numel() / part[0, 0].numel())

        return torch.stack(self._each(x, through))

    def _sender(self, x: Tensor, k: int) -> Tensor:
        return self.how.sender(x, k, self.codec)

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
            return self.how.after(self.codec.reconstruct(self._sender(part, k)), k)

        with torch.no_grad():
            return torch.stack(self._each(x, through))

    # -------------------------------------------------------------------------------------------------- real streams
    def roundtrip(self, x: Images) -> Coded:
        """The real bitstreams and what they decode to."""
        if not isinstance(x, Tensor):
            parts = [self.roundtrip(image[None]) for image in x]
            return Coded([p.streams[0] for p in parts], [p.x_hat[0] for p in parts])

        def through(part: Tensor, k: int) -> list:
            coded = self.codec.roundtrip(self._sender(part, k))
            return list(zip([self._pack(k, s) for s in coded.streams], self.how.after(coded.x_hat, k), strict=True))

        with torch.no_grad():
            streams, images = zip(*self._each(x, through), strict=True)
        return Coded(list(streams), torch.stack(images))

    def encode(self, x: Images) -> list[bytes]:
        """One bitstream per image."""
        if not isinstance(x, Tensor):
            return [self.encode(image[None])[0] for image in x]
        with torch.no_grad():
            return self._each(x, lambda part, k: [self._pack(k, s) for s in self.codec.encode(self._sender(part, k))])

    @torch.no_grad()
    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Bitstreams -> images on the CPU: [B, 3, H, W] in [0, 1], or a list where sizes differ. The receiver needs no seed.

        Raises :class:`nic_helpers.codecs.bitstream.BitstreamError` for a damaged stream, one of another defence or nesting, and what
        the codec itself refuses.
        """
        check_streams(streams)
        images = []
        for k, inner in map(self._unpack, streams):
            x_hat = self.codec.decode([inner], most_pixels)[0]
            if self.how.pixels(*x_hat.shape[1:], k) > most_pixels:
                raise BitstreamError(
                    f"{self.how!r} makes more than the {most_pixels} pixels of it that are the most that are decoded"
                )
            images.append(self.how.after(x_hat[None], k)[0])
        return stack(images)

    def _pack(self, k: int, inner: bytes) -> bytes:
        return pack(k, inner, self.nesting)

    def _unpack(self, stream: bytes) -> tuple[int, bytes]:
        return unpack(stream, self.how.choices, self.nesting)


def _check(body: bytes, nesting: tuple[str, ...]) -> bytes:
    """Two bytes: a CRC that starts at the nesting's own. Started elsewhere it is another, whatever the body."""
    start = binascii.crc_hqx(repr(nesting).encode(), 0)
    return binascii.crc_hqx(body, start).to_bytes(2, "big")


def pack(k: int, inner: bytes, nesting: tuple[str, ...]) -> bytes:
    """A defended codec's bitstream: the way taken, a check that also says behind which defences, and the inner stream."""
    return bytes([k]) + _check(bytes([k]) + inner, nesting) + inner


def unpack(stream: bytes, choices: int, nesting: tuple[str, ...]) -> tuple[int, bytes]:
    """The way and the inner stream; BitstreamError for what is damaged, of other defences, or of a way that there is not."""
    if not isinstance(stream, (bytes, bytearray, memoryview)):
        raise TypeError(f"a bitstream is bytes, got {type(stream).__name__}")
    stream = bytes(stream)
    if len(stream) <= 3 or stream[1:3] != _check(stream[:1] + stream[3:], nesting):
        raise BitstreamError(
            f"not a whole, undamaged bitstream behind {' of '.join(nesting)}: damaged, cut off, or made by "
            "another defence, or the same in another order"
        )
    if stream[0] >= choices:
        raise BitstreamError(f"the bitstream claims way {stream[0]} of {nesting[0]}, which has {choices}")
    return stream[0], stream[3:]


def said(how) -> str:
    """A defence's name and plain settings: what sender and receiver share. Not the seed, which is the sender's."""
    settings = vars(how) if dataclasses.is_dataclass(how) else {}
    said = (f"{n}={v!r}" for n, v in settings.items() if n != "seed" and isinstance(v, (bool, int, float, str, tuple, type(None))))
    return f"{type(how).__name__}({', '.join(said)})"
