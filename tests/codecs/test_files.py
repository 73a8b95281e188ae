import struct
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import pytest
import torch

from nic_helpers import attacks, load_images, metrics
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.files import CommandCodec, ffmpeg, run_command

FFMPEG = [ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]


@pytest.fixture
def image():
    return load_images("bundled")[0][None, :, :97, :64]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files go, to see that they are gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def mjpeg(quality=4, **options):
    """A real pair of commands: ffmpeg's own JPEG coder."""
    return CommandCodec(
        "mjpeg",
        [*FFMPEG, "-i", "{source}", "-q:v", "{quality}", "-pix_fmt", "yuvj444p", "{stream}"],
        [*FFMPEG, "-i", "{stream}", "{picture}"],
        quality,
        suffix="jpg",
        **options,
    )


def python(code, **options):
    """A codec whose encoder and decoder are a line of Python."""
    return CommandCodec(
        "python",
        [sys.executable, "-c", code, "{source}", "{stream}"],
        [sys.executable, "-c", code, "{stream}", "{picture}"],
        **options,
    )


def test_a_pair_of_programs_is_a_codec(image, folder):
    fine, coarse = mjpeg(2).roundtrip(image), mjpeg(20).roundtrip(image)
    assert real_bpp(fine.streams, image) > real_bpp(coarse.streams, image)
    assert metrics.psnr(image, fine.x_hat) > metrics.psnr(image, coarse.x_hat) + 3 > 25
    assert torch.equal(mjpeg(2).decode(fine.streams), fine.x_hat) and fine.streams[0][:2] == b"\xff\xd8"
    assert not list(folder.iterdir())


def test_lists_tables_and_attacks_take_it_like_any_codec(image):
    codec = mjpeg(8)
    adv = attacks.RandomNoise(8 / 255)(codec, image)
    row = metrics.before_after(codec, image, adv.x_adv)
    assert row["codec"][0] == "mjpeg" and row["bpp_clean"][0] > 0 and 0 < row["psnr_recon"][0] < 50
    sizes = [image[0], image[0, :, :40, :33]]
    assert [r.shape for r in codec.reconstruct(sizes)] == [s.shape for s in sizes]
    with pytest.raises(TypeError, match="not differentiable"):
        attacks.PGD(8 / 255)(codec, image)


@pytest.mark.parametrize("side", [(97, 64), (5, 33)])
def test_padding_and_the_true_size_are_handled_where_the_program_wants_multiples(side, image):
    x = image[..., : side[0], : side[1]]
    codec = mjpeg(2, multiple=16, smallest=32)
    stream = codec.encode(x)
    assert codec.decode(stream).shape == x.shape
    for damaged in (stream[0][:-1], b"\0" + stream[0][1:], stream[0][:8], b""):
        with pytest.raises(BitstreamError, match="checksum"):
            codec.decode([damaged])


def test_a_claim_of_too_many_pixels_is_refused_and_where_the_size_is_known_before_the_program_runs(image, monkeypatch):
    pixels = image[0, 0].numel()
    plain, padded = mjpeg(), mjpeg(multiple=16)
    plain.decode(plain.encode(image), most_pixels=pixels)
    streams = padded.encode(image)
    padded.decode(streams, most_pixels=pixels)
    with pytest.raises(BitstreamError, match=rf"{pixels} pixels, and {pixels - 1} are the most"):
        plain.decode(plain.encode(image), most_pixels=pixels - 1)
    body = b"\xff\xff\xff\xff" + streams[0][8:]  # 65535×65535, with a right checksum
    huge = struct.pack(">I", zlib.crc32(body)) + body
    inside = mjpeg().encode(torch.nn.functional.interpolate(image, (512, 512)))[0]  # the program's own header says more
    body = streams[0][4:8] + inside
    hidden = struct.pack(">I", zlib.crc32(body)) + body
    with pytest.raises(BitstreamError, match="another size than it says"):
        padded.decode([hidden])
    monkeypatch.setattr(padded, "_run", lambda *a: pytest.fail("the program ran"))
    with pytest.raises(BitstreamError, match="65535×65535"):
        padded.decode([huge])
    padded.densest = 1.0
    with pytest.raises(BitstreamError, match="into a byte"):
        padded.decode(streams)


def test_a_decoder_can_be_told_how_many_pixels_it_may_make(image, tmp_path):
    code = "import sys, shutil; print(sys.argv[3], file=sys.stderr); sys.exit(1)"
    codec = CommandCodec(
        "told",
        [sys.executable, "-c", code, "{source}", "{stream}", ""],
        [sys.executable, "-c", code, "{stream}", "{picture}", "{most_pixels}"],
    )
    for most, said in ((10**6, str(4 * 10**6 + 2**16)), (float("inf"), str(2**31 - 1))):
        with pytest.raises(BitstreamError, match=rf"status 1: {said}$"):
            codec.decode([b"x"], most_pixels=most)


def test_what_is_no_stream_is_a_bitstream_error(image, folder):
    for stream in (b"", b"nonsense", mjpeg().encode(image)[0][:100]):
        with pytest.raises(BitstreamError, match="cannot decode"):
            mjpeg().decode([stream])
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "codec, says",
    [
        (CommandCodec("gone", ["no-such-program", "{stream}"], ["x", "{picture}"]), "does not start.*Install it"),
        (python("import sys; sys.exit('no memory left')"), "failed with status 1: no memory left"),
        (python("pass"), "wrote no stream.bin"),
        (python("import time; time.sleep(60)", timeout=0.5), "took more than 0.5 s"),
    ],
)
def test_failures_say_what_to_do_and_leave_nothing(codec, says, image, folder):
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=says):
        codec.encode(image)
    assert not list(folder.iterdir()) and time.monotonic() - began < 30


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path):
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    with pytest.raises(RuntimeError, match="was ended"):
        run_command([sys.executable, "-c", parent], tmp_path, 1.0)
    time.sleep(3)
    assert not (tmp_path / "alive").exists()


def test_no_shell_takes_part(image, tmp_path):
    codec = CommandCodec(
        "$(touch pwned); echo",
        [
            sys.executable,
            "-c",
            "import sys; open(sys.argv[2], 'w').write(sys.argv[1])",
            "; touch pwned {quality} $HOME",
            "{stream}",
        ],
        ["x", "{picture}"],
        7,
    )
    assert codec.encode(image) == [b"; touch pwned 7 $HOME"]
    assert not list(tmp_path.iterdir()) and not Path("pwned").exists()


def test_several_threads_do_not_disturb_each_other(image):
    found, codec = {}, mjpeg(6)
    work = [threading.Thread(target=lambda k=k: found.update({k: codec.encode(image)[0]})) for k in range(6)]
    for t in work:
        t.start()
    for t in work:
        t.join()
    assert set(found.values()) == {codec.encode(image)[0]}


@pytest.mark.parametrize(
    "encode, decode, error",
    [
        ("encoder {stream}", ["d", "{picture}"], TypeError),
        ([], ["d", "{picture}"], TypeError),
        (["e"], ["d", "{picture}"], ValueError),
        (["e", "{stream}"], ["d"], ValueError),
    ],
)
def test_commands_that_cannot_work_are_refused(encode, decode, error):
    with pytest.raises(error, match="command"):
        CommandCodec("bad", encode, decode)


def test_braces_that_name_nothing_are_the_program_s_own(image):
    copy = "import sys; a, b, options = sys.argv[1:]; assert options == '{\"q\": {1}}7'; "
    copy += "open(b, 'wb').write(open(a, 'rb').read())"
    codec = CommandCodec(
        "copy",
        [sys.executable, "-c", copy, "{source}", "{stream}", '{"q": {1}}{quality}'],
        [sys.executable, "-c", copy, "{stream}", "{picture}", '{"q": {1}}{quality}'],
        7,
    )
    assert torch.equal(codec.reconstruct(image), image)
