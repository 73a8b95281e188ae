"""Runs of variable-rate architectures with transforms of their own: from random weights over all λ to a file that loads."""

import pytest
import torch
from conftest import WIDTHS

from nic_helpers import load_codec, load_images
from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.images import to_pil
from nic_helpers.training.__main__ import main
from nic_helpers.training.maps import draw_maps
from nic_helpers.training.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of training images: two of the bundled ones."""
    path = tmp_path_factory.mktemp("train")
    for k, image in enumerate(load_images("bundled")[:2]):
        to_pil(image).save(path / f"{k}.png")
    return path


@pytest.mark.parametrize("arch", ["song2021", "cai2022"])
def test_a_run_resumes_exactly_and_its_weights_load_at_every_quality(arch, folder, tmp_path, x):
    widths = WIDTHS.get(arch, (12, 16))
    line = ["--arch", arch, "--quality", "6", "--start", "default", "--steps", "3", "--batch", "2", "--crop", "128", "--every", "2"]
    line += ["--widths", *map(str, widths), "--mixed", "--data", str(folder), "--out"]
    main([*line, str(tmp_path / "a")])
    main([*line, str(tmp_path / "b"), "--stop", "2"])
    main([*line, str(tmp_path / "b")])
    whole, resumed = (torch.load(tmp_path / run / "state.pt", weights_only=True)["model"] for run in "ab")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    weights = tmp_path / "a" / "weights.safetensors"
    for quality in (1, 6):
        codec = load_codec(arch, quality, weights=weights, device="cpu")
        assert codec.lmbda == LAMBDAS[quality] and codec.arch.widths_of(codec.model.state_dict()) == widths
    coded = codec.roundtrip(x[:1])
    torch.testing.assert_close(codec.decode(coded.streams), coded.x_hat, atol=1e-5, rtol=0)


def test_half_the_maps_are_uniform_and_the_others_vary_within_0_and_1():
    maps = draw_maps(8, 64, 0.3, (5, 7))
    assert maps.shape == (8, 1, 64, 64) and maps.min() >= 0 and maps.max() <= 1
    assert bool((maps[:4] == 0.3).all()) and bool((maps[4:].amax((1, 2, 3)) > maps[4:].amin((1, 2, 3))).all())
    assert torch.equal(maps, draw_maps(8, 64, 0.3, (5, 7))) and not torch.equal(maps, draw_maps(8, 64, 0.3, (5, 8)))


@pytest.mark.parametrize(
    "given, says",
    [
        ({"centred": True}, "centred concerns convolutions with GDN and Cheng2020's blocks, which song2021 has not got"),
        ({"crop": 64}, "song2021 takes crops from 128 pixels a side, got 64"),
        ({"quality": 7}, "the quality of song2021 must be one of 1, 2, 3, 4, 5, 6, got 7"),
        ({"arch": "cai2022"}, r"cai2022 takes 4 widths \(N M hidden couplings\)"),
    ],
)
def test_settings_that_no_such_run_can_have_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Settings(**{"arch": "song2021", "quality": 6, "widths": (12, 16), "steps": 4, "start": "random"} | given)
