import copy

import pytest
import torch
from conftest import WIDTHS, untrained

from nic_helpers import load_images
from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.quantisers import round_true
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.kinds import channel_wise, has_other_transforms
from nic_helpers.training.losses import rate_distortion_loss
from nic_helpers.training.start import random_initialise
from nic_helpers.training.warmstart import begin_from


@pytest.fixture(scope="module")
def crops():
    """Two different 128×128 crops of each bundled image."""
    return torch.stack([im[:, top : top + 128, 64:192] for im in load_images("bundled") for top in (0, 64)])


def start(arch, widths, source, crops, lmbda=0.0067):
    """A codec begun from the untrained one of ``source`` (λ = 0.0067)."""
    torch.manual_seed(1)
    model = ARCHITECTURES[arch].build(*widths)
    old = copy.deepcopy(untrained(source).model)
    begin_from(ARCHITECTURES[arch], model, lmbda, ARCHITECTURES[source], old, 0.0067, crops)
    return model.eval()


def measure(arch, model, crops):
    """(bpp, PSNR) with true rounding."""
    with torch.no_grad():
        _, bpp, mse = rate_distortion_loss(ARCHITECTURES[arch], model, crops, 0.0067, None, round_true)
    return float(bpp), float(-10 * torch.log10(mse))


def widths_of(arch):
    return (12, 12) if arch.startswith("cheng") else WIDTHS.get(arch, (12, 16))


@pytest.mark.parametrize("arch", [a for a, kind in ARCHITECTURES.items() if not channel_wise(kind)])
def test_the_same_codec_at_the_same_lambda_is_taken_over_whole(arch, crops):
    model = start(arch, widths_of(arch), arch, crops)
    for name, value in untrained(arch).model.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arch", [a for a, kind in ARCHITECTURES.items() if not kind.variable and not has_other_transforms(kind)])
def test_a_finer_step_before_rounding_changes_nothing_but_the_step(arch, crops):
    """Without rounding the pictures are equal; with it they get better and cost more."""
    old, new = untrained(arch).model, start(arch, widths_of(arch), arch, crops, lmbda=LAMBDAS[6])
    with torch.no_grad():
        a, b = (walk(ARCHITECTURES[arch](m, 3), crops, lambda v, offset=0.0: v, rate=False).x_hat for m in (old, new))
    torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    (bpp_old, psnr_old), (bpp_new, psnr_new) = (measure(arch, m, crops) for m in (old, new))
    assert bpp_new > 1.2 * bpp_old and psnr_new > psnr_old


@pytest.mark.parametrize("arch", ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018"])
def test_narrowed_by_a_quarter_it_stays_far_ahead_of_a_start_from_nothing(arch, crops):
    full = measure(arch, untrained(arch).model, crops)
    narrow = start(arch, (10, 14), arch, crops)
    assert narrow.g_a[0].out_channels == 10 and narrow.g_a[-1].out_channels == 14
    bpp, psnr = measure(arch, narrow, crops)
    assert psnr > full[1] - 2.0 and bpp < 1.3 * full[0]


def test_residual_blocks_are_narrowed(crops):
    full = measure("cheng2020-anchor", untrained("cheng2020-anchor").model, crops)
    narrow = start("cheng2020-anchor", (10, 10), "cheng2020-anchor", crops)
    bpp, psnr = measure("cheng2020-anchor", narrow, crops)
    assert psnr > full[1] - 2.5 and bpp < 1.3 * full[0]


def test_more_latents_leave_the_picture_as_it_was(crops):
    old = untrained("cheng2020-anchor").model
    wide = start("cheng2020-anchor", (12, 20), "cheng2020-anchor", crops)
    with torch.no_grad():
        a, b = (walk(ARCHITECTURES["cheng2020-anchor"](m), crops, round_true) for m in (old, wide))
    torch.testing.assert_close(a.x_hat, b.x_hat, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.likelihoods["y"], b.likelihoods["y"][:, :12], atol=1e-3, rtol=1e-3)
    assert b.y[:, 12:].std() > 0.5


@pytest.mark.parametrize(
    "arch, source",
    [
        ("bmshj2018-factorized", "bmshj2018-hyperprior"),
        ("mbt2018-mean", "bmshj2018-hyperprior"),
        ("mbt2018", "mbt2018-mean"),
        ("bmshj2018-hyperprior-vbr", "bmshj2018-hyperprior"),
    ],
)
def test_another_entropy_model_leaves_the_transforms_as_they_were(arch, source, crops):
    model = start(arch, (12, 16), source, crops)
    before, after = measure(source, untrained(source).model, crops), measure(arch, model, crops)
    assert abs(after[1] - before[1]) < 0.1
    # passed through or taken over, the entropy model costs what the old one did; begun anew, a few times as much
    assert after[0] < (1.1 if arch in ("mbt2018", "bmshj2018-hyperprior-vbr") else 4) * before[0]


def test_attention_blocks_start_all_but_closed(crops):
    model = start("cheng2020-attn", (12, 12), "cheng2020-anchor", crops)
    a = measure("cheng2020-anchor", untrained("cheng2020-anchor").model, crops)
    b = measure("cheng2020-attn", model, crops)
    assert abs(a[1] - b[1]) < 1.5 and b[0] < 1.2 * a[0]


def test_wacnn_takes_over_the_transforms_of_a_plain_codec_with_gates_between_all_but_closed(crops):
    torch.manual_seed(0)
    plain, wacnn = ARCHITECTURES["bmshj2018-hyperprior"], ARCHITECTURES["zou2022-wacnn"]
    old = plain.build(16, 16)
    random_initialise(plain.name, old, crops, 0.0067)
    taken, model = copy.deepcopy(old), wacnn.build(16, 16, 8, 2, 8)
    begin_from(wacnn, model, 0.0067, plain, taken, 0.0067, crops)
    with torch.no_grad():
        before, after = (walk(arch(m), crops, lambda v, offset=0.0: v) for arch, m in ((plain, old), (wacnn, model)))
    assert torch.corrcoef(torch.stack((before.y.flatten(), after.y.flatten())))[0, 1] > 0.99
    assert float((before.x_hat - after.x_hat).square().mean().sqrt()) < 0.1 * float(before.x_hat.std())
    bits = {name: sum(float(b.sum()) for b in w.bits().values()) for name, w in (("before", before), ("after", after))}
    assert bits["after"] < 4 * bits["before"]
    finer = wacnn.build(16, 16, 8, 2, 8)
    begin_from(wacnn, finer, 4 * 0.0067, plain, copy.deepcopy(old), 0.0067, crops)
    with torch.no_grad():
        assert float(finer.g_a(crops).std() / model.g_a(crops).std()) == pytest.approx(2, rel=0.1)
    with pytest.raises(ValueError, match="the same N and M"):
        begin_from(wacnn, wacnn.build(8, 16, 8, 2, 8), 0.0067, plain, old, 0.0067, crops)


def test_transforms_that_do_not_match_and_wider_codecs_are_refused(crops):
    with pytest.raises(ValueError, match="no layer in common"):
        start("cheng2020-anchor", (12, 12), "mbt2018", crops)
    with pytest.raises(ValueError, match="20 latents cannot begin from"):
        start("mbt2018", (12, 20), "mbt2018", crops)


def test_the_random_start_keeps_the_variance(crops):
    torch.manual_seed(0)
    model = ARCHITECTURES["bmshj2018-hyperprior"].build(12, 16)
    random_initialise("bmshj2018-hyperprior", model, crops, 0.0067)
    with torch.no_grad():
        w = walk(ARCHITECTURES["bmshj2018-hyperprior"](model), crops, round_true)
    assert float(w.y.std()) == pytest.approx(8 * (0.0067 / 0.013) ** 0.5, rel=0.05)
    assert float(w.x_hat.mean()) == pytest.approx(float(crops.mean()), abs=0.3)
    with pytest.raises(ValueError, match="random start"):
        random_initialise("cheng2020-anchor", untrained("cheng2020-anchor").model, crops, 0.0067)
