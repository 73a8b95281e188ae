"""Every bundled codec: its bytes decode, and every attack runs on it and does what it says."""

import pytest
import torch

from nic_helpers import attacks, load_codec
from nic_helpers.budgets import rms_at
from nic_helpers.codecs.weights import manifest
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Rate

BUNDLED = [(v["arch"], q) for v in manifest().values() for q in v["qualities"]]
ONE_OF_EACH = sorted(dict(BUNDLED).items())  # the finest: the one whose rounding is easiest to miss
EPS, RMS = 8 / 255, rms_at(34.0)
ATTACKS = [
    attacks.FGSM(EPS, restarts=2),
    attacks.IFGSM(EPS, steps=2),
    attacks.PGD(EPS, steps=2),
    attacks.MIFGSM(EPS, steps=2),
    attacks.DIFGSM(EPS, steps=2),
    attacks.APGD(EPS, steps=2),
    attacks.SRDA(EPS, angle=45.0, steps=3),
    attacks.ARDA(EPS, angle=0.0, steps=3),
    attacks.FTDA(EPS, steps=2),
    attacks.MADC(RMS, steps=2),
    attacks.SSAH(RMS, steps=2),
    attacks.Chroma(RMS, steps=2),
    attacks.Square(EPS, queries=4),
    attacks.SpectralNoise(EPS, like=attacks.PGD(EPS, steps=2)),
]


@pytest.mark.parametrize("arch, quality", BUNDLED)
def test_its_bytes_decode_to_the_encoder_s_picture(arch, quality, x):
    codec = load_codec(arch, quality)
    coded = codec.roundtrip(x[:1])
    decoded = codec.decode(coded.streams)
    assert (decoded[0] - coded.x_hat[0]).abs().max() < 1e-4
    assert (decoded[0] - x[0]).pow(2).mean() < 0.01  # a picture of x: above 20 dB


@pytest.mark.parametrize("arch, quality", ONE_OF_EACH)
def test_every_attack_stays_in_its_budget(arch, quality, x):
    codec = load_codec(arch, quality)
    for attack in ATTACKS:
        target = [codec, codec] if isinstance(attack, attacks.ARDA) else codec
        result = attack(target, x[:1])
        assert torch.equal(result.x_adv, to_8bit(result.x_adv)), attack
        size = result.linf if attack.norm == "linf" else result.rms
        assert size <= attack.eps * (1 + 1e-6) + 1e-9 and result.objective.isfinite().all(), attack


@pytest.mark.parametrize("objective", [Distortion(), Rate()], ids=["distortion", "rate"])
@pytest.mark.parametrize("arch, quality", BUNDLED)
def test_pgd_does_more_than_noise_with_random_signs(arch, quality, objective, x):
    codec = load_codec(arch, quality)
    found = attacks.PGD(EPS, steps=5)(codec, x, objective).objective
    noise = attacks.RandomNoise(EPS, kind="sign")(codec, x, objective).objective
    assert found.mean() > noise.mean()
