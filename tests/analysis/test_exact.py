"""What an attack can do to a linear codec is known: attacks stay below it, and come near."""

import itertools

import pytest
import torch

from nic_helpers import analysis, attacks, load_images
from nic_helpers.analysis.exact import _knapsack
from nic_helpers.codecs.linear import LinearCodec


@pytest.fixture(scope="module")
def images():
    return load_images("bundled")


def moved(codec, x, x_adv):
    """The root mean square between the outputs [B]."""
    return (codec.reconstruct(x_adv) - codec.reconstruct(x)).square().mean((1, 2, 3)).sqrt()


def test_the_knapsack_is_the_best_of_all_choices_but_for_one_coefficient_s_worth():
    near = torch.tensor([0.02, 0.11, 0.13, 0.3, 0.31, 0.45], dtype=torch.float64)
    for budget in (0.001, 0.02, 0.1, 0.7, 2.0):
        best = 0.0
        for steps in itertools.product(range(4), repeat=len(near)):
            k = torch.tensor(steps, dtype=torch.float64)
            cost = torch.where(k > 0, (near + k - 1).square(), 0.0).sum()
            best = max(best, float(k.square().sum())) if cost <= budget else best
        bound = _knapsack(near, budget)
        assert best <= bound * (1 + 1e-9) and bound <= best + 2 * budget + 5, (
            budget
        )  # and near it, where there is more to choose from


def test_a_fine_step_passes_what_it_keeps_and_attacks_find_that(images, x):
    codec, eps = LinearCodec(images, step=1, keep=24), 8 / 255
    bound = analysis.worst_case(codec, x, eps)
    # the simple bound: the change itself, and less than a step of rounding for each coefficient
    assert bool((bound >= eps).all()) and bool((bound <= eps + (24 / 192) ** 0.5 / 255 + 1e-9).all())
    for attack in (attacks.PGD(eps, steps=10, norm="l2rms"), attacks.APGD(eps, steps=10, norm="l2rms")):
        found = attack(codec, x)
        ratio = moved(codec, x, found.x_adv) / bound
        assert bool((ratio > 0.94).all()) and bool((ratio <= 1 + 1e-6).all()), attack
    noise = attacks.RandomNoise(eps, norm="l2rms", kind="sign")(codec, x)  # of which the kept share is 24 of 192 in square
    assert bool(((moved(codec, x, noise.x_adv) / eps - (24 / 192) ** 0.5).abs() < 0.03).all())


@pytest.mark.parametrize("keep", [24, 192])
@pytest.mark.parametrize("step", [8, 32])
def test_no_attack_does_more_than_the_worst_case_and_rounding_alone_amplifies(images, x, step, keep):
    codec, eps = LinearCodec(images, step, keep), 4 / 255
    bound = analysis.worst_case(codec, x, eps)
    found = attacks.PGD(eps, steps=10, norm="l2rms")(codec, x)
    ratio = moved(codec, x, found.x_adv) / bound
    assert bool((ratio <= 1).all()) and bool((ratio > 0.5).all())
    assert bool((moved(codec, x, found.x_adv) > 1.1 * eps).all())


def test_every_layer_of_a_linear_codec_passes_a_change_as_it_is(images, x):
    codec = LinearCodec(images, step=1, keep=24)
    x_adv = attacks.PGD(8 / 255, steps=10, norm="l2rms")(codec, x).x_adv
    table = analysis.ldmr(codec, x, x_adv)
    assert list(table["layer"].unique()) == ["g_a.0", "quantiser", "g_s.0"]
    assert table["ldmr"].between(0.97, 1.03).all() and table["cdmr"].between(0.97, 1.03).all()
    unrelated = analysis.ldmr(codec, x[:2], x[1:])
    assert unrelated["ldmr"].between(0.95, 1.05).all()


def test_what_the_worst_case_cannot_be_said_of_is_refused(images, hyperprior, x):
    codec = LinearCodec(images)
    with pytest.raises(TypeError, match="not linear"):
        analysis.worst_case(hyperprior, x, 8 / 255)
    with pytest.raises(ValueError, match="multiples of 8"):
        analysis.worst_case(codec, x[..., :41, :64], 8 / 255)
    with pytest.raises(ValueError, match="eps"):
        analysis.worst_case(codec, x, 8)
