import random
import subprocess
import sys

import pytest
import torch

from nic_helpers import bitstream
from nic_helpers.bitstream import BitstreamError, pack, unpack

SHA = "12" * 32


def test_pack_and_unpack_are_inverse():
    stream = pack("a", 3, SHA, 17, 31, (b"yyyy", b"zzzzzzzz"))
    packet = unpack(stream, "a", 3, SHA, 2)
    assert (packet.height, packet.width, packet.strings) == (17, 31, (b"yyyy", b"zzzzzzzz"))
    assert len(stream) == 12 + 21


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a bitstream"),
        (b"NIC", "cut off"),
        (pack("a", 3, SHA, 16, 16, (b"yyyy", b"zzzz"))[:-1], "checksum"),
        (pack("b", 3, SHA, 16, 16, (b"yyyy", b"zzzz")), "another codec or quality"),
        (pack("a", 4, SHA, 16, 16, (b"yyyy", b"zzzz")), "another codec or quality"),
        (pack("a", 3, "ff" * 32, 16, 16, (b"yyyy", b"zzzz")), "other weights"),
        (pack("a", 3, SHA, 16, 16, (b"", b"zzzz")), "empty or not a whole"),
        (pack("a", 3, SHA, 16, 16, (b"yyyyy", b"zzzz")), "empty or not a whole"),
        (pack("a", 3, SHA, 0, 16, (b"yyyy", b"zzzz")), "impossible"),
    ],
)
def test_what_is_no_stream_of_this_codec_is_named(stream, says):
    with pytest.raises(BitstreamError, match=says):
        unpack(stream, "a", 3, SHA, 2)


def test_a_thousand_mutations_are_all_refused_before_the_entropy_decoder(hyperprior, x, monkeypatch):
    stream = hyperprior.encode(x[:1])[0]
    monkeypatch.setattr(hyperprior, "_decode", lambda packet: pytest.fail("the entropy decoder would have run"))
    rng = random.Random(0)
    for k in range(1000):
        damaged = bytearray(stream)
        kind = k % 4
        if kind == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        elif kind == 1:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            at = rng.randrange(len(damaged))
            damaged[at:at] = bytes(rng.randrange(1, 9))
        else:
            start = rng.randrange(len(damaged))
            damaged[start : start + 8] = rng.randbytes(8)
        if bytes(damaged) == stream:
            continue
        with pytest.raises(BitstreamError):
            hyperprior.decode([bytes(damaged)])


CRAFTED = """
import random, sys
from nic_helpers import load_codec
from nic_helpers.bitstream import pack
rng = random.Random(0)
for name in ("bmshj2018-hyperprior", "cheng2020-anchor"):
    codec = load_codec(name, 3, device="cpu")
    for fill in (bytes(4), b"\\xff" * 4, b"\\xff" * 400, rng.randbytes(4), rng.randbytes(4000), b"\\xff" * 8000):
        stream = pack(name, 3, codec.weights.sha256, 256, 192, (fill, fill[::-1]))
        image = codec.decode([stream])
        assert image.shape == (1, 3, 256, 192) and bool(((image >= 0) & (image <= 1) | image.isnan()).all())
print("survived")
"""


def test_strings_longer_than_any_encoder_writes_are_refused(hyperprior):
    for strings in ((bytes(4), b"\xff" * 400_000), (b"\xff" * 4_000_000, bytes(4))):
        stream = pack(hyperprior.name, 3, hyperprior.weights.sha256, 64, 64, strings)
        with pytest.raises(BitstreamError, match="too long"):
            hyperprior.decode([stream])


def test_crafted_strings_with_a_valid_checksum_do_not_crash_the_process():
    done = subprocess.run([sys.executable, "-c", CRAFTED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and "survived" in done.stdout, done.stderr[-2000:]


def test_impossible_sizes_are_refused_on_both_sides():
    with pytest.raises(ValueError, match="sides up to"):
        pack("a", 3, SHA, 70000, 10, (b"yyyy",))
    header = bitstream._HEADER.pack(b"NIC", 1, bitstream.codec_id("a"), 3, bytes.fromhex(SHA[:4]), 65535, 65535)
    body = header + b"yyyy"
    stream = body + bitstream.struct.pack(">I", bitstream.zlib.crc32(body))
    with pytest.raises(BitstreamError, match="impossible"):
        unpack(stream, "a", 3, SHA, 1)


def test_decode_wants_a_list_of_bytes(hyperprior):
    with pytest.raises(TypeError, match="list of bitstreams"):
        hyperprior.decode(b"abc")
    with pytest.raises(TypeError, match="bytes"):
        hyperprior.decode([torch.zeros(3)])
