"""What every codec must do, whatever is inside: learned, around another, behind a defence, or one written outside the package."""

import functools

import pytest
import torch
from conftest import KINDS_OF_CODECS, untrained

from nic_helpers import attacks, defences, load_codec, load_images
from nic_helpers.codecs.base import check_codec, real_bpp
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.codecs.quantisers import QUANTISERS
from nic_helpers.objectives import Distortion, Rate

MAKE = {name: functools.partial(untrained, name) for name in KINDS_OF_CODECS} | {
    "flipped": lambda: defences.Flip(seed=1)(untrained("mbt2018-mean")),
    "flipped, five bits": lambda: defences.BitDepth(bits=5)(defences.Flip(seed=1)(untrained("bmshj2018-hyperprior"))),
    "rolled": lambda: defences.Roll(seed=1)(untrained("bmshj2018-factorized")),
    "rotated": lambda: defences.Rotate(seed=1)(untrained("bmshj2018-factorized")),
    "colours in another order": lambda: defences.ColourOrder(seed=1)(untrained("bmshj2018-factorized")),
    "random ensemble": lambda: defences.RandomEnsemble(seed=1)(untrained("bmshj2018-hyperprior")),
    "best of eight": lambda: defences.SelfEnsemble()(untrained("bmshj2018-factorized")),
    "cheaper of two": lambda: defences.TwoWay()(untrained("bmshj2018-hyperprior")),
    "after JPEG": lambda: defences.JPEGPass(60)(untrained("bmshj2018-factorized")),
    "purified": lambda: defences.Purifier()(untrained("bmshj2018-factorized")),
    "smaller": lambda: defences.Resize(0.8)(untrained("bmshj2018-hyperprior")),
    "in the safe zone": lambda: defences.SafeZone()(untrained("mbt2018-mean")),
    "verified": lambda: defences.VerifyOrFallBack(floor=23.0)(untrained("bmshj2018-factorized")),
    "capped": lambda: defences.RateCap(cap=8.0)(untrained("bmshj2018-hyperprior")),
    "refined": lambda: defences.Refine(steps=1)(untrained("bmshj2018-factorized")),
    "updated": lambda: defences.OnlineUpdate(steps=2)(untrained("bmshj2018-hyperprior")),
    "linear": lambda: LinearCodec(load_images("bundled"), step=8, keep=48),
    "jpeg": lambda: load_codec("jpeg", 50),
    "jpeg through BPDA": lambda: attacks.BPDA(load_codec("jpeg", 50)),
}
CONTEXT = [n for n, kind in KINDS_OF_CODECS.items() if not kind.parallel_is_exact]


@pytest.fixture(params=list(MAKE))
def codec(request):
    """One codec of every kind."""
    return MAKE[request.param]()


@pytest.fixture(params=[n for n in MAKE if n != "jpeg"])
def climbable(request):
    """One codec of every kind that has a gradient."""
    return MAKE[request.param]()


def test_it_is_a_codec_and_its_streams_decode_to_what_its_encoder_rebuilds(codec, x):
    check_codec(codec)
    coded = codec.roundtrip(x)
    decoded = codec.decode(coded.streams)
    assert codec.encode(x) == coded.streams and all(real_bpp(coded.streams, x))
    for other in (coded.x_hat, codec.reconstruct(x)):
        torch.testing.assert_close(decoded, other, atol=1e-5, rtol=0)


def test_any_size_and_alone_as_in_a_batch(codec, x):
    odd = x[:2, :, :41, :23]
    together, alone = codec.roundtrip(odd), [codec.roundtrip(image[None]) for image in odd]
    assert together.x_hat.shape == odd.shape
    assert together.streams == [part.streams[0] for part in alone]
    torch.testing.assert_close(together.x_hat, torch.cat([part.x_hat for part in alone]), atol=1e-5, rtol=0)


def test_damaged_streams_are_refused(codec, x):
    stream = codec.encode(x[:1])[0]
    middle = len(stream) // 2
    for bad in (b"", stream[:middle], stream[:-1]):
        with pytest.raises(BitstreamError):
            codec.decode([bad])
    if not codec.name.startswith("jpeg"):  # JPEG has no checksum
        with pytest.raises(BitstreamError):
            codec.decode([stream[:middle] + bytes([stream[middle] ^ 1]) + stream[middle + 1 :]])
    with pytest.raises(BitstreamError, match="most"):
        codec.decode([stream], most_pixels=x[0, 0].numel() - 1)


@pytest.mark.parametrize("surrogate", [s for s in QUANTISERS if s])
def test_every_surrogate_gives_the_picture_a_gradient(climbable, x, surrogate):
    v = x[:1].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(climbable(v, surrogate, rate=False).x_hat.square().sum(), v)
    assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0


def test_true_rounding_is_what_the_receiver_sees_and_the_estimate_is_near_the_bytes(climbable, x):
    out = climbable(x, None)
    if climbable.name not in CONTEXT:  # whose parallel form is not what is decoded
        torch.testing.assert_close(out.x_hat, climbable.reconstruct(x), atol=2e-2, rtol=0)
    real = torch.tensor(real_bpp(climbable.encode(x), x))
    torch.testing.assert_close(out.bpp.detach().float(), real, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("objective", [Distortion(), Rate()])
def test_an_attack_finds_more_than_noise(climbable, x, objective):
    if isinstance(objective, Rate) and climbable.always_rounds:
        pytest.skip("the size of a real file has no gradient")
    found = attacks.PGD(8 / 255, steps=4)(climbable, x[:1], objective)
    noise = attacks.RandomNoise(8 / 255)(climbable, x[:1], objective)
    assert float(found.objective) > float(noise.objective)


# ---------------------------------------------------------------------------------------------------- interventions
@pytest.mark.parametrize("name", list(KINDS_OF_CODECS))
def test_a_branch_set_to_its_own_value_changes_nothing_and_to_another_something(name, x):
    codec = untrained(name)
    own, other = (codec.walk(image, None) for image in (x[:1], x[1:2]))
    assert own.taps.keys() >= ({"y"} if name == "bmshj2018-factorized" else {"z", "side", "samples"})
    for branch in own.taps:
        same = codec.walk(x[:1], None, set_to={branch: own.taps[branch]})
        assert all(torch.equal(same.likelihoods[k], v) for k, v in own.likelihoods.items()), branch
        changed = codec.walk(x[:1], None, set_to={branch: other.taps[branch]})
        assert not all(torch.equal(changed.likelihoods[k], v) for k, v in own.likelihoods.items()), branch
        zero = codec.walk(x[:1], None, set_to={branch: torch.zeros_like})
        assert zero.likelihoods.keys() == own.likelihoods.keys()


def test_a_branch_that_an_architecture_has_not_got_is_refused(x):
    with pytest.raises(ValueError, match="no branch context: there are z, side, samples"):
        untrained("mbt2018-mean").walk(x[:1], None, set_to={"context": torch.zeros_like})
