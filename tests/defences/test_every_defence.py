"""Each defence does what it says, and no attack walks round it."""

import math

import pytest
import torch
from conftest import untrained

from nic_helpers import attacks, defences, load_codec, load_images
from nic_helpers.codecs.base import CodecOutput, real_bpp
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.defences import purifier
from nic_helpers.defences.base import pack
from nic_helpers.metrics import psnr
from nic_helpers.objectives import Rate

STEPS = (
    defences.Flip(),
    defences.Roll(),
    defences.Rotate(),
    defences.ColourOrder(),
    defences.RandomEnsemble(),
    defences.SelfEnsemble(),
    defences.TwoWay(),
    defences.BitDepth(),
    defences.JPEGPass(),
    defences.Purifier(),
    defences.Resize(),
    defences.Refine(steps=1),
    defences.OnlineUpdate(steps=1),
)
TURNS = (*STEPS[:7],)


@pytest.fixture(scope="module")
def q6():
    """A codec whose pictures fall apart under attack."""
    return load_codec("bmshj2018-hyperprior", 6, device="cpu")


@pytest.mark.parametrize("how", STEPS, ids=lambda how: type(how).__name__)
def test_every_gradient_of_an_attack_passes_the_sender_s_step(how, x, monkeypatch):
    codec, calls, step = how(untrained("bmshj2018-hyperprior")), [], type(how).sender
    monkeypatch.setattr(type(how), "sender", lambda self, v, k, codec: calls.append(k) or step(self, v, k, codec))
    counts = []
    for steps in (2, 6):
        calls.clear()
        attacks.PGD(8 / 255, steps=steps)(codec, x[:1])
        counts.append(len(calls))
    assert counts[1] - counts[0] >= 4  # what is done once, however many steps there are, does not count


@pytest.mark.parametrize("how", TURNS, ids=lambda how: type(how).__name__)
def test_the_receiver_undoes_every_way_exactly(how, x):
    odd = x[:1, :, :37, :22]
    for k in range(how.choices):
        assert torch.equal(how.after(how.before(odd, k), k), odd), k
    assert len({how.before(odd, k).numpy().tobytes() for k in range(how.choices)}) == how.choices


@pytest.mark.parametrize("scale", [0.5, 0.61, 0.9, 0.99])
def test_a_resized_picture_has_its_own_size_again(scale, x):
    how = defences.Resize(scale)
    codec = how(untrained("bmshj2018-factorized"))
    for height, width in ((64, 63), (63, 64), (41, 50), (33, 35)):
        image = x[:1, :, :height, :width]
        assert codec.decode(codec.encode(image)).shape == image.shape
        assert how.before(image, 0).shape[2:] == tuple(math.ceil(scale * side - 1e-9) for side in (height, width))


def test_the_sender_s_choice_costs_no_more_than_the_plain_way(x):
    naked = untrained("bmshj2018-hyperprior")
    best = defences.SelfEnsemble()(naked)
    assert (psnr(x, best.reconstruct(x)) >= psnr(x, naked.reconstruct(x)) - 1e-4).all()
    assert len({best.choice(image) for image in torch.cat((x, x.flip(2)))}) > 1
    cheaper = defences.TwoWay()(naked)

    def cost(codec):
        out = codec(x, None)
        return out.bpp + naked.lmbda * 255**2 * (out.x_hat - x).square().mean((1, 2, 3))

    assert (cost(cheaper) <= cost(naked) + 1e-5).all()


@pytest.mark.parametrize("how", [defences.Refine(steps=1), defences.OnlineUpdate(steps=2)], ids=lambda how: type(how).__name__)
def test_an_attacker_may_take_the_derivative_of_the_sender_s_steps_too(how, q6):
    """Its outputs are the defence's; its gradient is another one than that which passes the steps by; attacks climb along it."""
    x = load_images("bundled")[0][None, :, :64, :64]
    plain, seen = how(q6), defences.Unrolled(how)(q6)
    slopes = []
    for codec in (plain, seen):
        v = x.clone().requires_grad_(True)
        out = codec(v, "identity", rate=False).x_hat
        slopes.append(torch.autograd.grad((out - x).square().sum(), v)[0])
    assert torch.equal(plain.reconstruct(x), seen.reconstruct(x))
    assert slopes[1].isfinite().all() and not torch.allclose(slopes[0], slopes[1], rtol=0.1)
    found = attacks.PGD(8 / 255, steps=3)(seen, x)
    assert found.linf.max() <= 8 / 255 + 1e-6
    clean = plain.reconstruct(x)
    noise = attacks.RandomNoise(8 / 255, kind="sign")(plain, x).x_adv
    assert psnr(clean, plain.reconstruct(found.x_adv)) < psnr(clean, plain.reconstruct(noise))


def test_only_what_takes_steps_can_be_unrolled(q6):
    with pytest.raises(TypeError, match="takes steps"):
        defences.Unrolled(defences.Flip())
    with pytest.raises(TypeError, match="no gradient"):
        defences.Unrolled(defences.Refine())(load_codec("jpeg", 30))


class Scaled:
    """A codec of one number: C(u) = a·u, R(u) = b·u² a pixel. What the steps do to it can be written down."""

    a, b, lmbda = 0.5, 0.2, 1 / 255**2

    def __call__(self, u, surrogate, rate=True):
        return CodecOutput(self.a * u, {"y": self.b * u.square().sum((1, 2, 3))}, u[0].numel())


@pytest.mark.parametrize("how", [defences.Refine(steps=1, alpha=0.03), defences.OnlineUpdate(steps=1, lr=0.03)])
def test_the_derivative_of_a_step_is_the_one_that_can_be_written_down(how):
    """One step from u = x, and its derivative by x, which moves with the start and with the target, both."""
    codec, x = Scaled(), torch.linspace(0.3, 0.7, 48).reshape(1, 3, 4, 4).requires_grad_(True)
    pixels = x.numel()
    own, target = (2 * codec.a**2, -2 * codec.a)  # of the slope of (a·u − x)², by u and by x
    if isinstance(how, defences.OnlineUpdate):
        own, target = ((own + 2 * codec.b) / pixels, target / pixels)
    slope = (own + target) * x.detach()
    size = slope.abs().mean()
    if isinstance(how, defences.Refine):
        by, rate = (1 - torch.tanh(slope / size) ** 2) / size, how.alpha
    else:
        by, rate = 1 / torch.maximum(slope.abs(), size), how.lr
    u = how.unrolled(x, codec)
    (found,) = torch.autograd.grad(u.sum(), x)
    assert torch.allclose(u, x - rate * slope.sign(), atol=1e-5)
    assert torch.allclose(found, 1 - rate * by * (own + target), rtol=1e-4)


def test_refinement_lowers_the_error_and_updating_the_loss(q6, x):
    attacked = attacks.PGD(16 / 255, steps=10)(q6, x).x_adv
    gained = psnr(attacked, defences.Refine()(q6).reconstruct(attacked)) - psnr(attacked, q6.reconstruct(attacked))
    assert (gained >= 0).all() and gained.max() > 1

    def loss(codec):
        out = codec(x, None)
        return out.bpp + q6.lmbda * 255**2 * (out.x_hat - x).square().mean((1, 2, 3))

    assert (loss(defences.OnlineUpdate(steps=5)(q6)) < loss(q6)).all()


def test_the_safe_zone_leaves_its_own_images_alone_and_holds_others(q6, x):
    images = [image[None] for image in load_images("bundled")[:2]]
    safe = defences.SafeZone(images=[image[0] for image in images])(q6)
    for image in images:
        assert torch.equal(safe.reconstruct(image), q6.reconstruct(image)) and safe.encode(image) == q6.encode(image)
    attacked = attacks.PGD(16 / 255, steps=10)(q6, x).x_adv
    low, high = torch.cat([q6.latents(image)[0].flatten(1) for image in images], 1).aminmax(dim=1)
    y = safe.latents(attacked)
    assert bool((y >= low[:, None, None]).all() and (y <= high[:, None, None]).all()) and not torch.equal(y, q6.latents(attacked))
    assert torch.equal(q6.decode(safe.encode(attacked)), safe.decode(safe.encode(attacked)))  # any receiver will do
    assert "SafeZone" in safe.label and safe.quick("float32").latents(attacked).amax() <= high.amax()


def test_what_is_below_the_floor_is_sent_as_jpeg_and_what_no_jpeg_reaches_as_png(q6, x):
    attacked = attacks.PGD(16 / 255, steps=10)(q6, x).x_adv
    floor = float(psnr(attacked, q6.reconstruct(attacked)).max()) + 0.5
    safe = defences.VerifyOrFallBack(floor=floor)(q6)
    streams = safe.encode(attacked)
    assert [s[0] for s in streams] == [1] * len(x)
    assert (psnr(attacked, safe.decode(streams)) >= floor).all()
    (stream,) = defences.VerifyOrFallBack(floor=90.0)(q6).encode(x[:1])
    assert stream[0] == 2 and torch.equal(defences.VerifyOrFallBack(floor=90.0)(q6).decode([stream]), x[:1])
    assert [s[0] for s in defences.VerifyOrFallBack(floor=10.0)(q6).encode(x)] == [0] * len(x)


def test_no_file_is_larger_than_the_cap(x):
    codec = load_codec("mbt2018", 3, device="cpu")
    attacked = attacks.PGD(8 / 255, steps=6)(codec, x[:1], Rate()).x_adv
    naked = real_bpp(codec.encode(attacked), attacked)[0]
    capped = defences.RateCap(cap=0.9 * naked)(codec)
    assert real_bpp(capped.encode(attacked), attacked)[0] <= 0.9 * naked
    with pytest.warns(UserWarning, match=r"no JPEG has 60 dB within 4 bits per pixel: one of"):
        stream = defences.VerifyOrFallBack(floor=60.0, cap=4.0)(codec).encode(x[:1])
    assert real_bpp(stream, x[:1])[0] <= 4.0


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda c: defences.Resize(0.4), "scale must be in"),
        (lambda c: defences.Resize(0.5)(c).encode(torch.zeros(1, 3, 24, 24)), "have a side below 16"),
        (lambda c: defences.JPEGPass(0), "no quality 0"),
        (lambda c: defences.SelfEnsemble(cost="r"), '"d" or "rd"'),
        (lambda c: defences.TwoWay()(load_codec("jpeg", 50)), "no λ"),
        (lambda c: defences.OnlineUpdate()(attacks.BPDA(load_codec("jpeg", 50))), "no λ"),
        (lambda c: defences.Refine()(load_codec("jpeg", 50)), "no gradient for Refine"),
        (lambda c: defences.Refine(steps=0), "steps must be a whole number"),
        (lambda c: defences.OnlineUpdate(lr=0.0), "lr must be a positive"),
        (lambda c: defences.SafeZone()(defences.Flip()(c)), "around the learned codec itself"),
        (lambda c: defences.SafeZone(margin=-1.0), "margin"),
        (lambda c: defences.RateCap(cap=0.0), "cap a positive"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(wrong, says):
    with pytest.raises((ValueError, TypeError), match=says):
        wrong(untrained("bmshj2018-hyperprior"))


def test_streams_of_a_verifier_are_checked_as_all_are(x):
    safe = defences.VerifyOrFallBack(floor=90.0)(untrained("bmshj2018-factorized"))
    (stream,) = safe.encode(x[:1])
    for bad in (stream[:-1], b"\x07" + stream[1:], stream[:20], defences.RateCap()(safe.codec).encode(x[:1])[0]):
        with pytest.raises(BitstreamError):
            safe.decode([bad])
    with pytest.raises(BitstreamError, match="way 3"):
        safe.decode([pack(3, stream[3:], safe.nesting)])
    with pytest.raises(BitstreamError):
        safe.decode([pack(2, b"no picture", safe.nesting)])
    with pytest.raises(BitstreamError, match="most"):
        safe.decode([stream], most_pixels=100)


def test_the_purifier_takes_noise_off_and_leaves_clean_pictures(x):
    torch.manual_seed(0)
    clean = torch.cat([image[None, :, :128, :128] for image in load_images("bundled")[:3]])
    noisy = (clean + 12 / 255 * torch.randn_like(clean)).clamp(0, 1)
    purified = defences.Purifier()
    assert (psnr(clean, purified.before(noisy, 0)) > psnr(clean, noisy) + 3).all()
    assert (psnr(clean, purified.before(clean, 0)) > 34).all()
    odd = clean[:1, :, :41, :23]
    assert purified.before(odd, 0).shape == odd.shape


def test_a_purifier_s_file_is_checked(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no denoiser's weights"):
        defences.Purifier(weights=str(tmp_path / "none.safetensors"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"not a file of weights")
    with pytest.raises(ValueError, match="holds no denoiser"):
        defences.Purifier(weights=str(other))
    purifier.load_denoiser.cache_clear()
    monkeypatch.setattr(purifier, "expected_sha256", lambda: 64 * "0")
    with pytest.raises(ValueError, match="Restore it with git checkout"):
        defences.Purifier()
    purifier.load_denoiser.cache_clear()
