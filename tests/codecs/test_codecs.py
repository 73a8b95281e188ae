import pytest
import torch
import torch.nn.functional as F
from conftest import KINDS, LIKE_WACNN, MODES, untrained

from nic_helpers import attacks, load_codec, load_images, metrics
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.metrics import psnr


def gradient(codec, x, surrogate, what="x_hat"):
    x = x.clone().requires_grad_(True)
    out = codec(x, surrogate)
    # not the squared distance to x_hat itself, whose gradient is zero by construction
    (out.x_hat.pow(2) if what == "x_hat" else out.bits[what]).sum().backward()
    return x.grad


# ------------------------------------------------------------------------------------------------ real bitstreams
def test_decoding_the_bytes_gives_the_reconstruction(any_codec, x):
    coded = any_codec.roundtrip(x)
    decoded = any_codec.decode(coded.streams)
    assert decoded.shape == x.shape and decoded.min() >= 0 and decoded.max() <= 1
    for other in (coded.x_hat, any_codec.reconstruct(x)):
        torch.testing.assert_close(decoded, other, atol=1e-5, rtol=0)
    assert any_codec.encode(x) == coded.streams


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 64), (130, 70)])
def test_any_size_from_16_pixels_is_padded_inside_and_cropped_back(any_codec, size):
    image = F.interpolate(load_images("bundled")[0][None], size).clamp(0, 1)
    decoded = any_codec.decode(any_codec.encode(image))
    assert decoded.shape == image.shape
    torch.testing.assert_close(decoded, any_codec.reconstruct(image), atol=1e-5, rtol=0)
    assert any_codec(image).x_hat.shape == image.shape


def test_a_long_thin_image(hyperprior):
    image = torch.linspace(0, 1, 5000)[None, None, :, None].expand(1, 3, 5000, 40)
    streams = hyperprior.encode(image)
    assert psnr(image, hyperprior.decode(streams)) > 25


def test_one_pixel_is_a_clear_error(hyperprior):
    with pytest.raises(ValueError, match="at least 16×16 pixels, got 1×1"):
        hyperprior.encode(torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.5])
def test_values_out_of_range_are_refused_by_every_call(hyperprior, value):
    bad = torch.full((1, 3, 32, 32), value)
    for call in (hyperprior.encode, hyperprior.reconstruct, hyperprior, hyperprior.roundtrip):
        with pytest.raises(ValueError, match=r"NaN|lie in"):
            call(bad)


def test_lists_of_different_sizes_come_back_as_lists(hyperprior, x):
    images = [x[0], x[1, :, :32, :48]]
    decoded = hyperprior.decode(hyperprior.encode(images))
    assert [d.shape for d in decoded] == [im.shape for im in images]
    assert [o.x_hat.shape[1:] for o in hyperprior(images)] == [im.shape for im in images]
    for a, b, c in zip(decoded, hyperprior.reconstruct(images), hyperprior.roundtrip(images).x_hat, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        torch.testing.assert_close(a, c, atol=1e-5, rtol=0)


def test_a_batch_equals_its_images_one_by_one(any_codec, x):
    alone = [any_codec.roundtrip(x[k : k + 1]) for k in range(len(x))]
    together = any_codec.roundtrip(x)
    torch.testing.assert_close(together.x_hat, torch.cat([a.x_hat for a in alone]), atol=1e-5, rtol=0)
    sizes = [[len(s) for s in c] for c in (together.streams, [a.streams[0] for a in alone])]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_estimated_bits_agree_with_real_bytes(name, request):
    codec = request.getfixturevalue(name)
    for image in load_images("bundled"):
        real = 8 * len(codec.encode(image[None])[0])
        estimated = sum(b.item() for b in codec(image[None], None).bits.values())
        assert abs(real - estimated) < 0.02 * estimated + 8 * 32


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_agrees_with_compressai_s_own_coder(name, request):
    codec = request.getfixturevalue(name)
    x = load_images("bundled")[0][None, :, :128, :128]
    theirs = codec.model.compress(x)
    x_hat = codec.model.decompress(theirs["strings"], theirs["shape"])["x_hat"]
    ours = codec.roundtrip(x)
    assert psnr(x_hat, ours.x_hat) > 55  # float32 and float64 may round a symbol apart
    their_bytes = sum(len(s[0]) for s in theirs["strings"])
    assert abs(their_bytes - sum(map(len, codec.unpack(ours.streams[0]).strings))) <= 16


def test_rates_count_original_pixels(hyperprior):
    x = torch.rand(1, 3, 17, 31)
    stream = hyperprior.encode(x)[0]
    assert real_bpp([stream], x) == [8 * len(stream) / (17 * 31)]
    assert hyperprior(x).pixels == 17 * 31


# ------------------------------------------------------------------------------------------------------ gradients
def test_true_rounding_has_no_gradient_and_each_surrogate_has(any_codec, x):
    assert gradient(any_codec, x, None).abs().max() == 0
    for surrogate in ("ste", "noise", "identity"):
        assert gradient(any_codec, x, surrogate).abs().max() > 0


def test_rate_gradient_reaches_every_branch_only_through_a_surrogate(any_codec, x):
    for branch in any_codec(x).bits:
        assert gradient(any_codec, x, "ste", branch).abs().max() > 0
    assert gradient(any_codec, x, None, list(any_codec(x).bits)[-1]).abs().max() == 0


def test_straight_through_does_not_change_the_values(hyperprior, x):
    torch.testing.assert_close(hyperprior(x, "ste").x_hat, hyperprior(x, None).x_hat, atol=1e-6, rtol=0)
    torch.testing.assert_close(hyperprior(x, "ste").bpp, hyperprior(x, None).bpp, atol=1e-5, rtol=0)


def test_surrogates_point_the_same_way(hyperprior):
    x = torch.stack(load_images("bundled"))[:, :, :128, :128]
    reference = hyperprior.reconstruct(x)
    grads = []
    torch.manual_seed(0)
    near = (x + (torch.rand_like(x) - 0.5) * 16 / 255).clamp(0, 1)
    for surrogate in ("ste", "noise", "identity"):
        start = near.clone().requires_grad_(True)
        loss = (hyperprior(start, surrogate, rate=False).x_hat - reference).pow(2).sum()
        grads.append(torch.autograd.grad(loss, start)[0].flatten(1))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert F.cosine_similarity(grads[a], grads[b]).mean() > 0.2


def test_weights_never_receive_gradients(hyperprior, x):
    gradient(hyperprior, x, "ste")
    assert all(p.grad is None and not p.requires_grad for p in hyperprior.model.parameters())
    assert not hyperprior.model.training


def test_distortion_never_runs_the_entropy_model(hyperprior, x, monkeypatch):
    def ran(*args):
        pytest.fail("the entropy model ran")

    for part in ("h_a", "h_s"):
        monkeypatch.setattr(getattr(hyperprior.model, part), "forward", ran)
    assert hyperprior(x, "ste", rate=False).bits == {}
    hyperprior.reconstruct(x)


def test_reconstruct_with_a_surrogate_is_differentiable(hyperprior, x):
    x = x.clone().requires_grad_(True)
    hyperprior.reconstruct(x, surrogate="ste").sum().backward()
    assert x.grad.abs().max() > 0
    assert not hyperprior.reconstruct(x).requires_grad


# --------------------------------------------------------------------------------------------------------- loading
def test_latents_that_no_coder_takes_are_refused(hyperprior, x, monkeypatch):
    shape = hyperprior.walk(x[:1]).y.shape
    for value in (float("nan"), 1e12):
        monkeypatch.setattr(hyperprior.model.g_a, "forward", lambda v, value=value: torch.full(shape, value))
        with pytest.raises(ValueError, match="cannot be coded"):
            hyperprior.encode(x[:1])


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="bmshj2018-hyperprior"):
        load_codec("nonsense", 3)
    with pytest.raises(ValueError, match=r"bundled.*qualities"):
        load_codec("bmshj2018-hyperprior", 99)
    with pytest.raises(ValueError, match="whole number"):
        load_codec("bmshj2018-hyperprior", "3")
    with pytest.raises(ValueError, match="needs a quality: one of 1"):
        load_codec("bmshj2018-hyperprior")
    with pytest.raises(ValueError, match="unknown surrogate"):
        load_codec("bmshj2018-hyperprior", 3)(torch.rand(1, 3, 32, 32), "none")


def test_every_architecture_knows_its_published_widths():
    for arch in ARCHITECTURES.values():
        assert set(arch.published_widths) == set(arch.qualities)


def test_the_rate_alone_is_the_rate_of_the_whole_pass(any_codec, x):
    v = x.clone().requires_grad_(True)
    alone, whole = any_codec.estimated_bpp(v), any_codec(v).bpp
    torch.testing.assert_close(alone, whole)
    assert torch.autograd.grad(alone.sum(), v)[0].abs().max() > 0


class Plain(torch.nn.Module):
    """A module that is no codec."""


@pytest.mark.parametrize(
    "wrong, says",
    [
        ("bmshj2018-hyperprior", r"text.*load_codec\(name"),
        (Plain(), "Plain is a torch module.*state_dict"),
        (Plain, "a class"),
        (torch.zeros(1, 3, 16, 16), "the codec comes first"),
        (None, "NoneType is no codec"),
        ({"a": 1}, "dict is no codec"),
        (["jpeg"], "'jpeg' is a text"),
    ],
)
def test_what_is_no_codec_is_told_how_to_get_one(wrong, says, x):
    with pytest.raises(TypeError, match=says):
        attacks.PGD(8 / 255, steps=1)(wrong, x)
    if not isinstance(wrong, list):
        for table in (lambda: metrics.before_after(wrong, x, x), lambda: metrics.quality_table(wrong, x)):
            with pytest.raises(TypeError, match=says):
                table()


@pytest.mark.parametrize("call", ["encode", "roundtrip", "reconstruct", "__call__"])
def test_a_codec_s_calls_say_what_images_are(call, hyperprior, x):
    of = getattr(hyperprior, call)
    for wrong in ({"a": x[0]}, "a.png", x[0].permute(1, 2, 0).numpy(), None, [x[:1]]):
        with pytest.raises((TypeError, ValueError), match="must be a tensor"):
            of(wrong)
    assert len(of(image for image in x[:2])) == 2 if call != "roundtrip" else len(of(iter(x[:2])).streams) == 2


# ------------------------------------------------------------------------------------------- what a caller has set
def everything(codec, x):
    """What every public pass gives."""
    coded, out = codec.roundtrip(x), codec(x)
    return [
        *coded.streams,
        *codec.encode(x),
        coded.x_hat,
        codec.decode(coded.streams),
        codec.reconstruct(x),
        out.x_hat,
        out.bpp,
        codec.estimated_bpp(x),
        codec.reconstruct(x, "identity"),
        codec.walk(x, None).likelihoods["y"],
    ]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a == b if isinstance(a, bytes) else a.dtype == b.dtype == torch.float32 and torch.equal(a, b)


@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a not in LIKE_WACNN])
def test_a_codec_is_built_and_computes_alike_whatever_its_caller_has_set(arch, x):
    model, image = untrained(arch).model, x[:1]
    weights = Weights({k: v.clone() for k, v in model.named_parameters()}, "test", arch, "ab" * 32, 0.0067)
    expected, slope = everything(untrained(arch), image), gradient(untrained(arch), image, "ste")
    for mode in MODES.values():
        with mode():
            codec = NeuralCodec(arch, 3, weights, torch.device("cpu"))
            same(everything(codec, image), expected)
            codec.quick("bfloat16")
        assert torch.equal(gradient(codec, image, "ste"), slope)
        assert gradient(codec.quick("bfloat16"), image, "ste").abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_other_tensors_of_a_picture_give_the_same(kind, hyperprior, x):
    same(everything(hyperprior, KINDS[kind](x)), everything(hyperprior, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_picture_in_half_precision_is_computed_in_full(dtype, hyperprior, x):
    same(everything(hyperprior, x.to(dtype)), everything(hyperprior, x.to(dtype).float()))


def test_the_noise_of_a_pass_outside_attacks_is_the_caller_s(hyperprior, x):
    torch.manual_seed(5)
    first, second = (hyperprior(x, "noise").x_hat for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(hyperprior(x, "noise").x_hat, first) and not torch.equal(first, second)
