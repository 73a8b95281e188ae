"""The container of a neural codec's bitstream, checked before the entropy decoder sees a byte.

Raw range decoding takes damaged strings silently and crashes on empty ones. So the strings travel in a small container:

    bytes  0–2   magic "NIC"           3      version
           4–5   codec id              6      quality
           7–8   weights' fingerprint  9–12   height, width (two each, of the original image)
          13–…   length of each string but the last (four each), the strings, CRC-32 of everything before it (4)

All of it counts as rate: 21 bytes for a codec with side information, 17 without.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass

MAGIC, VERSION = b"NIC", 1
_HEADER = struct.Struct(">3sBHB2sHH")
LARGEST_SIDE = 65535
MOST_PIXELS = 2**26  # of the container
DECODED_PIXELS = 2**25  # unless decode is asked for more: an 8K frame, or a camera's 24 megapixels


class BitstreamError(ValueError):
    """The bytes are not a whole, undamaged bitstream of this codec."""


def check_pixels(height: int, width: int, most_pixels: float, length: int, densest: float = math.inf) -> None:
    """BitstreamError for a stream of ``length`` bytes that claims more than ``most_pixels`` pixels, or more than ``densest`` a byte.

    A few bytes must not keep a decoder busy for minutes: this is asked before it runs.
    """
    if height * width > most_pixels:
        raise BitstreamError(
            f"the bitstream claims {height}×{width} = {height * width} pixels, and {most_pixels} are the most that are "
            "decoded: if you trust it, decode(streams, most_pixels=…)"
        )
    if height * width > densest * length:
        raise BitstreamError(
            f"the bitstream claims {height}×{width} pixels in {length} bytes, and this codec's encoder can't put "
            f"more than {densest:.0f} into a byte: it is not from there"
        )


@dataclass(frozen=True)
class Packet:
    """A parsed container: the original image's size in pixels and one string per branch (y, then z)."""

    height: int
    width: int
    strings: tuple[bytes, ...]


def codec_id(name: str) -> int:
    """Two bytes that stand for a codec's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big")


def check_size(height: int, width: int) -> None:
    """Raise a ValueError for an image that is too large for the container."""
    if max(height, width) > LARGEST_SIDE or height * width > MOST_PIXELS:
        raise ValueError(
            f"the container holds sides up to {LARGEST_SIDE} and {MOST_PIXELS} pixels, got {height}×{width}: crop or resize"
        )


def pack(name: str, quality: int, weights_sha256: str, height: int, width: int, strings: tuple[bytes, ...]) -> bytes:
    """Build the container."""
    check_size(height, width)
    body = _HEADER.pack(MAGIC, VERSION, codec_id(name), quality, bytes.fromhex(weights_sha256[:4]), height, width)
    body += b"".join(struct.pack(">I", len(s)) for s in strings[:-1]) + b"".join(strings)
    return body + struct.pack(">I", zlib.crc32(body))


def unpack(stream: bytes, name: str, quality: int, weights_sha256: str, branches: int) -> Packet:
    """Check and parse a container; raises :class:`BitstreamError` that says what is wrong with it."""
    if not isinstance(stream, (bytes, bytearray, memoryview)):
        raise TypeError(f"a bitstream is bytes, got {type(stream).__name__}")
    stream = bytes(stream)
    start = _HEADER.size + 4 * (branches - 1)
    if not stream:
        raise BitstreamError("the bitstream is empty")
    if stream[:3] != MAGIC:
        raise BitstreamError(f"not a bitstream of nic_helpers: it begins with {stream[:3]!r}, not {MAGIC!r}")
    if len(stream) < start + 4:
        raise BitstreamError(f"the bitstream is cut off: {len(stream)} bytes are fewer than a header's {start + 4}")
    if zlib.crc32(stream[:-4]) != struct.unpack(">I", stream[-4:])[0]:
        raise BitstreamError("the bitstream is damaged or cut off: its checksum does not match")
    _, version, codec, q, fingerprint, height, width = _HEADER.unpack_from(stream)
    if version != VERSION:
        raise BitstreamError(f"the bitstream has version {version}; this program reads version {VERSION}")
    if codec != codec_id(name) or q != quality:
        raise BitstreamError(f"the bitstream was made by another codec or quality (here: {name}, quality {quality})")
    if fingerprint != bytes.fromhex(weights_sha256[:4]):
        raise BitstreamError("the bitstream was made with other weights of the same codec: it would decode to garbage")
    lengths = struct.unpack_from(f">{branches - 1}I", stream, _HEADER.size)
    body = stream[start:-4]
    if not height or not width or height * width > MOST_PIXELS or sum(lengths) > len(body):
        raise BitstreamError(f"the bitstream's header is impossible: {height}×{width} pixels, lengths {lengths}")
    strings, at = [], 0
    for length in (*lengths, len(body) - sum(lengths)):
        strings.append(body[at : at + length])
        at += length
    if any(not s or len(s) % 4 for s in strings):
        raise BitstreamError("a string of the bitstream is empty or not a whole number of 32-bit words")
    return Packet(height, width, tuple(strings))
