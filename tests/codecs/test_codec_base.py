import ast
import math

import pytest
import torch

from nic_helpers import attacks, defences, load_codec, metrics
from nic_helpers.analysis.gradients import check_gradient
from nic_helpers.codecs.base import MEMBERS, Codec, CodecOutput, check_codec
from nic_helpers.settings import PROJECT

EPS = 8 / 255


class Own(Codec):
    """As little as a codec can be: it darkens."""

    name, quality = "own", 1

    def __call__(self, x, surrogate="ste", rate=True):
        if not isinstance(x, torch.Tensor):
            return [self(image[None], surrogate, rate) for image in x]
        bits = {"all": x.square().sum((1, 2, 3))} if rate else {}
        return CodecOutput(0.9 * x**2, bits, x.size(2) * x.size(3))


class Forwarding:
    """A wrapper that passes on whatever it lacks, and with it the naked codec's ``quick``."""

    differentiable = True

    def __init__(self, codec):
        self._codec = codec

    def __getattr__(self, name):
        return getattr(self._codec, name)

    def __call__(self, x, surrogate="ste", rate=True):
        return self._codec(x, surrogate, rate)


class Plain(torch.nn.Module):
    def forward(self, v):
        return 0.9 * v


def test_every_kind_of_codec_is_one(hyperprior, cheng):
    jpeg, hevc = load_codec("jpeg"), load_codec("hevc")
    for codec in (
        hyperprior,
        cheng,
        jpeg,
        hevc,
        attacks.BPDA(jpeg),
        defences.Flip()(hyperprior),
        Own(),
        hyperprior.quick("bfloat16"),
    ):
        check_codec(codec)
        assert isinstance(codec, Codec) and codec.name and codec.label and isinstance(codec.lmbda, float)
        assert (
            isinstance(codec.device, torch.device)
            and isinstance(codec.differentiable, bool)
            and isinstance(codec.always_rounds, bool)
        )
        assert codec.weights is None or codec.weights.source == "bundled"
        assert isinstance(codec.quick("float32"), Codec) and isinstance(codec.for_images([torch.zeros(3, 16, 16)]), Codec)
    assert hyperprior.activation_bytes == 50 * 48 and cheng.activation_bytes % 150 == 0
    assert attacks.BPDA(hyperprior).activation_bytes == hyperprior.activation_bytes and math.isnan(jpeg.lmbda)


def test_nothing_is_passed_on_unseen_nor_asked_of_a_codec_that_may_lack_it():
    """No __getattr__ in the package, and no getattr or hasattr with the name of what a codec has."""
    names = {*MEMBERS, "model", "arch", "coder", "codec", "_codec", "how"}
    for path in (PROJECT / "nic_helpers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__getattribute__")), path.name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
                asked = node.args[1]
                assert not (isinstance(asked, ast.Constant) and asked.value in names), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    "call",
    [
        lambda codec, x: attacks.PGD(EPS, steps=1)(codec, x),
        lambda codec, x: attacks.PGD(EPS, steps=1)([codec], x),
        lambda codec, x: attacks.RandomNoise(EPS)(codec, x),
        lambda codec, x: attacks.Square(EPS)(codec, x),
        lambda codec, x: metrics.before_after(codec, x, x),
        lambda codec, x: metrics.quality_table(codec, x),
        lambda codec, x: check_gradient(codec, x),
        lambda codec, x: attacks.BPDA(codec),
        lambda codec, x: attacks.eot(codec),
        lambda codec, x: defences.Flip()(codec),
    ],
)
def test_what_is_no_codec_is_told_what_it_lacks(call, hyperprior, x):
    for codec, lacks in (
        (Plain(), "Plain is a torch module.*state_dict"),
        (Forwarding(hyperprior), "Forwarding is no codec: it lacks name.*quick"),
        (hyperprior.model, "ScaleHyperprior is a torch module.*state_dict"),
        (Codec(), "Codec is no codec: it lacks name, quality, __call__. Derive"),
        (None, "NoneType is no codec"),
        (type(hyperprior), "NeuralCodec is a class"),
        ("jpeg", "load_codec"),
    ):
        with pytest.raises(TypeError, match=lacks):
            call(codec, x[:1])


def test_a_name_and_a_call_are_enough_to_be_attacked_and_measured(x):
    own, pgd = Own(), attacks.PGD(EPS, steps=3)
    result = pgd(own, x)
    assert (result.objective > attacks.RandomNoise(EPS)(own, x).objective).all()
    row = metrics.before_after(own, x, result.x_adv, real_rate=False)
    assert set(row["codec"]) == {"own"} and row["psnr_recon"].max() < 40 and "bpp_clean" not in row
    assert not own.reconstruct(x).requires_grad and own.reconstruct([x[0], x[1, :, :20]])[1].shape == (3, 20, 64)
    torch.testing.assert_close(own.estimated_bpp(x), own(x).bpp)
    assert own.quick("bfloat16") is own and own.for_images(x) is own
    for call in (lambda: metrics.before_after(own, x, x), lambda: own.encode(x), lambda: own.decode([b""])):
        with pytest.raises(TypeError, match=r"makes no bitstreams: give Own encode\(x\) and decode"):
            call()


def test_encode_and_decode_make_it_whole(x):
    class Raw(Own):
        differentiable = False

        def encode(self, v):
            return [bytes([im.size(1), im.size(2)]) + (im * 255).round().byte().numpy().tobytes() for im in v]

        def decode(self, streams, most_pixels=10**6):
            return [torch.frombuffer(bytearray(s[2:]), dtype=torch.uint8).view(3, s[0], s[1]) / 255 for s in streams]

    raw = Raw()
    assert torch.equal(raw.roundtrip(x).x_hat, x) and torch.equal(raw.reconstruct(x), x)
    assert metrics.before_after(raw, x, x)["bpp_clean"].eq(24 + 16 / 64**2).all()
    assert attacks.PGD(EPS, steps=1)(attacks.BPDA(raw), x).objective.min() > 0
