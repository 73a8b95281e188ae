"""Side information that says nothing is woken, and no other."""

import numpy as np
import pytest
import torch
from PIL import Image

from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.data import Crops, Latents
from nic_helpers.training.entropy_start import asleep, awaken
from nic_helpers.training.export import read_run
from nic_helpers.training.run import train
from nic_helpers.training.settings import Settings

CAI = ARCHITECTURES["cai2022"]


@pytest.fixture
def cai():
    torch.manual_seed(0)
    return CAI.build(6, 16, 4, 1)


@pytest.fixture
def latents():
    return 5 * torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def test_z_that_is_always_zero_gets_a_spread_that_the_synthesis_hardly_hears(cai, latents):
    with torch.no_grad():
        cai.h_a[0].weight.mul_(1e-3)
        cai.entropy_bottleneck.matrices[0].fill_(9.0)
        before = cai.h_s(torch.zeros(4, 6, 2, 2))
    assert asleep(CAI(cai), latents) and awaken(CAI, cai, latents) and not asleep(CAI(cai), latents)
    z = CAI(cai).hyper(latents)
    assert abs(float(z.std()) - 2) < 0.1 and float(cai.entropy_bottleneck.matrices[0].max()) < 9
    with torch.no_grad():
        after = cai.h_s(torch.round(z))
    assert torch.equal(cai.h_s(torch.zeros(4, 6, 2, 2)), before)  # what it said of nothing
    assert float((after - before).abs().mean()) < 0.3 * float(before.abs().mean())


def test_z_that_varies_is_left_as_it_is(cai, latents):
    awaken(CAI, cai, latents)
    state = {k: v.clone() for k, v in cai.state_dict().items()}
    assert not awaken(CAI, cai, latents)
    assert all(torch.equal(v, state[k]) for k, v in cai.state_dict().items())
    plain = ARCHITECTURES["bmshj2018-factorized"]
    assert not awaken(plain, plain.build(8, 16), latents)  # it has none


def test_the_latents_of_a_variable_rate_run_are_of_all_its_qualities(cai, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    s = Settings("cai2022", 3, (6, 16, 4, 1), 4, batch=2, crop=64, bf16=False, optimiser="muon", only="entropy")
    crops = Crops(tmp_path)
    with torch.no_grad():
        for p in cai.g_a.parameters():
            p.add_(0.02 * torch.randn_like(p))  # so that a level matters
        parts = Latents(s, cai, crops, torch.device("cpu"), count=24)._latents.split(8)
        for k, part in enumerate(parts):
            x = crops.batch(8, 64, 0, 2**30 + k)
            right, other = (CAI(cai, q).analysis(x) for q in (k + 1, k + 2))
            assert torch.equal(part, right) and not torch.allclose(part, other, atol=1e-3)
    assert len(parts) == 3
    with pytest.raises(ValueError, match="only='entropy' is for codecs whose entropy model has no part in the quality"):
        Settings("song2021", 6, (12, 16), 4, only="entropy")


def test_a_run_that_ends_with_such_a_z_says_so(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(images / "a.png")
    arch = ARCHITECTURES["bmshj2018-hyperprior"]
    start = train(
        Settings("bmshj2018-hyperprior", 3, (8, 12), 1, batch=1, crop=64, bf16=False, start="random"), images, tmp_path / "a"
    )
    state = torch.load(start, weights_only=True)
    state["model"]["h_a.4.weight"].mul_(1e-4)
    torch.save(state, start)
    s = Settings("bmshj2018-hyperprior", 3, (8, 12), 1, batch=1, crop=64, bf16=False, start=str(start), lr=1e-9)
    with pytest.warns(UserWarning, match="all of z rounds to about the same value"):
        train(s, images, tmp_path / "b")
    _, model, _ = read_run(tmp_path / "b" / "state.pt")
    assert asleep(arch(model, 3), torch.randn(2, 12, 4, 4))
