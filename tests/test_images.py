import http.server
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nic_helpers import image_sets
from nic_helpers.image_sets import ImageSet, in_words, load_images, load_named_images
from nic_helpers.images import as_images, check_images, from_pil, load_image, pixels_sha256, to_8bit

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_bundled_images_are_rgb_crops_on_the_8bit_grid():
    for image in load_images("bundled"):
        assert image.shape == (3, 256, 256)
        assert torch.equal(image, to_8bit(image))


def test_bundled_images_stored_as_jpeg_can_be_left_out():
    every, lossless = load_named_images("bundled"), load_named_images("bundled", lossless_only=True)
    assert set(every) - set(lossless) == {"rocket"}


def test_greyscale_is_repeated():
    x = from_pil(Image.fromarray(RAMP))
    assert torch.equal(x[0], x[2]) and torch.equal(x[1] * 255, torch.from_numpy(RAMP).float())


def test_palette_gives_its_colours():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (from_pil(image)[:, 0, 0] * 255).round().tolist() == [10, 20, 30]


def test_transparency_is_laid_over_white():
    x = from_pil(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert torch.equal(x, torch.ones(3, 2, 2))


def test_palette_transparency_is_laid_over_white(tmp_path):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0])
    image.save(tmp_path / "p.png", transparency=0)
    assert torch.equal(load_image(tmp_path / "p.png"), torch.ones(3, 2, 2))


def test_16bit_grey_is_scaled_not_clipped(tmp_path):
    values = (RAMP.astype(np.uint16)) * 257
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png")[0] * 255).round().to(torch.uint8).equal(torch.from_numpy(RAMP))


def test_floating_point_grey_takes_its_usual_range_or_is_refused():
    for top in (1.0, 255.0, 65535.0):
        x = from_pil(Image.fromarray(np.array([[0, top / 2, top]], dtype=np.float32)))
        assert (x[0, 0] * 255).round().tolist() in ([0, 127, 255], [0, 128, 255])
    with pytest.raises(ValueError, match="no usual range"):
        from_pil(Image.fromarray(np.array([[-5.0, 2.0]], dtype=np.float32)))


def test_cmyk_becomes_rgb():
    x = from_pil(Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert (x[:, 0, 0] * 255).tolist() == [255, 0, 0]


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").shape == (3, 4, 2)


def test_broken_image_among_good_ones_is_skipped_by_name_or_refused(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"broken\.png"):
        assert list(load_named_images(tmp_path)) == ["good.png"]
    with pytest.raises(OSError, match=r"broken\.png"):
        load_named_images(tmp_path, on_error="raise")


def test_text_named_png_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(OSError, match=r"a\.png"):
        load_image(tmp_path / "a.png")


def test_a_folder_s_images_are_known_by_what_they_are_and_the_others_named(tmp_path):
    image = Image.fromarray(RAMP).convert("RGB")
    suffixes = (
        "PNG",
        "JPG",
        "jfif",
        "bmp",
        "tif",
        "gif",
        "webp",
        "avif",
        "jp2",
        "qoi",
        "tga",
        "pcx",
        "sgi",
        "ppm",
        "ico",
    )
    for k, suffix in enumerate(suffixes):
        image.save(tmp_path / f"{k:02d}.{suffix}")
    image.save(tmp_path / "no suffix", "png")
    image.save(tmp_path / "wrong.heic", "webp")
    for name in ("a.heic", "b.mov", "notes.txt", "README.md", ".hidden"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "more").mkdir()
    with pytest.warns(UserWarning, match=r"left out of .*: a\.heic, b\.mov, more\. Convert") as said:
        found = load_named_images(tmp_path)
    assert len(found) == len(suffixes) + 2 and len(said) == 1
    for name in ("more", "a.heic"):
        lone = tmp_path / f"lone {name}"
        lone.mkdir()
        (lone / name).mkdir()
        with pytest.raises(FileNotFoundError, match=f"no readable image .* holds {name}"):
            load_images(lone)


def test_what_is_no_source_of_images_is_told_what_is(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(RAMP).save(file)
    with pytest.raises(NotADirectoryError, match="load_image"):
        load_images(file)
    with pytest.raises(FileNotFoundError, match="'bundled', 'kodak'"):
        load_images("bundeld")
    for wrong in (None, [file], torch.zeros(3, 16, 16)):
        with pytest.raises(TypeError, match="a folder's path, got"):
            load_images(wrong)


def test_of_several_pictures_in_a_file_the_first_is_taken_with_a_warning(tmp_path):
    colours = [Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 255, 0))]
    for suffix in ("gif", "webp", "png", "tif", "avif"):
        path = tmp_path / f"a.{suffix}"
        colours[0].save(path, save_all=True, append_images=colours[1:])
        with pytest.warns(UserWarning, match=f"a.{suffix} holds 2 pictures: the first"):
            x = load_image(path)
        assert x[0].mean() > 0.9 and x[1].mean() < 0.1
    colours[0].save(tmp_path / "phone.jpg", "mpo", save_all=True, append_images=colours[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(tmp_path / "phone.jpg")


def test_a_set_knows_its_names_at_once_and_reads_what_is_asked_for(tmp_path, monkeypatch):
    for k in range(4):
        Image.new("RGB", (40, 30), (k, 0, 0)).save(tmp_path / f"{k}.png")
    read, really = [], image_sets.load_image
    monkeypatch.setattr(image_sets, "load_image", lambda path: read.append(path.name) or really(path))
    found = ImageSet(tmp_path, crop=16)
    assert list(found) == ["0.png", "1.png", "2.png", "3.png"] and "1.png" in found and not read
    assert found["2.png"].shape == (3, 16, 16) and read == ["2.png"]
    assert found["2.png"].untyped_storage().nbytes() == 3 * 16 * 16 * 4  # the whole image is not kept behind it
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    with pytest.warns(UserWarning, match=r"0\.png"):
        assert list(found.read(2)) == ["1.png", "2.png"]
    assert read[2:] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    "source, n, words",
    [
        ("bundled", 2, "2 bundled images"),
        ("kodak", 1, "1 Kodak image"),
        ("photos/holiday", 2, "2 images of holiday"),
        (Path("holiday/"), 1, "1 image of holiday"),
        (Path("kodak"), 2, "2 images of kodak"),
    ],
)
def test_captions_say_whose_images_they_are(source, n, words):
    assert in_words(source, n) == words


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable image"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_images(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.rand(3, 32, 32), "add a batch dimension"),
        (torch.rand(1, 1, 32, 32), r"\[B, 3, H, W\]"),
        (torch.rand(0, 3, 32, 32), "empty batch"),
        (torch.full((1, 3, 32, 32), float("nan")), "NaN"),
        (torch.full((1, 3, 32, 32), 200.0), "divide by 255"),
        (torch.full((1, 3, 32, 32), -0.1), r"lie in \[0, 1\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating point"),
        (torch.rand(1, 3, 1, 1), "at least 16×16"),
        ([], "empty list"),
        (["a"], "got str"),
        (torch.rand(1, 32, 32, 3), r"x\.permute\(0, 3, 1, 2\)"),
        (torch.rand(32, 32, 3), r"x\.permute\(2, 0, 1\)"),
        (torch.rand(2, 1, 32, 32), "grey is repeated"),
        (torch.rand(2, 4, 32, 32), "alpha"),
        ([torch.rand(1, 3, 32, 32)], r"x\[0\]"),
        ([torch.rand(3, 32, 32), torch.rand(3, 32, 8)], "image 1 of the list: .* at least 16×16"),
        ([np.zeros((32, 32, 3), np.uint8)], "numpy array"),
        (torch.full((1, 3, 32, 32), 1 + 1e-6), r"1\.000001\]: .*x\.clamp\(0, 1\)"),
        ("a.png", "load_image"),
        (Path("a.png"), "load_image"),
        (Image.new("RGB", (32, 32)), "from_pil"),
        (np.zeros((32, 32, 3), np.uint8), r"\(32, 32, 3\) of uint8; torch\.from_numpy"),
        ({"a": torch.rand(3, 32, 32)}, r"dict; list\(x\.values\(\)\)"),
        (None, "got NoneType"),
        (3, "got int"),
    ],
)
def test_bad_tensors_are_named(bad, says):
    with pytest.raises((ValueError, TypeError), match=says):
        check_images(bad, 16)


def test_a_generator_of_images_is_a_list_of_them():
    listed = as_images(image for image in torch.rand(2, 3, 32, 32))
    assert isinstance(listed, list) and len(listed) == 2
    with pytest.raises(ValueError, match="got str"):
        as_images(name for name in "ab")


@pytest.fixture
def tiny_kodak(tmp_path, monkeypatch):
    """Two made images standing for Kodak, with their true hashes, in a folder to be served."""
    served = tmp_path / "served"
    served.mkdir()
    hashes = {}
    for k, name in enumerate(("kodim01.png", "kodim02.png")):
        Image.new("RGB", (32, 32), (k, 0, 0)).save(served / name)
        hashes[name] = pixels_sha256(load_image(served / name))
    monkeypatch.setattr(image_sets, "KODAK", hashes)
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("NIC_KODAK_DIR", raising=False)
    return served


def test_kodak_download_goes_on_where_it_was_interrupted(tiny_kodak, serve, monkeypatch, tmp_path):
    second = (tiny_kodak / "kodim02.png").read_bytes()
    (tiny_kodak / "kodim02.png").unlink()
    monkeypatch.setenv("NIC_KODAK_URL", serve(tiny_kodak) + "/")
    with pytest.raises(ConnectionError, match="1 of 24 are in"):
        load_images("kodak")
    (tiny_kodak / "kodim02.png").write_bytes(second)
    (tiny_kodak / "kodim01.png").unlink()  # already here: not asked for again
    assert len(load_images("kodak")) == 2
    assert sorted(p.name for p in (tmp_path / "data" / "kodak").iterdir()) == ["kodim01.png", "kodim02.png"]


def test_a_download_cut_off_in_the_middle_leaves_nothing_behind(tiny_kodak, monkeypatch, tmp_path):
    class Cut(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = (tiny_kodak / "kodim01.png").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Cut)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NIC_KODAK_URL", f"http://127.0.0.1:{server.server_port}/")
    with pytest.raises(ConnectionError, match="0 of 24"):
        load_images("kodak")
    server.shutdown()
    server.server_close()
    assert not list((tmp_path / "data" / "kodak").glob("*"))


def test_kodak_file_with_a_wrong_hash_is_refused(tiny_kodak, serve, monkeypatch):
    Image.new("RGB", (32, 32), "red").save(tiny_kodak / "kodim02.png")
    monkeypatch.setenv("NIC_KODAK_URL", serve(tiny_kodak) + "/")
    with pytest.raises(ConnectionError, match=r"kodim02\.png"):
        load_images("kodak")
    monkeypatch.setenv("NIC_KODAK_DIR", str(tiny_kodak))
    with pytest.raises(ValueError, match="SHA-256"):
        load_images("kodak")


def test_kodak_s_pixels_are_what_counts_not_the_bytes_of_their_files(tiny_kodak, serve, monkeypatch, tmp_path):
    for path in tiny_kodak.iterdir():
        before = path.read_bytes()
        Image.open(path).save(path, compress_level=0)
        assert path.read_bytes() != before
    monkeypatch.setenv("NIC_KODAK_URL", serve(tiny_kodak) + "/")
    assert len(load_images("kodak")) == 2
    (tmp_path / "data" / "kodak" / "kodim01.png").write_bytes(b"damaged")  # which is fetched again
    assert len(load_images("kodak")) == 2
    monkeypatch.setenv("NIC_KODAK_DIR", str(tiny_kodak))
    assert len(load_images("kodak")) == 2


def test_without_network_kodak_says_what_to_do(tiny_kodak, closed_port, monkeypatch):
    monkeypatch.setenv("NIC_KODAK_URL", closed_port + "/")
    with pytest.raises(ConnectionError, match="NIC_KODAK_DIR"):
        load_images("kodak")


def test_kodak_folder_lacking_images_names_them(tiny_kodak, monkeypatch):
    (tiny_kodak / "kodim02.png").unlink()
    monkeypatch.setenv("NIC_KODAK_DIR", str(tiny_kodak))
    with pytest.raises(FileNotFoundError, match=r"lacks kodim02\.png"):
        load_images("kodak")
