import pytest
import torch

from nic_helpers import attacks, load_codec, metrics
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Rate

EPS = 8 / 255


class Rolled:
    """A randomised codec: it shifts the image by a drawn distance before coding, and back after."""

    differentiable = True

    def __init__(self, codec, draw=0):
        self.codec, self.draw, self.lmbda, self.name = codec, draw, codec.lmbda, "rolled"

    def redrawn(self, k):
        return Rolled(self.codec, k)

    def __call__(self, x, surrogate="ste", rate=True):
        distance = 3 * self.draw + 1
        out = self.codec(x.roll(distance, 3), surrogate, rate)
        out.x_hat = out.x_hat.roll(-distance, 3)
        return out

    def reconstruct(self, x):
        return self(x, None, rate=False).x_hat


def test_bpda_gives_a_classical_codec_a_gradient_that_beats_noise(x):
    jpeg = load_codec("jpeg", 50)
    damage = [
        metrics.psnr(jpeg.reconstruct(x), jpeg.reconstruct(attack(codec, x).x_adv)).mean()
        for attack, codec in (
            (attacks.PGD(EPS, steps=20), attacks.BPDA(jpeg)),
            (attacks.RandomNoise(EPS, kind="sign"), jpeg),
        )
    ]
    assert damage[0] < damage[1] - 1


def test_bpda_s_output_is_the_codec_s_own(x):
    through = attacks.BPDA(load_codec("jpeg", 50))
    out = through(x)
    assert torch.equal(out.x_hat, through.reconstruct(x)) and through.name == "jpeg"
    assert out.bpp.tolist() == pytest.approx([8 * len(s) / 64**2 for s in through.encode(x)])
    v = x.clone().requires_grad_(True)
    assert torch.autograd.grad(through(v, rate=False).x_hat.sum(), v)[0].eq(1).all()
    with pytest.raises(ValueError, match="no gradient"):
        attacks.FGSM(EPS)(through, x, Rate())
    assert attacks.FGSM(EPS, surrogate=None)(through, x).linf.max() == 0


def test_an_attack_over_the_draws_holds_for_draws_it_has_not_seen(hyperprior, x):
    rolled = Rolled(hyperprior)
    fresh = [rolled.redrawn(k) for k in range(20, 24)]

    def mean_damage(x_adv):
        return torch.stack([Distortion().bind(c, to_8bit(x), None)(x_adv) for c in fresh]).mean()

    averaged = attacks.PGD(EPS, steps=6)(attacks.eot(rolled, 6), x).x_adv
    one_draw = attacks.PGD(EPS, steps=6)(rolled, x).x_adv
    noise = attacks.RandomNoise(EPS, kind="sign")(hyperprior, x).x_adv
    assert mean_damage(averaged) > mean_damage(one_draw) > mean_damage(noise)


def test_what_eot_is_for(hyperprior):
    with pytest.raises(TypeError, match="nothing at random"):
        attacks.eot(hyperprior)
    with pytest.raises(ValueError, match="draws"):
        attacks.eot(Rolled(hyperprior), 0)
