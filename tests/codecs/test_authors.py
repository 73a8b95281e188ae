"""Checkpoints in the form in which architectures' authors publish them."""

import pytest
import torch
from conftest import untrained

from nic_helpers import load_codec
from nic_helpers.codecs.authors import misfits, renamed
from nic_helpers.codecs.google import MeanScale
from nic_helpers.codecs.weights import load_weights

ARCH = "mbt2018-mean"  # stands for an architecture whose authors published a file of this one's size
SPELLINGS = {
    "today's": lambda kind, k: f"{kind}.{k}",
    "CompressAI 1.1's": lambda kind, k: {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}[kind] + k,
    "an old fork's": lambda kind, k: f"_{kind}.{k}",
}


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """The small untrained codec as what its authors published at quality 3, with a λ of their own."""
    monkeypatch.setattr(MeanScale, "authors_lambdas", {3: 0.005})
    monkeypatch.setattr(MeanScale, "published_widths", {3: (12, 16)})


def written(path, spell=SPELLINGS["today's"], place="state_dict", **more) -> str:
    """A checkpoint of the untrained codec as authors leave it: what load_codec takes for ``weights``."""
    state = {}
    for key, value in untrained(ARCH).model.state_dict().items():
        *before, kind, k = key.split(".")
        key = ".".join([*before, spell(kind, k)]) if kind in ("matrices", "biases", "factors") else key
        state[f"module.{key}"] = value
    torch.save({place: state | more, "epoch": 7, "optimizer": {"state": {0: {"step": torch.zeros(2)}}}}, path)
    return f"authors:{path}"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("place", ["state_dict", "model"])
def test_every_spelling_loads_and_codes_alike(spelling, place, tmp_path, x):
    codec = load_codec(ARCH, 3, written(tmp_path / "a.pth.tar", SPELLINGS[spelling], place), device="cpu")
    assert codec.weights.source == "authors" and codec.lmbda == 0.005
    assert torch.equal(codec.reconstruct(x[:1]), untrained(ARCH).reconstruct(x[:1]))


def test_the_lambda_is_the_authors_and_the_metric_the_caller_s(tmp_path):
    weights = written(tmp_path / "a.pth.tar")
    with pytest.raises(ValueError, match=r"trained with λ = 0.005, not 0.01"):
        load_weights(ARCH, 3, weights, lmbda=0.01)
    assert load_weights(ARCH, 3, weights, metric="ms-ssim").metric == "ms-ssim"
    with pytest.raises(ValueError, match=r"published no weights of quality 4: there are 3 \(λ = 0.005\)"):
        load_weights(ARCH, 4, weights)
    with pytest.raises(FileNotFoundError, match="after 'authors:' comes the path"):
        load_weights(ARCH, 3, "authors:nowhere")


def test_another_width_is_refused_with_the_key_and_both_shapes(tmp_path, monkeypatch):
    weights = written(tmp_path / "a.pth.tar")
    monkeypatch.setattr(MeanScale, "published_widths", {3: (14, 16)})
    with pytest.raises(
        ValueError,
        match=r"widths 14 16: entropy_bottleneck.quantiles is 12×1×3 in the file and 14×1×3 in the model \(and \d+ more\)\. Take",
    ):
        load_weights(ARCH, 3, weights)
    monkeypatch.setattr(MeanScale, "authors_widths", ((12, 16),))
    assert load_weights(ARCH, 3, weights).lmbda == 0.005


def test_stale_and_missing_parameters_are_named(tmp_path):
    weights = written(tmp_path / "a.pth.tar", **{"module.h_s.9.weight": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match=r"h_s.9.weight is 3×2 in the file and missing in the model\. Take"):
        load_weights(ARCH, 3, weights)
    state = dict(untrained(ARCH).model.named_parameters())
    del state["h_a.0.bias"]
    assert misfits(MeanScale, state, (12, 16)) == [("h_a.0.bias", "missing", "12")]


@pytest.mark.parametrize("content", [[1], {"state_dict": {"epoch": 3}}, {"args": 1}])
def test_a_file_without_parameters_says_what_it_holds(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no parameters under state_dict or model, only"):
        load_weights(ARCH, 3, f"authors:{tmp_path / 'a.pth'}")


def test_names_are_changed_and_left_out_by_rules():
    state = {"layers.0.fc1": 1, "layers.0.index": 2, "end": 3}
    assert renamed(state, ((r"\.index$", None), (r"^layers\.(\d)\.", r"g_a.\1."), (r"fc1$", "0"))) == {"g_a.0.0": 1, "end": 3}
