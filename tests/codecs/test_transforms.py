import pytest
import torch
from blocks import Blocks
from torch import nn

from nic_helpers import attacks
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.transforms import OnnxCodec, TransformCodec
from nic_helpers.objectives import Rate


@pytest.fixture(scope="module")
def blocks():
    return Blocks(step=1 / 16, multiple=4, device="cpu")


def test_files_decode_to_what_is_attacked_at_any_size(blocks, x):
    for images in (x, x[..., :61, :50]):
        streams = blocks.encode(images)
        assert torch.equal(blocks.decode(streams), blocks.reconstruct(images))
    real, estimated = 8 * len(blocks.encode(x[:1])[0]), float(blocks(x[:1]).bits["y"])
    assert 0.5 < real / estimated < 2


def test_damaged_files_and_large_claims_are_refused(blocks, x):
    (stream,) = blocks.encode(x[:1])
    for bad in (b"", stream[:-1], stream[:20] + b"\x00" + stream[21:]):
        with pytest.raises(BitstreamError):
            blocks.decode([bad])
    with pytest.raises(BitstreamError, match="most_pixels"):
        blocks.decode([stream], most_pixels=100)


def test_attacks_work_through_every_surrogate(blocks, x):
    found = attacks.PGD(8 / 255, steps=3)(blocks, x)
    assert found.objective.min() > 0
    larger = attacks.PGD(8 / 255, steps=3)(blocks, x, Rate())
    assert (larger.objective > blocks.estimated_bpp(x, None)).all()


def test_bad_settings_are_refused():
    for bad in ({"step": 0}, {"step": float("nan")}, {"multiple": 0}):
        with pytest.raises(ValueError):
            Blocks(**bad)
    with pytest.raises(TypeError, match="analysis"):
        TransformCodec()(torch.rand(1, 3, 32, 32))


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_onnx_files_is_a_codec(tmp_path, x):
    pytest.importorskip("onnx2torch")
    with pytest.raises(FileNotFoundError, match=r"analysis\.onnx"):
        OnnxCodec(tmp_path)
    torch.manual_seed(0)
    down, up = nn.Conv2d(3, 12, 4, 4), nn.ConvTranspose2d(12, 3, 4, 4)
    free = {"dynamic_axes": {"v": {0: "n", 2: "h", 3: "w"}}, "input_names": ["v"], "dynamo": False}
    torch.onnx.export(down, (torch.rand(1, 3, 16, 16),), str(tmp_path / "analysis.onnx"), **free)
    torch.onnx.export(up, (torch.rand(1, 12, 4, 4),), str(tmp_path / "synthesis.onnx"), **free)
    codec = OnnxCodec(tmp_path, step=0.1, multiple=4, device="cpu")
    y = (down(x) / 0.1).round() * 0.1
    torch.testing.assert_close(codec.reconstruct(x), up(y).clamp(0, 1).detach(), atol=1e-5, rtol=0)
    assert attacks.PGD(8 / 255, steps=2)(codec, x).objective.min() > 0
    assert len(codec.weights.sha256) == 64
    (tmp_path / "synthesis.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="onnx2torch"):
        OnnxCodec(tmp_path)
