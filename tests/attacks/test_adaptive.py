import pytest
import torch
import torch.nn.functional as F

from nic_helpers import attacks, defences, load_codec, metrics
from nic_helpers.codecs.base import Around
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Rate

EPS = 8 / 255


class Rolled(Around):
    """A randomised codec: it shifts the image by a drawn distance before coding, and back after."""

    random = True

    def __init__(self, codec, draw=0):
        super().__init__(codec)
        self.draw = draw

    def redrawn(self, k):
        return Rolled(self.codec, k)

    def __call__(self, x, surrogate="ste", rate=True):
        distance = 3 * self.draw + 1
        out = self.codec(x.roll(distance, 3), surrogate, rate)
        out.x_hat = out.x_hat.roll(-distance, 3)
        return out


class Blurred(Around):
    """A defence written as a wrapper: a blur before coding. It counts how many images it has seen, with a gradient and without."""

    def __init__(self, codec):
        super().__init__(codec)
        self.seen = {True: 0, False: 0}

    def __call__(self, x, surrogate="ste", rate=True):
        self.seen[x.requires_grad] += 1
        return self.codec(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), surrogate, rate)


class BlurredThrough(attacks.BPDA):
    """The same around BPDA's own forward pass."""

    def __init__(self, codec):
        super().__init__(codec)
        self.seen = {True: 0, False: 0}

    __call__ = Blurred.__call__


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
    for codec in (hyperprior, load_codec("jpeg"), attacks.BPDA(hyperprior), defences.BitDepth()(hyperprior)):
        with pytest.raises(TypeError, match="nothing at random"):
            attacks.eot(codec)
    for random in (attacks.BPDA, defences.BitDepth(), Blurred):  # the draws of what is inside come through
        assert len({d.codec.draw for d in attacks.eot(random(Rolled(hyperprior)), 3)}) == 3
    with pytest.raises(ValueError, match="draws"):
        attacks.eot(Rolled(hyperprior), 0)


ATTACKS = [
    attacks.PGD(EPS, steps=3),
    attacks.APGD(EPS, steps=3),
    attacks.SRDA(EPS / 2, steps=3),
    attacks.Continuation(EPS, steps=4),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("wrapper", [Blurred, BlurredThrough])
def test_an_attack_on_a_wrapper_calls_the_wrapper_in_every_gradient(wrapper, attack, precision, hyperprior, x):
    codec = wrapper(hyperprior)
    result = attack.with_(precision=precision, surrogate="ste")(codec, x[:1])
    assert codec.seen[True] == result.gradients > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_quick_codec_of_a_wrapper_wraps_the_quick_codec(precision, hyperprior, cheng):
    for wrap in (
        Blurred,
        attacks.BPDA,
        BlurredThrough,
        defences.Flip(),
        lambda c: defences.BitDepth()(attacks.BPDA(c)),
    ):
        codec = wrap(hyperprior)
        quick, inner = codec.quick(precision), hyperprior.quick(precision)
        assert type(quick) is type(codec) and repr(quick) == repr(codec) and inner is not hyperprior
        while type(quick) is not type(inner):
            quick = quick.codec
        assert quick is inner
    assert Blurred(cheng).quick("float32").codec is cheng


def test_what_an_attack_finds_is_of_the_wrapper_and_not_of_the_naked_codec(hyperprior, x):
    wrapped, attack = Blurred(hyperprior), attacks.PGD(EPS, steps=4)
    assert not torch.equal(attack(wrapped, x).x_adv, attack(hyperprior, x).x_adv)
    torch.testing.assert_close(attack(wrapped, x).objective, Distortion().bind(wrapped, to_8bit(x), None)(attack(wrapped, x).x_adv))
