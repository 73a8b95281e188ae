import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nic_helpers import attacks, load_codec, load_images, metrics
from nic_helpers.attacks.strongest import Continuation
from nic_helpers.codecs import jpegai
from nic_helpers.codecs.jpegai import JpegAI, load_networks, to_rgb, to_ycbcr
from nic_helpers.codecs.load import codec_names
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Joint, Rate
from nic_helpers.settings import PROJECT

EPS = 8 / 255
Y, UV = 8, 4  # latent channels of the small networks; the real ones have 128 and 64
FOLDER = os.environ.get("NIC_JPEGAI_DIR")


# ------------------------------------------------------------------------ small networks of the real ones' structure
class Graph:
    """A chain of ONNX nodes with random weights."""

    def __init__(self, source, seed):
        self.nodes, self.weights, self.last, self.rng = [], [], source, np.random.default_rng(seed)

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(self, kind, *others, **attributes):
        source, self.last = self.last, f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [source, *others], [self.last], **attributes))
        return source

    def conv(self, inside, outside, side=3, stride=1, transposed=False, gain=1.4, bias=0.0):
        shape = (inside, outside, side, side) if transposed else (outside, inside, side, side)
        scale = gain / math.sqrt(inside * side * side / (4 if transposed else 1))
        weight = self.constant(self.rng.normal(0, scale, shape))
        attributes = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [(side - 1) // 2] * 4}
        kind = "ConvTranspose" if transposed else "Conv"
        self.node(kind, weight, self.constant(np.full(outside, bias)), **attributes)

    def gate(self, channels, side):
        x = self.last
        self.node("LeakyRelu", alpha=0.01)
        self.conv(channels, channels, side, gain=0.3, bias=1.0)  # x·(1 + conv(LeakyReLU x))
        self.node("Mul", x)

    def encoder(self, planes, latents, width=8):
        self.node("Sub", self.constant(127.5))
        self.node("Div", self.constant(128.0))
        for k in range(3):
            self.conv(planes if k == 0 else width, width, stride=2)
            self.gate(width, 3)
        self.conv(width, latents, stride=2, gain=4)
        return self

    def decoder(self, latents, planes, width=8):
        x = self.last
        self.conv(latents, latents, gain=0.5)
        self.node("Relu")
        self.node("Add", x)
        for k in range(2):
            self.conv(latents if k == 0 else width, width, 4, 2, transposed=True)
            self.gate(width, 1)
        self.conv(width, planes, 1, gain=0.1)
        return self

    def hyper(self, channels):
        self.node("Abs")
        self.conv(channels, channels, stride=2)
        return self

    def bytes(self, inside, outside):
        shapes = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, None, None])
            for n, c in (("x", inside), (self.last, outside))
        ]
        graph = helper.make_graph(self.nodes, "small", shapes[:1], shapes[1:], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
        onnx.checker.check_model(model)
        return model.SerializeToString()


@pytest.fixture(scope="session")
def small():
    """Name -> the contents of a small network's file."""
    files = {
        "single_encode_y": Graph("x", 0).encoder(1, Y).bytes(1, Y),
        "decoder_y": Graph("x", 1).decoder(Y, 16).bytes(Y, 16),
        "single_encode_uv": Graph("x", 2).encoder(3, UV).bytes(3, UV),
        "decoder_uv": Graph("x", 3).decoder(Y + UV, 32).bytes(Y + UV, 32),
    }
    return {n: files.get(n) or Graph("x", 9).hyper(Y).bytes(Y, Y) for n in jpegai.SHA256}


@pytest.fixture
def folder(small, tmp_path, monkeypatch):
    """A folder with the small networks, taken for the real ones."""
    for name, content in small.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    monkeypatch.setattr(jpegai, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in small.items()})
    monkeypatch.setenv("NIC_JPEGAI_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(params=list(jpegai.NAMES))
def codec(folder, request):
    return load_codec(request.param, device="cpu")


@pytest.fixture
def colour(folder):
    return load_codec("jpegai-vm33", device="cpu")


class Recorded(nn.Module):
    """A network that remembers what it was given."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, v):
        self.seen = v
        return self.network(v)


# --------------------------------------------------------------------------------------------------------- the files
def remove(folder, monkeypatch):
    (folder / "decoder_uv.onnx").unlink()


def change(folder, monkeypatch):
    (folder / "hyper_encoder_uv.onnx").write_bytes(b"version https://git-lfs")


@pytest.mark.parametrize(
    "spoil, error, says",
    [
        (lambda folder, m: m.delenv("NIC_JPEGAI_DIR"), FileNotFoundError, "is not set"),
        (lambda folder, m: m.setenv("NIC_JPEGAI_DIR", ""), FileNotFoundError, "is not set"),
        (lambda folder, m: m.setenv("NIC_JPEGAI_DIR", str(folder / "none")), FileNotFoundError, "is no folder"),
        (lambda folder, m: m.setenv("NIC_JPEGAI_DIR", str(folder / "decoder_y.onnx")), FileNotFoundError, "is no folder"),
        (remove, FileNotFoundError, "lacks decoder_uv.onnx:"),
        (change, ValueError, "hyper_encoder_uv.onnx is damaged or another version"),
    ],
)
@pytest.mark.parametrize("name", jpegai.NAMES)
def test_what_is_missing_or_wrong_is_said_with_where_to_get_it(folder, monkeypatch, name, spoil, error, says):
    spoil(folder, monkeypatch)
    with pytest.raises(error, match=says) as raised:  # of files, too, that this codec does not use
        load_codec(name)
    assert "github.com/SmartHarmony/JPEG-AI-OPT" in str(raised.value)


def test_any_of_the_networks_is_loaded_by_name(folder, monkeypatch):
    (found,) = load_networks(n for n in ["hyper_encoder_y"]).values()
    assert found(torch.ones(2, Y, 6, 10)).shape == (2, Y, 3, 5)
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    with pytest.raises(ValueError, match="no network is named 'decoder': there are decoder_uv"):
        load_networks(["decoder"])
    monkeypatch.delenv("NIC_JPEGAI_DIR")
    assert JpegAI(folder=folder).name == "jpegai-vm33"


def test_the_package_needs_neither_onnx_nor_the_folder_until_they_are_asked_for():
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['onnx2torch'] = None; import nic_helpers, nic_helpers.codecs.jpegai; "
        "nic_helpers.load_codec('jpeg')"
    )
    env = {k: v for k, v in os.environ.items() if k != "NIC_JPEGAI_DIR"}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, env=env)
    assert run.returncode == 0, run.stderr


# --------------------------------------------------------------------------------------------------------- the codec
def test_attributes(codec):
    assert codec.name in codec_names() and codec.differentiable and math.isnan(codec.lmbda)
    assert codec.label == f"{codec.name} q0.25" and codec.device.type == "cpu" and codec.weights.source == "jpegai"
    row = metrics.describe(codec)
    assert row["quality"] == 0.25 and len(row["weights_sha256"]) == 12
    assert not any(p.requires_grad for p in codec.model.parameters())
    assert codec.luma_only == codec.name.endswith("luma") == ("decoder_uv" not in codec.model)


def test_any_changed_file_would_be_other_weights(folder, colour, monkeypatch):
    monkeypatch.setitem(jpegai.SHA256, "hyper_decoder_y", jpegai.SHA256["decoder_y"])
    (folder / "hyper_decoder_y.onnx").write_bytes((folder / "decoder_y.onnx").read_bytes())
    assert load_codec("jpegai-vm33").weights.sha256 != colour.weights.sha256


@pytest.mark.parametrize("quality", [0, -1, 1e-30, math.inf, math.nan, "high", True])
def test_a_quality_that_is_no_step_is_refused(folder, quality):
    with pytest.raises(ValueError, match="the step of its latents' quantiser, a number from 1e-06"):
        load_codec("jpegai-vm33", quality)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 64), (130, 70)])
def test_any_size_from_16_pixels_is_padded_inside_and_cropped_back(codec, size):
    image = F.interpolate(load_images("bundled")[0][None], size).clamp(0, 1)
    padded = F.pad(image, (0, -size[1] % 64, 0, -size[0] % 64), mode="replicate")
    out = codec.reconstruct(image)
    assert out.shape == image.shape and out.min() >= 0 and out.max() <= 1 and out.std() > 0.01
    assert torch.equal(out, codec.reconstruct(padded)[..., : size[0], : size[1]])


def test_lists_and_batches_are_their_images_one_by_one(codec, x):
    images = [x[0], x[1, :, :32, :48]]
    for one, many, out in zip(images, codec.reconstruct(images), codec(images), strict=True):
        alone = codec.reconstruct(one[None])[0]
        torch.testing.assert_close(alone, many)
        torch.testing.assert_close(alone, out.x_hat[0])
    torch.testing.assert_close(codec.reconstruct(x)[1:2], codec.reconstruct(x[1:2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 8, 64), torch.full((1, 3, 32, 32), 1.5), torch.zeros(3, 32, 32)])
def test_what_is_no_image_is_refused(codec, bad):
    for call in (codec, codec.reconstruct):
        with pytest.raises(ValueError, match=r"at least 16×16|lie in|x\[None\]"):
            call(bad)


@pytest.mark.parametrize("surrogate", ["ste", "noise", "identity", None])
def test_every_surrogate_has_a_gradient_and_true_rounding_none(codec, x, surrogate):
    source = x.clone().requires_grad_(True)
    codec(source, surrogate).x_hat.pow(2).sum().backward()
    assert bool(source.grad.abs().amax((1, 2, 3)).min() > 0) == (surrogate is not None)
    assert codec.reconstruct(source, surrogate).requires_grad == (surrogate is not None)


def test_an_unknown_surrogate_is_named(colour, x):
    with pytest.raises(ValueError, match="unknown surrogate 'soft'"):
        colour(x, "soft")


def test_forward_straight_through_is_true_rounding_and_a_fine_step_is_none(folder, x):
    outs = []
    for step in (1, 0.25, 1e-3, 1e-6):
        codec = load_codec("jpegai-vm33", step, device="cpu")
        torch.testing.assert_close(codec(x, "ste").x_hat, codec.reconstruct(x))
        outs.append((codec.reconstruct(x) - codec(x, "identity").x_hat).pow(2).mean().item())
    assert outs[0] > outs[1] > 100 * max(outs[2:])


def test_the_decoders_see_multiples_of_the_step_and_colour_s_sees_the_luma(colour, x):
    for name in ("decoder_y", "decoder_uv"):
        colour.model[name] = Recorded(colour.model[name])
    colour.reconstruct(x)
    y, both = colour.model["decoder_y"].seen, colour.model["decoder_uv"].seen
    for latents in (y, both[:, Y:]):
        assert torch.equal(latents, torch.round(latents / 0.25) * 0.25) and latents.count_nonzero() > 0
    assert torch.equal(both[:, :Y], F.avg_pool2d(y, 2)) and both.size(1) == Y + UV


def test_the_encoders_see_planes_of_0_to_255_with_colour_at_half_size(colour):
    for name in ("single_encode_y", "single_encode_uv"):
        colour.model[name] = Recorded(colour.model[name])
    red = torch.zeros(1, 3, 64, 128)
    red[:, 0] = 1
    colour.reconstruct(red)
    y, planes = (colour.model[n].seen for n in ("single_encode_y", "single_encode_uv"))
    assert y.shape == (1, 1, 64, 128) and planes.shape == (1, 3, 32, 64)
    luma = 255 * 0.2126
    torch.testing.assert_close(planes[0, :, 5, 5], torch.tensor([luma, 128 - luma / 1.8556, 255.5]))
    torch.testing.assert_close(y, torch.full_like(y, luma))


def test_the_output_clamp_is_a_real_one(codec, x):
    class Bright(nn.Module):
        def forward(self, v):
            return 10 + 0 * v.mean() + torch.zeros(len(v), 16, 16, 16) * v.mean()

    codec.model["decoder_y"] = Bright()
    source = x.clone().requires_grad_(True)
    out = codec(source, "identity").x_hat
    assert out.max() == 1
    (out[:, 0] * (out[:, 0] == 1)).sum().backward()
    assert not source.grad.any()


def test_colours_there_and_back():
    image = load_images("bundled")[0][None]
    y, chroma = to_ycbcr(image)
    torch.testing.assert_close(to_rgb(y, chroma), image)
    assert chroma.abs().max() <= 0.5 and y.min() >= 0 and y.max() <= 1
    grey = torch.full((1, 3, 2, 2), 0.3)
    assert torch.equal(to_ycbcr(grey)[1].abs() < 1e-6, torch.ones(1, 2, 2, 2, dtype=torch.bool))


def test_luma_alone_is_grey_and_colour_s_luma(folder, x):
    luma = load_codec("jpegai-vm33-luma", device="cpu").reconstruct(x)
    assert torch.equal(luma[:, 0], luma[:, 1]) and torch.equal(luma[:, 0], luma[:, 2])
    out = load_codec("jpegai-vm33", device="cpu").reconstruct(x)
    inside = ((out > 0) & (out < 1)).all(1)
    torch.testing.assert_close(to_ycbcr(out)[0][:, 0][inside], luma[:, 0][inside], atol=1e-5, rtol=0)


def test_the_quick_twin_is_nearly_the_codec(codec, x):
    assert codec.quick("float32") is codec
    twin = codec.quick("bfloat16")
    difference = (twin.reconstruct(x, "identity") - codec.reconstruct(x, "identity")).abs().mean()
    assert 0 < difference < 0.02 and codec.quick("float32") is codec


# ----------------------------------------------------------------------------------------------------------- attacks
@pytest.mark.parametrize(
    "attack", [attacks.PGD(EPS, steps=4), Continuation(EPS, steps=4), attacks.PGD(EPS, steps=4, precision="bfloat16")]
)
def test_attacks_run_beat_noise_and_are_reported(codec, x, attack):
    result, noise = attack(codec, x), attacks.RandomNoise(EPS, kind="sign")(codec, x)
    assert result.objective.mean() > noise.objective.mean() and result.linf.max() <= EPS + 1e-6
    assert torch.equal(result.x_adv, to_8bit(result.x_adv))
    table = metrics.before_after(codec, x, result.x_adv, real_rate=False)
    assert len(table) == len(x) and table.psnr_recon.notna().all() and set(table.weights) == {"jpegai"}
    assert "bpp_clean" not in table


# ------------------------------------------------------------------------------------------------ no stream, no rate
@pytest.mark.parametrize(
    "call",
    [
        lambda c, x: c.encode(x),
        lambda c, x: c.decode([b"x"]),
        lambda c, x: c.roundtrip(x),
        lambda c, x: c.estimated_bpp(x),
        lambda c, x: c(x).bpp,
        lambda c, x: metrics.before_after(c, x, x),
        lambda c, x: metrics.quality_table(c, x),
        lambda c, x: attacks.PGD(EPS, steps=1)(c, x, Rate()),
    ],
)
def test_why_there_is_no_stream_and_no_rate_is_said(codec, x, call):
    with pytest.raises(TypeError, match="context model, gain units, quantiser tables and entropy coder"):
        call(codec, x)


def test_there_are_no_bits_and_nothing_to_weigh_them_by(codec, x):
    assert codec(x, rate=True).bits == {} and codec(x, rate=False).pixels == 64 * 64
    with pytest.raises(ValueError, match="has no λ"):
        attacks.PGD(EPS, steps=1)(codec, x, Joint(1, 1))


def test_where_the_files_come_from_is_documented():
    for page in ("README.md", "data/README.md", "nic_helpers/settings.py"):
        assert "NIC_JPEGAI_DIR" in (PROJECT / page).read_text(encoding="utf-8"), page
    assert "SmartHarmony/JPEG-AI-OPT" in (PROJECT / "data" / "README.md").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------- the real files
@pytest.mark.skipif(not FOLDER, reason="NIC_JPEGAI_DIR is not set: JPEG AI's networks are not in this repository")
def test_the_real_networks():
    images = torch.stack([im[:, :128, :128] for im in load_images("bundled")[:3]])
    codec, luma = load_codec("jpegai-vm33", device="cpu"), load_codec("jpegai-vm33-luma", device="cpu")
    clean = codec.reconstruct(images)
    grey = to_8bit(to_ycbcr(images)[0].expand(-1, 3, -1, -1))
    assert metrics.psnr(images, clean).min() > 20 and metrics.psnr(grey, luma.reconstruct(grey)).min() > 20
    true, found = to_ycbcr(images)[1], to_ycbcr(clean)[1]
    assert (true - found).pow(2).mean() < 0.4 * (true - true.mean((2, 3), keepdim=True)).pow(2).mean()
    listed = hashlib.sha256("".join(f"{d}  {n}.onnx\n" for n, d in sorted(jpegai.SHA256.items())).encode())
    assert codec.weights.sha256 == listed.hexdigest()
    result = attacks.PGD(4 / 255, steps=5)(codec, images)
    noise = attacks.RandomNoise(4 / 255, kind="sign")(codec, images)
    assert (result.objective > 4 * noise.objective).all()  # amplified, where noise is damped
