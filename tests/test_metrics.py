import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nic_helpers import attacks, load_images, metrics
from nic_helpers.images import to_8bit, to_uint8


@pytest.fixture(scope="module")
def pair():
    """A bundled image and a noisy version of it, 8-bit [1, 3, 256, 256]."""
    x = load_images("bundled")[1][None]
    generator = torch.Generator().manual_seed(0)
    return x, to_8bit(x + 0.05 * torch.randn(x.shape, generator=generator))


def test_psnr_and_ssim_agree_with_scikit_image(pair):
    a, b = (to_uint8(v[0]) for v in pair)
    assert metrics.psnr(*pair).item() == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-6)
    theirs = structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert metrics.ssim(*pair).item() == pytest.approx(theirs, abs=5e-3)  # they pad the borders, we do not


def test_metrics_see_8bit_images(pair):
    x, y = pair
    assert torch.equal(metrics.psnr(x, y + 0.4 / 255 * (y < 0.99)), metrics.psnr(x, y))


def test_identical_images_are_capped_at_100_db(pair):
    assert metrics.psnr(pair[0], pair[0]).item() == 100
    assert metrics.ssim(pair[0], pair[0]).item() == pytest.approx(1)


def test_small_images_have_no_ms_ssim(pair):
    x, y = (v[..., :160, :160] for v in pair)
    assert math.isnan(metrics.ms_ssim(x, y).item()) and not math.isnan(metrics.ssim(x, y).item())
    assert math.isnan(metrics.ssim(x[..., :8, :8], y[..., :8, :8]).item())


def test_metrics_take_lists_of_different_sizes(pair):
    x, y = pair
    lists = [x[0], x[0, :, :200, :180]], [y[0], y[0, :, :200, :180]]
    for metric in (metrics.psnr, metrics.ssim, metrics.ms_ssim):
        assert metric(*lists).tolist() == [metric(a[None], b[None]).item() for a, b in zip(*lists, strict=True)]


def test_shapes_must_agree(pair):
    with pytest.raises(ValueError, match="different shapes"):
        metrics.psnr(pair[0], pair[1][..., :100])


def test_before_after_holds_the_methods_quantities_by_definition(hyperprior, pair):
    x, x_adv = pair
    row = metrics.before_after(hyperprior, x, x_adv, ["chelsea"]).iloc[0]
    clean, attacked = hyperprior.reconstruct(x), hyperprior.reconstruct(x_adv)
    for name, a, b in (
        ("psnr_clean", x, clean),
        ("psnr_source", x, attacked),
        ("psnr_own", x_adv, attacked),
        ("psnr_recon", clean, attacked),
        ("psnr_input", x, x_adv),
        ("psnr_oracle", clean, x_adv),
    ):
        assert row[name] == pytest.approx(metrics.psnr(a, b).item(), abs=1e-3), name
    assert row.delta_source == pytest.approx(row.psnr_clean - row.psnr_source)
    assert row.delta_own == pytest.approx(row.psnr_clean - row.psnr_own)
    # the vulnerability index is the amplification
    vi = 10 * math.log10(metrics.mse(attacked, clean).item() / metrics.mse(x_adv, x).item())
    assert row.delta_amp == pytest.approx(vi, abs=1e-3)
    sizes = [8 * len(hyperprior.encode(v)[0]) / (256 * 256) for v in (x, x_adv)]
    assert [row.bpp_clean, row.bpp_attacked] == pytest.approx(sizes)
    assert row.bpp_ratio == pytest.approx(sizes[1] / sizes[0]) and row.delta_r == pytest.approx(sizes[1] - sizes[0])
    assert row.delta_r_rel == pytest.approx(row.bpp_ratio - 1)
    assert row.psnr_drop_percent == pytest.approx(100 * (row.psnr_clean - row.psnr_source) / row.psnr_clean)
    rise = 255**2 * (metrics.mse(x_adv, attacked) - metrics.mse(x, clean)).item()
    assert row.delta_d == pytest.approx(rise, rel=1e-3)
    assert row.delta_d_rel == pytest.approx(rise / (255**2 * metrics.mse(x, clean).item()), rel=1e-3)
    assert row.rms == pytest.approx((x_adv - x).pow(2).mean().sqrt().item(), rel=1e-4)
    assert row.image == "chelsea" and row.weights_sha256 == hyperprior.weights.sha256[:12] and not row.blow_up


def test_before_after_on_lists_equals_batches(hyperprior, pair):
    x, x_adv = pair
    a = metrics.before_after(hyperprior, x, x_adv)
    b = metrics.before_after(hyperprior, list(x), list(x_adv))
    np.testing.assert_allclose(a.select_dtypes("number"), b.select_dtypes("number"), atol=1e-4)
    with pytest.raises(ValueError, match="same shape"):
        metrics.before_after(hyperprior, x, list(x_adv))


def test_before_after_without_real_rates(hyperprior, pair):
    assert "bpp_ratio" not in metrics.before_after(hyperprior, *pair, real_rate=False)


def test_measures_that_nobody_asked_for_are_not_computed(hyperprior, pair, monkeypatch):
    whole = metrics.before_after(hyperprior, *pair)
    monkeypatch.delitem(metrics.QUALITIES, "ssim")
    monkeypatch.setitem(metrics.QUALITIES, "ms_ssim", None)
    few = metrics.before_after(hyperprior, *pair, measures=["psnr"])
    pd.testing.assert_frame_equal(few, whole[few.columns])
    assert set(whole) - set(few) and not [c for c in few if "ssim" in c]


def test_an_unchanged_image_is_undamaged(hyperprior, pair):
    row = metrics.before_after(hyperprior, pair[0], pair[0]).iloc[0]
    assert row.psnr_recon == row.psnr_input == 100 and row.bpp_ratio == 1 and row.delta_source == 0


def test_what_does_not_go_together_is_named(hyperprior, pair):
    x = pair[0]
    two = x.expand(2, -1, -1, -1)
    for call, says in (
        (lambda: metrics.before_after(hyperprior, two, two, names=["a"]), r"each of the 2 image\(s\), got \['a'\]"),
        (lambda: metrics.quality_table(hyperprior, x, names="chelsea"), r"each of the 1 image\(s\), got 'chelsea'"),
        (lambda: metrics.before_after(hyperprior, two, x), "a batch of 2, a batch of 1"),
        (lambda: metrics.psnr(list(two), list(x)), "a list of 2, a list of 1"),
        (lambda: metrics.psnr(x, list(x)), "a batch of 1, a list of 1"),
        (lambda: metrics.before_after(hyperprior, x, x[..., :64]), "different shapes"),
        (lambda: metrics.before_after(hyperprior, {"a": x[0]}, x), r"list\(x\.values\(\)\)"),
        (lambda: metrics.psnr(x.numpy(), x.numpy()), "numpy array"),
    ):
        with pytest.raises((TypeError, ValueError), match=says):
            call()
    result = attacks.FGSM(8 / 255)(hyperprior, x)  # an attack's result is as good as its images
    assert metrics.before_after(hyperprior, x, result).equals(metrics.before_after(hyperprior, x, result.x_adv))


def test_a_caller_s_autocast_and_half_precision_change_no_quality(x):
    a = torch.stack([im[:, :176, :176] for im in load_images("bundled")[:2]])
    b = to_8bit(a + 0.05)
    for metric in (metrics.psnr, metrics.ssim, metrics.ms_ssim):
        expected = metric(a, b)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(metric(a, b), expected)
        for dtype in (
            torch.float16,
            torch.bfloat16,
        ):  # which cannot hold multiples of 1/255, but say which they stand for
            assert torch.equal(metric(a.to(dtype), b.to(dtype)), expected)


def test_rows_of_images_that_require_a_gradient_are_numbers_without_a_warning(hyperprior, x):
    v = x[:1].clone().requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table, rates = metrics.before_after(hyperprior, v, v), metrics.quality_table(hyperprior, v)
    assert table["linf"].item() == 0 and rates["bpp"].item() == table["bpp_clean"].item()
