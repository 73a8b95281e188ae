import sys

import pytest
import torch
from blocks import Blocks

from nic_helpers import load_codec, load_images
from nic_helpers.card import CardError, Settings, body, codec_of, make_card, page
from nic_helpers.card.__main__ import main
from nic_helpers.card.measure import _beaten
from nic_helpers.card.page import spread
from nic_helpers.card.subject import images_of
from nic_helpers.codecs.base import Codec, CodecOutput
from nic_helpers.images import to_pil

TINY = Settings(steps=2, rate_steps=1, queries=5, check_queries=3)


class NoFiles(Codec):
    name, quality = "no files", 1

    def __call__(self, x, surrogate="ste", rate=True):
        return CodecOutput(0.9 * x, {}, x.shape[2] * x.shape[3])


@pytest.fixture(scope="module")
def images():
    return {f"image {k}": im[:, 64:128, 64:112] for k, im in enumerate(load_images("bundled")[:2])}


@pytest.fixture(scope="module")
def card(images):
    return make_card(Blocks(1 / 32, 4, name="averages <b>", device="cpu"), images, TINY)


def test_a_card_has_all_attacks_each_beside_noise_of_its_size(card):
    assert list(card.attacked) == ["picture, box", "picture, ball", "file, box", "picture, transferred", "file, transferred"]
    for name, rows in card.attacked.items():
        assert ((card.noise[name]["rms"] / rows["rms"] - 1).abs() < 0.05).all(), name
        assert rows["linf" if "ball" not in name else "rms"].max() <= 8 / 255 + 1e-6
    assert {"Same codec", "Inside the budget", "Masked"} <= {what for what, _, _ in card.checks}


def test_the_page_stands_alone_and_escapes_names(card):
    text = page(card)
    assert "averages &lt;b&gt;" in text and "averages <b>" not in text
    assert "http" not in text.replace("data:image", "") and "What this does not show" in text
    assert text.count("<img") == 9 and "bits per pixel" in text and "SHA-256" in text and len(text) < 1_500_000


def test_a_codec_without_gradient_gets_a_blind_search_and_says_so(images):
    made = make_card(load_codec("jpeg", 50), images, TINY)
    assert list(made.attacked) == ["picture, blind", "file, blind", "picture, transferred", "file, transferred"]
    assert "no gradient" in body(made) and "No attack followed a gradient" in body(made)


def test_a_codec_without_files_gets_a_card_without_rates(images):
    made = make_card(NoFiles(), images, TINY)
    assert not made.real_files and "No real files" in body(made) and "picture, box" in made.attacked


def test_an_attack_that_another_one_beats_at_its_own_aim_is_told(images):
    codec = load_codec("bmshj2018-hyperprior", 3)
    made = make_card(codec, images, TINY)
    aims = [(text, well) for check, text, well in made.checks if check == "Hits its aim"]
    assert [well for _, well in aims] == [True, True] and all("on 2 of 2 images" in text for text, _ in aims)
    made.attacked["file, transferred"]["bpp_ratio"] = 100.0
    made.attacked["picture, ball"]["psnr_recon"] = 1.0  # another budget: not compared
    aims = [well for check, _, well in _beaten(made) if check == "Hits its aim"]
    assert aims == [True, False]


def test_few_images_have_a_range(card):
    assert spread(card.clean["psnr"], "dB").endswith("] dB") and "[range] of 2 images" in body(card)


@pytest.mark.parametrize(
    "spec, says",
    [
        ("jpeg", "NAME:QUALITY"),
        ("no_such_module:make", "cannot be imported"),
        ("mine_for_card:absent", "has no function"),
        ("mine_for_card:text", "returns no codec"),
        ("mine_for_card:fails", "ZeroDivisionError"),
        ("jpeg:1000", "jpeg:1000"),
        ("bmshj2018-hyperprior:77", "77"),
    ],
)
def test_bad_specs_are_answered_in_words(spec, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_for_card.py").write_text("def text():\n    return 'jpeg'\n\ndef fails():\n    return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("mine_for_card", None)
    with pytest.raises(CardError, match=says):
        codec_of(spec)
    assert main([spec]) == 2 and says in capsys.readouterr().err


def test_bad_images_are_answered_in_words(tmp_path):
    with pytest.raises(CardError, match="is no folder"):
        images_of(str(tmp_path / "absent"), 192, 4)
    with pytest.raises(CardError, match="no readable image"):
        images_of(str(tmp_path), 192, 4)
    to_pil(torch.rand(3, 8, 8)).save(tmp_path / "small.png")
    with pytest.raises(CardError, match="too small"):
        images_of(str(tmp_path), 192, 4)
    with pytest.raises(CardError, match="no images"):
        make_card(NoFiles(), {}, TINY)
    assert main(["jpeg:50", "--eps", "0"]) == 2
