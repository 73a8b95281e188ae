"""Adversarial training: what its samples are, and that a run takes its steps on them."""

import copy
import dataclasses
import json

import pytest
import torch
from conftest import untrained
from test_training import SMALL, final, folder, interrupt_at  # noqa: F401

from nic_helpers.codecs.checkpoints import read_weights
from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.quantisers import round_true
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundled_path
from nic_helpers.training import adversarial
from nic_helpers.training.losses import train_step
from nic_helpers.training.run import train
from nic_helpers.training.settings import Settings

KIND = ARCHITECTURES["bmshj2018-hyperprior"]
EPS = 16 / 255


def settings(against, **more):
    return dataclasses.replace(SMALL, against=against, attack_steps=4, eps=EPS, **more)


@pytest.fixture(scope="module")
def model():
    """The bundled hyperprior at quality 6."""
    from nic_helpers import load_codec

    return load_codec("bmshj2018-hyperprior", 6, device="cpu").model


def raised(against, model, x_adv, x):
    """What samples are to raise, over all images: bits per pixel, or the MSE to themselves, or to the clean reconstruction."""
    w = walk(KIND(model), x_adv, round_true)
    if against == "rate":
        return sum(b.sum() for b in w.bits().values()) / x[:, 0].numel()
    target = x_adv if against == "distortion" else walk(KIND(model), x, round_true).x_hat.clamp(0, 1)
    return (w.x_hat.clamp(0, 1) - target).square().mean()


@pytest.mark.parametrize("against", ["rate", "distortion", "ftda"])
def test_samples_raise_what_they_are_against_more_than_noise_within_their_budget(against, model, x):
    lmbda, x = 0.0483, torch.round(x * 255) / 255
    torch.manual_seed(0)
    found = adversarial.samples(settings(against), KIND, model, x, lmbda)
    torch.manual_seed(0)
    budget = (EPS * torch.rand(len(x), 1, 1, 1)).flatten()
    delta = (found - x).flatten(1)
    half_a_level = 0.5 / 255 + 1e-6
    inside = (delta.abs().amax(1) <= budget + half_a_level) | (delta.square().mean(1).sqrt() <= budget + half_a_level)
    assert inside.all() and torch.equal(found, torch.round(found * 255) / 255)
    noise = (x + delta.square().mean(1).sqrt()[:, None, None, None] * torch.randn_like(x)).clamp(0, 1)
    assert raised(against, model, found, x) > raised(against, model, noise, x)


def test_half_of_a_batch_stays_clean(model, x):
    torch.manual_seed(0)
    batch = adversarial.with_samples(settings("joint"), KIND, model, x, 0.0483)
    kept = len(x) // 2
    assert torch.equal(batch[:kept], x[:kept]) and bool((batch[kept:] != x[kept:]).flatten(1).any(1).all())


def test_the_gradient_s_penalty_is_the_error_sent_back_through_the_codec(x):
    model = copy.deepcopy(untrained("bmshj2018-hyperprior").model).requires_grad_(True)  # which other tests share
    x = x.detach()
    found = adversarial.gradient_penalty(KIND, model, x, 0.0067)
    v = x.clone().requires_grad_(True)
    w = walk(KIND(model), v, lambda u, offset=0.0: u + (torch.round(u - offset) + offset - u).detach(), rate=False)
    error = w.x_hat - v
    (back,) = torch.autograd.grad(error, v, error.detach())
    expected = 0.0067 * 255**2 * back.square().mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    found.backward()
    assert model.g_a[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("against", ["distortion", "gradient"])
def test_a_step_s_loss_is_above_that_of_the_clean_batch(against, model, x):
    model = copy.deepcopy(model).train().requires_grad_(True)
    losses = []
    for s in (SMALL, settings(against)):
        torch.manual_seed(1)
        losses.append(train_step(s, KIND, model, x, 0.0483)[0])
    assert losses[0].isfinite() and losses[1] > losses[0]
    losses[1].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_it_begins_from_bundled_weights_says_so_and_resumes_exactly(folder, tmp_path):  # noqa: F811
    arch, quality = "bmshj2018-hyperprior", 1
    widths = tuple(map(int, read_weights(bundled_path(arch, quality)).card["widths"].split()))
    s = Settings(arch, quality, widths, 4, batch=2, crop=64, start="bundled", against="joint", attack_steps=1)
    whole = final(train(s, folder, tmp_path / "a", every=2))
    with pytest.raises(KeyboardInterrupt):
        train(s, folder, tmp_path / "b", every=2, on_step=interrupt_at(3))
    resumed = final(train(s, folder, tmp_path / "b", every=2))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    stages = json.loads(read_weights(tmp_path / "a" / "weights.safetensors").card["stages"])
    earlier = json.loads(read_weights(bundled_path(arch, quality)).card["stages"])
    assert stages[:-1] == earlier and stages[-1]["start"] == "bundled" and stages[-1]["against"] == "joint"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": "entropy"}, "never sees"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"attack_steps": 0}, "attack_steps at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, against="rate", **changes)
