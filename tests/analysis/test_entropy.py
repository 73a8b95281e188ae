"""Interventions on entropy models."""

import pytest
import torch
from conftest import KINDS_OF_CODECS, untrained

from nic_helpers import analysis, attacks, load_codec
from nic_helpers.analysis.entropy import counterpart_of
from nic_helpers.objectives import Rate


@pytest.mark.parametrize("name", list(KINDS_OF_CODECS))
def test_the_clean_image_and_its_own_branches_change_nothing(name, x):
    table = analysis.eci(untrained(name), x[:2], x[:2])
    values = table[["mean", "scale", "r_z", "r_y", "r"]]
    assert values.dropna(axis=1).abs().lt(1e-6).all(axis=None) and len(table) >= 4
    with_context = (
        "mbt2018",
        "cheng2020-anchor",
        "cheng2020-attn",
        "channel-wise",
        "cai2022",
        "zou2022-wacnn",
        "zou2022-stf",
        "liu2023",
    )
    assert table["branch"].nunique() == (2 if name == "bmshj2018-factorized" else 5 if name in with_context else 3)


def test_on_a_mean_scale_codec_the_hyperprior_carries_the_attack_on_the_rate():
    codec = load_codec("mbt2018-mean", 6, device="cpu")
    from nic_helpers import load_images

    x = torch.stack([image[:, :128, :128] for image in load_images("bundled")[:2]])
    x_adv = attacks.PGD(8 / 255, steps=10)(codec, x, Rate()).x_adv
    grew = analysis.eci(codec, x, x_adv).groupby("branch")["r"].mean()
    assert grew["none"] > 1 and grew["hyperprior"] < 0.5 * grew["none"] < grew["samples"]
    assert set(analysis.eci(codec, x, x_adv, "recompressed")["counterpart"]) == {"recompressed"}


def test_the_noise_counterpart_has_the_attack_s_size(hyperprior, x):
    x_adv = (x + 5 / 255 * torch.sign(torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))).clamp(0, 1)
    noisy = counterpart_of(hyperprior, x, x_adv, "noise")
    assert float((noisy - x).square().mean().sqrt()) == pytest.approx(float((x_adv - x).square().mean().sqrt()), rel=0.05)


def test_what_cannot_be_looked_into_is_refused(hyperprior, x):
    with pytest.raises(ValueError, match="counterpart must be one of clean, noise, recompressed"):
        analysis.eci(hyperprior, x, x, "other")
    for call in (analysis.eci, analysis.ldmr, analysis.rate_change):
        with pytest.raises(TypeError, match="give a learned codec"):
            call(load_codec("jpeg", 50), x, x)
