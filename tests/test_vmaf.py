import itertools
import math
import stat
import sys
import tempfile

import pytest
import torch

from nic_helpers import load_images
from nic_helpers.images import to_8bit
from nic_helpers.vmaf import VMAF_SAME, VMAF_SMALLEST, vmaf


@pytest.fixture(scope="module")
def images():
    """Three 128×128 crops [3, 3, 128, 128] of the bundled images."""
    return torch.stack([im[:, 64:192, 64:192] for im in load_images("bundled")[:3]])


def noisy(x, size):
    return to_8bit(x + size * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))


def test_identical_images_score_highest_and_noise_lowers_it(images):
    scores = [vmaf(images, images)] + [vmaf(images, noisy(images, s)) for s in (0.02, 0.05, 0.1)]
    assert scores[0].tolist() == pytest.approx([VMAF_SAME] * 3, abs=0.01)
    for better, worse in itertools.pairwise(scores):
        assert (better > worse + 1).all() and (worse >= 0).all()


def test_an_image_scores_alike_alone_and_among_others(images):
    other = noisy(images, 0.05)
    together = vmaf(images, other)
    assert together.dtype == torch.float64 and together.shape == (3,)
    assert [vmaf(a[None], b[None]).item() for a, b in zip(images, other, strict=True)] == together.tolist()
    mixed = [images[0], images[1, :, :100, :75]], [other[0], other[1, :, :100, :75]]
    assert vmaf(*mixed)[0] == together[0] and math.isfinite(vmaf(*mixed)[1])


def test_the_first_image_is_the_reference(images):
    # sharpening scores above the source itself, blurring below
    blurred = to_8bit(torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False))
    assert (vmaf(images, blurred) < 90).all() and (vmaf(blurred, images) > vmaf(images, blurred)).all()


def test_it_sees_luma_alone(images):
    axis = torch.tensor((1.402, -0.714136, 0.0)).view(1, 3, 1, 1)  # BT.601's red difference: the luma stays
    middle = 0.25 + 0.5 * images
    coloured = to_8bit(middle + 0.1 * axis)
    assert (vmaf(to_8bit(middle), coloured) > VMAF_SAME - 2).all()
    assert (vmaf(to_8bit(middle), noisy(middle, 0.1)) < VMAF_SAME - 10).all()


def test_grey_levels_reach_the_filter_in_limited_range():
    # if 0 … 255 were taken for limited range, all above 235 would be one white
    steps = torch.arange(236, 256).repeat_interleave(5).repeat(100, 1)[None, None].expand(1, 3, -1, -1) / 255
    white = torch.ones_like(steps)
    assert vmaf(steps, white).item() < vmaf(steps, steps).item() - 5


def test_small_images_have_none(images):
    for height, width in ((VMAF_SMALLEST - 1, 64), (64, 8)):
        small = images[:, :, :height, :width]
        assert vmaf(small, small).isnan().all()
    small = images[:, :, :VMAF_SMALLEST, :VMAF_SMALLEST]
    assert vmaf(small, small).tolist() == pytest.approx([VMAF_SAME] * 3, abs=0.5)


def test_shapes_must_agree(images):
    with pytest.raises(ValueError, match="different shapes"):
        vmaf(images, images[..., :100])


def test_what_is_missing_is_named_and_nothing_is_left_behind(images, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    vmaf(images[:1], images[:1])
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="does not start"):
        vmaf(images, images)
    without = tmp_path / "ffmpeg"
    without.write_text(f"#!{sys.executable}\nimport sys\nsys.exit(\"No such filter: 'libvmaf'\")\n")
    without.chmod(without.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(without))
    with pytest.raises(RuntimeError, match="without libvmaf"):
        vmaf(images, images)
    assert not list((tmp_path / "scratch").iterdir())
