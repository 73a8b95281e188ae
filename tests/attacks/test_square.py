import pytest
import torch

from nic_helpers import attacks, load_codec
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Rate

EPS = 8 / 255


def test_it_improves_with_queries_and_asks_for_no_gradient(hyperprior, x):
    few, many = (attacks.Square(EPS, queries=n)(hyperprior, x) for n in (1, 60))
    assert (many.objective > few.objective).all() and many.gradients == 0
    assert many.linf.max() <= EPS + 1e-6 and torch.equal(many.x_adv, to_8bit(many.x_adv))
    value = Distortion().bind(hyperprior, to_8bit(x), None)
    torch.testing.assert_close(many.objective, value(many.x_adv), rtol=0.02, atol=0)


def test_it_attacks_classical_codecs_on_quality_and_on_rate(x):
    jpeg = load_codec("jpeg", 50)
    for objective in (Distortion(), Rate()):
        few, many = (attacks.Square(EPS, queries=n)(jpeg, x[:1], objective) for n in (1, 40))
        assert many.objective > few.objective


def test_an_image_is_attacked_alike_alone_and_in_a_batch(hyperprior, x):
    attack = attacks.Square(EPS, queries=10)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(attack(hyperprior, x).x_adv[2:], attack(hyperprior, x[2:]).x_adv)


def test_the_squares_shrink_on_the_paper_s_schedule():
    attack = attacks.Square(EPS, queries=10_000)
    sides = [attack.side(q, 64, 64) for q in (1, 10, 50, 200, 9999)]
    assert sides == [57, 40, 29, 20, 3]
    assert attack.side(1, 16, 400) == 16


def test_bad_settings():
    with pytest.raises(ValueError, match="queries"):
        attacks.Square(EPS, queries=0)
    with pytest.raises(ValueError, match="share"):
        attacks.Square(EPS, share=0)
    with pytest.raises(ValueError, match="L∞"):
        attacks.Square(EPS, norm="l2rms")
