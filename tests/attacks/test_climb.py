"""What a problem does for its attacks: values, gradients, counts, the best kept; images rendered from parameters; objectives
that share a target."""

import pytest
import torch

from nic_helpers import attacks
from nic_helpers.attacks.loop import ascend
from nic_helpers.budgets import L2rms, Linf
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Bound, Descending, Distortion, Joint, Rate, bound

EPS = 8 / 255


def brightness(x_adv, rows=slice(None)):
    """An objective that can be followed by hand."""
    return x_adv.mean((1, 2, 3))


def grey(images=2, level=128):
    return torch.full((images, 3, 16, 16), level / 255)


def problem(x=None, budget=None, judge=brightness, **settings):
    return attacks.Problem(grey() if x is None else x, budget or Linf(EPS), brightness, judge, False, **settings)


def test_a_climb_gives_value_and_gradient_counts_and_keeps():
    p = problem()
    values, gradient = p.climb(p.x + 2 / 255)
    torch.testing.assert_close(values, brightness(p.x + 2 / 255))
    torch.testing.assert_close(gradient, torch.full_like(p.x, 1 / p.x[0].numel()))
    p.climb(p.x - 2 / 255)  # worse: counted, in the trace, not kept
    assert p.state.gradients == len(p.climbed) == len(p.state.trace) == 2 and not p.judgements
    torch.testing.assert_close(p.state.best, p.x + 2 / 255)
    torch.testing.assert_close(p.state.best_value, values)


def test_each_image_keeps_its_own_best():
    p, up = problem(), torch.tensor([2 / 255, -2 / 255])[:, None, None, None]
    p.climb(p.x + up)
    p.climb(p.x - up)
    torch.testing.assert_close(p.state.best, p.x + 2 / 255)


def test_what_is_only_looked_at_is_counted_and_not_kept():
    p = problem()
    p.look(p.x + 2 / 255)
    p.climb(p.x + 1 / 255, keep=False)
    assert p.state.gradients == 2 and p.state.best_value.isneginf().all() and torch.equal(p.state.best, p.x)
    assert len(p.state.trace) == 1 and p.state.trace[0].isnan().all()


def test_where_another_judges_it_is_asked_every_few_steps_and_counted():
    p = problem(judge=lambda v, rows=slice(None): -brightness(v), judge_every=2)
    values = [p.climb(p.x, step)[0] for step in range(4)]
    assert [bool(v.isfinite().all()) for v in values] == [True, False, True, False] and len(p.judgements) == 2
    assert (values[0] < 0).all() and all((c > 0).all() for c in p.climbed)  # what is climbed is not what judges
    assert p.offer(p.x - 1 / 255) is p.state and len(p.judgements) == 3 and p.state.gradients == 4
    torch.testing.assert_close(p.state.best, p.x - 1 / 255)


def test_a_start_stays_where_nothing_is_judged_better_and_only_the_first_one():
    p = problem(judge=lambda v, rows=slice(None): torch.full((len(v),), torch.nan))
    p.begin(p.x + 1 / 255)
    p.offer(p.x + 2 / 255)
    p.begin(p.x + 3 / 255)
    assert torch.equal(p.state.best, p.x + 1 / 255)


def test_a_wider_budget_has_its_own_best_and_counts_here_too():
    p = problem()
    wide = p.within(2 * EPS)
    wide.climb(p.x + 2 * EPS)
    assert p.state.best_value.isneginf().all() and wide.state.best_value.isfinite().all()
    p.offer(p.x)  # also where the last gradient was taken there
    assert p.state.gradients == 1
    p.climb(p.x)
    assert p.state.gradients == 2


@pytest.mark.parametrize("budget", [Linf(EPS), L2rms(EPS)], ids=lambda b: type(b).__name__)
def test_the_gradient_for_parameters_is_autograd_s_and_the_image_stays_inside(budget):
    p = problem(budget=budget)

    def render(theta):  # a grey level for each image
        return p.x + theta.pow(2)

    theta = torch.tensor([0.01, 0.02])[:, None, None, None]
    values, slope = p.climb(theta, render=render)
    assert slope.shape == theta.shape and not slope.requires_grad
    torch.testing.assert_close(slope, 2 * theta)
    torch.testing.assert_close(values, brightness(to_8bit(p.rendered(render, theta))), atol=1e-6, rtol=0)
    torch.testing.assert_close(p.state.best, p.rendered(render, theta))
    far = 10 * theta  # outside: the image is projected, parameters still have a gradient
    _, slope = p.climb(far, render=render)
    assert (budget.size(p.state.best - p.x) <= EPS * 1.0001).all()
    torch.testing.assert_close(slope, 2 * far)
    p.offer(far, render)
    torch.testing.assert_close(p.look(theta, render=render)[1], 2 * theta)
    assert p.state.gradients == 3 and len(p.state.trace) == 3


def test_rendered_as_it_is_an_image_climbs_as_pixels_do(hyperprior, x):
    value = Distortion("source").bind(hyperprior, to_8bit(x), "ste")
    pixels, parameters = (attacks.Problem(to_8bit(x), Linf(EPS), value, value, False) for _ in range(2))
    for p, settings in ((pixels, {}), (parameters, {"render": lambda theta: theta})):
        x_adv = p.x
        for step in range(3):
            _, gradient = p.climb(x_adv, step, **settings)
            x_adv = p.budget.project(x_adv + 2 / 255 * gradient.sign(), p.x)
        p.offer(x_adv, **settings)
    assert torch.equal(pixels.state.best, parameters.state.best)
    assert torch.equal(pixels.state.best_value, parameters.state.best_value)


def test_parameters_climb_in_the_shared_loop():
    p = problem(grey(1))
    state = ascend(p, torch.zeros(1, 1, 1, 1), [4 / 255] * 3, render=lambda theta: p.x + theta)
    torch.testing.assert_close(state.best, p.x + EPS)
    assert state.gradients == 3


class ByHand(attacks.IFGSM):
    """Its steps written out, with a state of its own."""

    def _run(self, p):
        x_adv, state = p.x, attacks.Ascent.begin(p.x)
        for step, size in enumerate(self.step_sizes):
            values, gradient = p.value_and_gradient(x_adv, step or 1)
            state.gradients += 1
            state.keep(x_adv, values)
            x_adv = p.budget.project(torch.add(x_adv, p.budget.steepest(gradient), alpha=size), p.x)
        state.keep(x_adv, p.judged(x_adv))
        return state


def test_an_attack_may_keep_a_state_of_its_own(hyperprior, x):
    own, shared = (kind(EPS, steps=3)(hyperprior, x, Rate()) for kind in (ByHand, attacks.IFGSM))
    assert torch.equal(own.x_adv, shared.x_adv) and torch.equal(own.objective, shared.objective)
    assert own.gradients == shared.gradients == 9 and torch.equal(own.surrogate_trace, shared.surrogate_trace)


# ------------------------------------------------------------------------------------------ objectives and targets
@pytest.mark.parametrize("wrap", [lambda o: o, Descending], ids=["itself", "descending"])
def test_a_distortion_keeps_its_target_elsewhere(wrap, hyperprior, cheng, x):
    here = wrap(Distortion()).bind(hyperprior, to_8bit(x), None)
    there = here.at(cheng, "ste")
    expected = (cheng(to_8bit(x), "ste", rate=False).x_hat - hyperprior.reconstruct(to_8bit(x))).pow(2).mean((1, 2, 3))
    torch.testing.assert_close(there(to_8bit(x)), expected, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(there(to_8bit(x)[1:2], slice(1, 2)), expected[1:2], rtol=1e-3, atol=1e-9)
    assert there.codec is cheng and there.surrogate == "ste"


def test_on_other_sources_the_target_is_theirs(hyperprior, x):
    value = Distortion().bind(hyperprior, to_8bit(x[:1]), None).on(to_8bit(x[1:2]))
    assert value(to_8bit(x[1:2])) < 1e-9 < value(to_8bit(x[:1]))


@pytest.mark.parametrize("objective", [Rate(), Joint.at(45.0), Distortion("own")], ids=str)
def test_others_are_bound_anew(objective, hyperprior, cheng, x):
    value = objective.bind(hyperprior, to_8bit(x), None).at(cheng, None)
    assert torch.equal(value(to_8bit(x)), objective.bind(cheng, to_8bit(x), None)(to_8bit(x)))


class Halfway(Distortion):
    """A distortion to another image, given as one's own ``bind``."""

    def bind(self, codec, x, surrogate):
        return super().bind(codec, x, surrogate, target=x / 2)


def test_a_distortion_of_one_s_own_keeps_its_target_too(hyperprior, cheng, x):
    there = Halfway().bind(hyperprior, to_8bit(x), None).at(cheng, None)
    assert torch.equal(there.target, to_8bit(x) / 2)
    result = attacks.PGD(EPS, steps=2)(hyperprior, x, Halfway())
    truth = Halfway().bind(hyperprior, to_8bit(x), None)(result.x_adv)
    torch.testing.assert_close(result.objective, truth, rtol=1e-5, atol=0)


class Plain:
    """An objective as a user writes it: a function is all that it gives."""

    surrogate, flat_at_source = "identity", False

    def bind(self, codec, x, surrogate):
        value = lambda x_adv, rows=slice(None): codec(x_adv, surrogate, rate=False).x_hat[:, 0].mean((1, 2))  # noqa: E731
        value.target = x  # of its own, and no business of the attack's
        return value


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_plain_function_will_do(precision, hyperprior, cheng, x):
    value = bound(Plain(), hyperprior, to_8bit(x), None)
    assert isinstance(value, Bound) and torch.equal(value(x), Plain().bind(hyperprior, x, None)(x))
    assert torch.equal(value.at(cheng, None)(x), Plain().bind(cheng, x, None)(x))
    for attack in (attacks.PGD(EPS, steps=2, precision=precision), attacks.DIFGSM(EPS, steps=2, probability=1.0)):
        assert (attack(hyperprior, x, Plain()).objective > value(to_8bit(x))).all()
