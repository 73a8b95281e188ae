import random
import subprocess
import sys
import time

import pytest
import torch

from nic_helpers import defences, load_codec
from nic_helpers.codecs import bitstream
from nic_helpers.codecs.bitstream import BitstreamError, pack, unpack
from nic_helpers.codecs.coders import EntropyCoder

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
from nic_helpers.codecs.bitstream import BitstreamError, pack
rng = random.Random(0)
for name in ("bmshj2018-hyperprior", "cheng2020-anchor"):
    codec = load_codec(name, 3, device="cpu")
    for fill in (bytes(4), b"\\xff" * 4, b"\\xff" * 400, rng.randbytes(4), rng.randbytes(4000), b"\\xff" * 8000):
        stream = pack(name, 3, codec.weights.sha256, 256, 192, (fill, fill[::-1]))
        try:
            image = codec.decode([stream])
        except BitstreamError as error:
            assert len(fill) < 100 and "too short" in str(error)
            continue
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


def claiming(codec, height, width, length):
    """A stream of about ``length`` bytes with a valid checksum that claims a size."""
    words = b"\x7f\xff\xff\xff" * (length // 4)
    strings = (words,) * len(codec.arch.branches)
    return pack(codec.name, codec.quality, codec.weights.sha256, height, width, strings)


@pytest.mark.parametrize("size", [(8192, 8192), (2048, 2048), (65535, 1024), (1024, 65535)])
def test_a_few_bytes_cannot_claim_a_large_image(size, any_codec, monkeypatch):
    monkeypatch.setattr(EntropyCoder, "decode", lambda *a: pytest.fail("the entropy decoder ran"))
    began = time.monotonic()
    for most in (bitstream.DECODED_PIXELS, float("inf")):
        with pytest.raises(BitstreamError, match=r"too short for the size|most that are decoded"):
            any_codec.decode([claiming(any_codec, *size, 100)], most_pixels=most)
    assert time.monotonic() - began < 20


def test_the_most_pixels_are_asked_before_anything_is_decoded(hyperprior, x, monkeypatch):
    stream = hyperprior.encode(x[:1])[0]
    assert hyperprior.decode([stream], most_pixels=64 * 64).shape == (1, 3, 64, 64)
    monkeypatch.setattr(hyperprior, "_decode", lambda packet: pytest.fail("the entropy decoder would have run"))
    with pytest.raises(BitstreamError, match=r"64×64 = 4096 pixels, and 4095 are the most.*most_pixels="):
        hyperprior.decode([stream], most_pixels=64 * 64 - 1)
    with pytest.raises(BitstreamError, match="most that are decoded"):
        defences.Flip()(hyperprior).decode([defences.Flip()(hyperprior)._pack(1, stream)], most_pixels=4095)
    with pytest.raises(BitstreamError, match="33562624 pixels, and 33554432"):  # bytes enough, but too large by default
        hyperprior.decode([claiming(hyperprior, 4097, 8192, 200_000)])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_flattest_image_there_is_can_still_be_decoded(value, any_codec):
    flat = torch.full((1, 3, 256, 512), value)
    stream = any_codec.encode(flat)
    assert any_codec.decode(stream).shape == flat.shape


@pytest.mark.parametrize("name, pixels_a_byte", [("bmshj2018-factorized", 79), ("bmshj2018-hyperprior", 260)])
def test_no_bundled_encoder_comes_near_the_bound_on_flat_grey(name, pixels_a_byte):
    codec = load_codec(name, 1, device="cpu")
    grey = torch.full((1, 3, 1024, 1024), 0.5)
    stream = codec.encode(grey)[0]
    assert 0.9 * pixels_a_byte < 1024**2 / len(stream) < 1.1 * pixels_a_byte
    codec.unpack(stream)
    for shorter in (2, 3, 40):  # the same size in fewer bytes
        string = b"\0\0\0\0" * (len(codec.unpack(stream).strings[-1]) // 4 // shorter)
        fewest = codec.coder.tables.fewest_bits.sum() * len(grey[0, 0]) ** 2 / codec.arch.branches[codec.arch.bottlenecks[0]] ** 2
        if 8 * len(string) < 0.98 * fewest:
            with pytest.raises(BitstreamError, match="too short for the size"):
                codec.coder.check((*codec.unpack(stream).strings[:-1], string), codec.arch.shapes(1024, 1024))


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
