import io
import math
import random

import pytest
import torch
from PIL import Image

from nic_helpers import load_codec, load_images
from nic_helpers.codecs import classical, files
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.metrics import psnr


@pytest.fixture(scope="module")
def image():
    return load_images("bundled")[2][None]


@pytest.mark.parametrize("name", CLASSICAL)
def test_qualities_are_ordered_by_rate(name, image):
    rates, qualities = [], []
    for q in CLASSICAL[name].qualities[::3]:
        coded = load_codec(name, q).roundtrip(image)
        rates += real_bpp(coded.streams, image)
        qualities.append(psnr(image, coded.x_hat).item())
    assert rates == sorted(rates) and qualities == sorted(qualities)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (1500, 40)])
def test_any_size_comes_back(name, size):
    x = torch.rand(1, 3, *size)
    codec = load_codec(name)
    coded = codec.roundtrip(x)
    assert coded.x_hat.shape == x.shape
    assert torch.equal(codec.decode(coded.streams), codec.reconstruct(x))


@pytest.mark.parametrize("name", CLASSICAL)
def test_foreign_and_empty_files_are_refused(name, image):
    codec = load_codec(name)
    other = load_codec("webp" if name != "webp" else "jpeg").encode(image)[0]
    for stream in (b"", b"text", other):
        with pytest.raises(BitstreamError):
            codec.decode([stream])


@pytest.mark.parametrize("name", CLASSICAL)
def test_damaged_files_never_crash(name, image):
    codec, rng = load_codec(name), random.Random(0)
    stream = codec.encode(image)[0]
    for _ in range(50):
        damaged = bytearray(stream[: rng.randrange(1, len(stream) + 1)])
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            codec.decode([bytes(damaged)])
        except BitstreamError:
            continue


@pytest.mark.parametrize("name", CLASSICAL)
def test_more_pixels_than_asked_for_are_refused_before_they_are_decoded(name, image, monkeypatch):
    codec = load_codec(name)
    stream = codec.encode(image)
    pixels = image[0, 0].numel()
    assert codec.decode(stream, most_pixels=pixels).shape == image.shape
    for module, decoding in ((classical, "from_pil"), (files, "load_image")):
        monkeypatch.setattr(module, decoding, lambda *a: pytest.fail("it was decoded"))
    with pytest.raises(BitstreamError, match=r"most that are decoded|cannot decode this"):
        codec.decode(stream, most_pixels=pixels - 1)


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_flattest_picture_is_decoded_and_a_denser_claim_is_not(name, monkeypatch):
    lowest = min(
        (CLASSICAL[name].lowest, CLASSICAL[name].qualities[0], CLASSICAL[name].highest),
        key=lambda q: len(load_codec(name, q).encode(torch.full((1, 3, 64, 64), 0.5))[0]),
    )
    flat, codec = torch.full((1, 3, 1024, 2048), 0.5), load_codec(name, lowest)
    stream = codec.encode(flat)
    assert codec.decode(stream).shape == flat.shape
    if math.isfinite(CLASSICAL[name].densest):
        assert 2**21 / len(stream[0]) < CLASSICAL[name].densest / 2
        monkeypatch.setattr(codec._coder, "densest", 2**21 / len(stream[0]) - 1)
        with pytest.raises(BitstreamError, match="into a byte"):
            codec.decode(stream)


def test_a_decompression_bomb_is_a_bitstream_error(image):
    bomb = io.BytesIO()
    Image.new("L", (6000, 6000)).save(bomb, "JPEG2000", no_jp2=True, irreversible=True)
    assert len(bomb.getvalue()) < 1000  # 36 megapixels of black
    with pytest.raises(BitstreamError, match="most that are decoded"):
        load_codec("jpeg2000").decode([bomb.getvalue()])
    jpeg = bytearray(load_codec("jpeg").encode(image)[0])
    at = jpeg.index(b"\xff\xc0") + 5  # height and width of the frame
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(BitstreamError, match=r"65535×65535|exceeds limit"):
        load_codec("jpeg").decode([bytes(jpeg)])


@pytest.mark.parametrize("quality", [0, 101, -3, "high", float("nan")])
def test_bad_qualities_name_the_scale(quality):
    with pytest.raises(ValueError, match="quality 1–100"):
        load_codec("jpeg", quality)


def test_optimised_jpeg_is_the_same_picture_in_fewer_bytes(image):
    ours, plain = (load_codec(n, 50).roundtrip(image) for n in ("jpeg", "jpeg-plain"))
    assert torch.equal(ours.x_hat, plain.x_hat) and len(ours.streams[0]) < len(plain.streams[0])


def test_no_gradient_is_said_plainly(image):
    for call in (lambda c: c(image), lambda c: c.reconstruct(image, surrogate="ste")):
        with pytest.raises(TypeError, match="not differentiable"):
            call(load_codec("avif"))
