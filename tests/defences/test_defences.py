import itertools
import random
from dataclasses import dataclass

import pytest
import torch

from nic_helpers import attacks, defences, load_codec, metrics
from nic_helpers.codecs.base import check_codec
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.defences.base import Defence, Defended
from nic_helpers.defences.preprocess import BitDepth
from nic_helpers.defences.reversible import Flip
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Rate

EPS = 8 / 255
STACKS = {
    "flip": Flip(),
    "bits": BitDepth(bits=5),
    "bits of flip": lambda c: BitDepth(bits=5)(Flip()(c)),
    "flip of flip": lambda c: Flip(seed=1)(Flip()(c)),
}


@dataclass(frozen=True)
class Quarter(Defence):
    """Turned by a quarter at random, which gives images that are not square another shape."""

    choices = 4
    seed: int = 0

    def before(self, x, k):
        return x.rot90(k, (2, 3))

    def after(self, x_hat, k):
        return x_hat.rot90(-k, (2, 3))


class Steps(Defence):
    """It does nothing but count its calls."""

    def __init__(self):
        self.calls = 0

    def before(self, x, k):
        self.calls += 1
        return x

    def after(self, x_hat, k):
        return x_hat


def stacked(name, codec):
    return STACKS[name](codec)


@pytest.fixture(params=["hyperprior", "jpeg"])
def inner(request):
    return request.getfixturevalue("hyperprior") if request.param == "hyperprior" else load_codec("jpeg", 50)


@pytest.mark.parametrize("name", STACKS)
def test_encode_decode_roundtrip_and_reconstruct_agree_alone_in_batches_and_in_lists(name, inner, x):
    codec = stacked(name, inner)
    check_codec(codec)
    coded = codec.roundtrip(x)
    assert codec.encode(x) == coded.streams and coded.x_hat.shape == x.shape
    sizes = [x[0], x[1, :, :17, :31], x[2]]
    for a, b in (
        (codec.decode(coded.streams), coded.x_hat),
        (codec.reconstruct(x), coded.x_hat),
        (torch.stack([codec.roundtrip(im[None]).x_hat[0] for im in x]), coded.x_hat),
        (codec.decode(codec.encode(sizes))[1], codec.reconstruct(sizes)[1]),
        (codec.roundtrip(sizes).x_hat[1], codec.reconstruct(sizes)[1]),
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert [codec.encode(im[None])[0][0] for im in x] == [s[0] for s in coded.streams]  # the same draws
    depth = name.count("of") + 1
    naked = inner.encode(x)
    if name == "flip":
        naked = inner.encode(torch.stack([Flip().before(im[None], s[0])[0] for im, s in zip(x, coded.streams, strict=True)]))
    if name == "bits":
        naked = inner.encode(BitDepth(bits=5).before(x, 0))
    if depth == 1:
        assert [s[3:] for s in coded.streams] == naked  # the choice and its check are all that is added, and are counted
    row = metrics.before_after(codec, x, x)
    assert list(row["bpp_clean"]) == [8 * len(s) / 64**2 for s in coded.streams]
    assert set(row["codec"]) == {inner.name} and set(row["lmbda"].isna()) == {inner.name == "jpeg"}


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (40, 90)])
def test_any_size_and_ways_that_change_the_shape(size, hyperprior):
    x = torch.rand(5, 3, *size, generator=torch.Generator().manual_seed(0))
    for how in (Flip(), Quarter()):
        codec = how(hyperprior)
        coded = codec.roundtrip(x)
        assert len({s[0] for s in coded.streams}) > 1
        torch.testing.assert_close(codec.decode(coded.streams), codec.reconstruct(x), atol=1e-5, rtol=0)
        out = codec(x, None)
        assert out.x_hat.shape == x.shape and out.pixels == size[0] * size[1]
        torch.testing.assert_close(out.bpp, codec.estimated_bpp(x, None), rtol=1e-4, atol=0)
        torch.testing.assert_close(out.x_hat, codec.reconstruct(x), atol=1e-4, rtol=0)


def test_the_receiver_needs_no_seed_and_the_sender_s_draws_differ(hyperprior, x):
    many = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ways = [Flip(seed=s)(hyperprior) for s in (0, 0, 1)] + [Flip()(hyperprior).redrawn(3), Flip()(Flip()(hyperprior))]
    drawn = [tuple(c.choice(im) for im in many) for c in ways]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 4 and all(set(d) == {0, 1, 2, 3} for d in drawn)
    nested = ways[-1]  # one in the other, they do not draw the same
    assert any(nested.choice(im) != nested.codec.choice(im) for im in many)
    torch.testing.assert_close(ways[0].decode(ways[3].encode(x)), ways[3].reconstruct(x), atol=1e-5, rtol=0)


def test_for_images_an_attacked_image_takes_its_source_s_way_and_the_image_its_own(hyperprior, x):
    noisy = [to_8bit((x + EPS * torch.randn(x.shape, generator=torch.Generator().manual_seed(s))).clamp(0, 1)) for s in range(9)]
    for how in (Flip(), lambda c: Flip()(BitDepth()(Quarter()(c))), lambda c: attacks.BPDA(Flip()(Quarter()(c)))):
        free = how(hyperprior)
        for codec in (
            free.for_images(x),
            free.redrawn(4).for_images(x),
            free.for_images(list(x)).redrawn(4),
            free.for_images(x).quick(),
        ):
            ways = [[s[0] for s in codec.encode(v)] for v in (x, *noisy)]
            assert all(w == ways[0] for w in ways)
        assert [s[0] for s in free.for_images(x).encode(x)] == [s[0] for s in free.encode(x)]
        assert len({tuple(s[0] for s in free.encode(v)) for v in noisy}) > 1  # left to itself it draws anew
    again = Flip()(hyperprior).for_images(x).for_images(noisy[0]).for_images(noisy[1])  # versions of versions
    assert [s[0] for s in again.encode(noisy[2])] == [s[0] for s in Flip()(hyperprior).encode(x)]
    small = x[:, :, :32, :32]  # none of the images has this size
    assert Flip()(hyperprior).for_images(x).encode(small) == Flip()(hyperprior).encode(small)


def test_all_draws_of_what_is_nested_are_redrawn(hyperprior):
    many = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    codec = Flip()(BitDepth()(Quarter()(hyperprior)))
    versions = attacks.eot(codec, 3)
    outer = [[v.choice(im) for im in many] for v in versions]
    deep = [[v.codec.codec.choice(im) for im in many] for v in versions]
    assert all(a != b for which in (outer, deep) for a, b in itertools.pairwise(which))
    assert len({d.codec.codec.choice(many[0]) for d in attacks.eot(BitDepth()(BitDepth()(Flip()(hyperprior))), 16)}) == 4


# ------------------------------------------------------------------------------------------------------- gradients
def test_a_step_without_gradient_passes_it_straight_through_alone_and_keeps_the_codec_s(hyperprior, x):
    codec = BitDepth(bits=3)(hyperprior)
    v = x.clone().requires_grad_(True)
    w = BitDepth(bits=3).before(x, 0).requires_grad_(True)
    ours = torch.autograd.grad(codec(v, "ste").x_hat.square().sum(), v)[0]
    codec_s = torch.autograd.grad(hyperprior(w, "ste").x_hat.square().sum(), w)[0]
    torch.testing.assert_close(ours, codec_s)
    assert ours.abs().max() > 0 and torch.equal(codec(v).x_hat, hyperprior(w).x_hat)
    rate = torch.autograd.grad(codec.estimated_bpp(v).sum(), v)[0]
    torch.testing.assert_close(rate, torch.autograd.grad(hyperprior.estimated_bpp(w).sum(), w)[0])


@pytest.mark.parametrize("objective", [Distortion(), Rate()], ids=str)
@pytest.mark.parametrize("name", STACKS)
def test_an_attack_through_the_defence_beats_noise_and_is_judged_on_the_defended_codec(name, objective, hyperprior, x):
    codec = stacked(name, hyperprior)
    result = attacks.PGD(EPS, steps=4, surrogate="identity")(codec, x, objective)
    noise = attacks.RandomNoise(EPS, kind="sign")(codec, x, objective)
    assert result.objective.mean() > noise.objective.mean()
    codec = codec.for_images(x)  # an attack knows the draws for its sources
    torch.testing.assert_close(result.objective, objective.bind(codec, to_8bit(x), None)(result.x_adv), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "attack",
    [attacks.PGD(EPS, steps=3), attacks.APGD(EPS, steps=3), attacks.SRDA(EPS / 2, steps=3), attacks.Continuation(EPS, steps=4)],
    ids=lambda a: type(a).__name__,
)
def test_an_attack_calls_the_defence_in_every_gradient(attack, precision, hyperprior, x):
    how = Steps()
    result = attack.with_(precision=precision)(Defended(Defended(hyperprior, Flip()), how), x[:1])
    assert how.calls > result.gradients > 0


def test_what_has_no_gradient_says_so_and_takes_bpda_on_either_side(x):
    jpeg, pgd = load_codec("jpeg", 30), attacks.PGD(EPS, steps=2)
    with pytest.raises(TypeError, match="BPDA"):
        pgd(Flip()(jpeg), x)
    for codec in (attacks.BPDA(Flip()(jpeg)), Flip()(attacks.BPDA(jpeg)), attacks.BPDA(BitDepth()(jpeg))):
        assert pgd(codec, x).objective.min() > 0

    class Half(Defence):
        differentiable = False

        def before(self, x, k):
            return x[..., ::2]

    with pytest.raises(TypeError, match="give it one"):
        Half()(load_codec("bmshj2018-hyperprior", 3, device="cpu"))(x)


def test_before_after_compares_like_with_like_unless_told_otherwise(hyperprior, x):
    many = x.repeat(4, 1, 1, 1)
    noisy = to_8bit((many + EPS * torch.randn(many.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1))
    codec = Flip()(hyperprior)
    same = metrics.before_after(codec, many, noisy)
    known = codec.for_images(many)
    anew = metrics.before_after(codec, many, noisy, coded=(codec.roundtrip(many), codec.roundtrip(noisy)))
    assert same.equals(metrics.before_after(codec, many, noisy, coded=(known.roundtrip(many), known.roundtrip(noisy))))
    assert same["psnr_recon"].mean() > anew["psnr_recon"].mean()


def test_an_attack_over_the_draws_is_an_attack(hyperprior, x):
    result = attacks.PGD(EPS, steps=2)(attacks.eot(Flip()(hyperprior).for_images(x[:1]), 3), x[:1])
    assert result.objective.min() > 0


# ---------------------------------------------------------------------------------------------------- bitstreams
def test_streams_of_another_defence_nesting_or_codec_are_refused(hyperprior, x):
    flip, bits = Flip(), BitDepth(bits=5)
    codecs = [
        hyperprior,
        flip(hyperprior),
        bits(hyperprior),
        bits(flip(hyperprior)),
        flip(bits(hyperprior)),
        flip(flip(hyperprior)),
        bits(bits(hyperprior)),
        BitDepth(bits=4)(hyperprior),
        Quarter()(hyperprior),
        Defended(hyperprior, Steps()),
    ]
    streams = [c.encode(x[:1]) for c in codecs]
    for i, codec in enumerate(codecs):
        codec.decode(streams[i])
        for j, stream in enumerate(streams):
            if i != j:
                with pytest.raises(BitstreamError):
                    codec.decode(stream)


def test_a_choice_out_of_range_and_damage_are_refused(inner, x, monkeypatch):
    codec = Flip()(BitDepth()(inner))
    stream = codec.encode(x[:1])[0]
    for k in (4, 255):
        with pytest.raises(BitstreamError, match=f"way {k} of Flip"):
            codec.decode([codec._pack(k, stream[3:])])
    monkeypatch.setattr(inner, "_decode", lambda *a: pytest.fail("the entropy decoder would have run"))
    rng = random.Random(0)
    for n in range(300):
        damaged = bytearray(stream)
        if n % 3 == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        elif n % 3 == 1:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        else:
            damaged[n % 6] ^= rng.randrange(1, 256)
        with pytest.raises(BitstreamError, match="Flip"):
            codec.decode([bytes(damaged)])
    with pytest.raises(TypeError, match="list of bitstreams"):
        codec.decode(stream)
    with pytest.raises(TypeError, match="bytes"):
        codec.decode([None])


def test_what_cannot_be_a_defence_is_refused(hyperprior):
    with pytest.raises(TypeError, match=r"derive its class from defences\.Defence"):
        Defended(hyperprior, object())
    for choices in (0, 257, 1.5):
        how = Steps()
        how.choices = choices
        with pytest.raises(ValueError, match="one byte holds"):
            Defended(hyperprior, how)
    for bits in (0, 9, 2.5, "5"):
        with pytest.raises(ValueError, match="bits must be"):
            BitDepth(bits=bits)
    assert repr(BitDepth(bits=4)(Flip(seed=2)(hyperprior))).startswith("BitDepth(bits=4)(Flip(seed=2)(NeuralCodec(")
    assert defences.Flip()(hyperprior).label == "bmshj2018-hyperprior q3, Flip(seed=0)"
