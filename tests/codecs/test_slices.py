"""The codecs with a channel-wise entropy model: their sizes against the published ones, their attention, their streams' order."""

import hashlib
import math
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import WIDTHS, untrained
from torchvision.models.swin_transformer import SwinTransformerBlock

from nic_helpers import analysis, load_codec
from nic_helpers.codecs.authors import misfits, renamed
from nic_helpers.codecs.checkpoints import learnt, read_weights, save_weights
from nic_helpers.codecs.liu2023 import Tcm
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.slices import Slices
from nic_helpers.codecs.windows import SwinBlock
from nic_helpers.codecs.zou2022 import Stf, Wacnn

KINDS = {name: kind for name, kind in ARCHITECTURES.items() if issubclass(kind, Slices)}
MIDDLE, LARGE = ((n, *Tcm.published_widths[3][1:]) for n in (96, 128))
#: Published state dicts: the file of their names and shapes under NIC_ARCHITECTURES_DIR/keys, the codec, its widths, how many values its
#: parameters have, and the hash of those names and shapes, each under this package's name, sorted (:func:`listing`).
PUBLISHED = [
    (
        "zou2022_wacnn",
        Wacnn,
        Wacnn.published_widths[3],
        75_235_779,
        "2be7a393ad69633403d73a0ed56bbe4d7ef84a06b4e21969c93244a44a20635c",
    ),
    ("zou2022_stf", Stf, Stf.published_widths[3], 99_855_639, "b3526b48f41f99c567b276287a300772aaeb771f14678ee7a198d6d63a6b9828"),
    (
        "liu2023_tcm_N64",
        Tcm,
        Tcm.published_widths[3],
        45_180_752,
        "84b1c9ebece7e34be2c04f170cbf412c5aea98eb6b83e5bc38b06342167b1fd2",
    ),
    ("liu2023_tcm_N96", Tcm, MIDDLE, 59_133_650, "8797ff023b9f8deee685cf3b6d0d7e57b7de82710c4014a0016fecfe92c6541a"),
    ("liu2023_tcm_N128", Tcm, LARGE, 76_568_148, "0ef4a4a07eb1fdd3e4df6c0dc0193637c98c56d6959950b2fcafaaee4a8ba70c"),
]


def listing(state: dict[str, torch.Tensor]) -> str:
    """The SHA-256 of the lines "name shape" of parameters in the order of their names."""
    lines = sorted(f"{k} {'x'.join(map(str, v.shape))}" for k, v in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture
def unfilled():
    """Models whose parameters are not drawn: for their shapes alone."""
    with mock.patch.multiple(torch.nn.init, kaiming_uniform_=mock.DEFAULT, uniform_=mock.DEFAULT, trunc_normal_=mock.DEFAULT):
        yield


@pytest.mark.parametrize("file, kind, widths, values, digest", PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_the_published_models_have_the_published_names_and_shapes(file, kind, widths, values, digest, unfilled):
    parameters = dict(kind.build(*widths).named_parameters())
    assert sum(p.numel() for p in parameters.values()) == values
    assert listing(parameters) == digest
    assert kind.widths_of(parameters) == widths and len(kind.width_names) == len(widths)
    if "NIC_ARCHITECTURES_DIR" in os.environ:
        path = Path(os.environ["NIC_ARCHITECTURES_DIR"]) / "keys" / f"{file}.tsv"
        rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
        theirs = {k: torch.zeros(()).expand([int(side) for side in shape.split("x")]) for k, shape, _ in rows}
        theirs = kind.from_authors(learnt(theirs, path))
        assert misfits(kind, theirs, widths) == [] and listing(theirs) == digest


#: This package's names, as the authors' code has them.
THEIRS = {
    "zou2022-wacnn": (),
    "zou2022-stf": (
        *((r"mlp\.0\.", "mlp.fc1."), (r"mlp\.2\.", "mlp.fc2."), (r"^g_a\.0\.", "patch_embed.")),
        *((rf"^g_a\.{2 * k + 1}\.", f"layers.{k}.blocks.") for k in range(4)),
        *((rf"^g_a\.{2 * k + 2}\.", f"layers.{k}.downsample.") for k in range(3)),
        *((r"^g_s\.7\.", "end_conv.0."), (r"^g_s\.9\.", "end_conv.2.")),
        *((rf"^g_s\.{2 * k}\.", f"syn_layers.{k}.blocks.") for k in range(4)),
        *((rf"^g_s\.{2 * k + 1}\.", f"syn_layers.{k}.downsample.") for k in range(3)),
    ),
    "liu2023": (
        *((r"norm1\.", "ln1."), (r"norm2\.", "ln2."), (r"attn\.qkv\.", "msa.embedding_layer."), (r"attn\.proj\.", "msa.linear.")),
        *((r"non_local_block\.1\.", "non_local_block.block_2."), (r"non_local_block\.0\.", "non_local_block.block_1.")),
        (r"attn\.relative_position_bias_table$", "msa.relative_position_params"),
    ),
}


def published(arch: str) -> dict[str, torch.Tensor]:
    """The untrained codec's parameters as the authors' files have them, with what else lies in those of Zou's."""
    state = renamed(untrained(arch).model.state_dict(), THEIRS[arch])
    if arch != "liu2023":
        attention = "g_a.4.conv_b.0" if arch == "zou2022-wacnn" else "layers.0.blocks.0"
        state |= {f"{attention}.attn.relative_position_index": torch.zeros(16, 16), "h_s.0.weight": torch.zeros(3)}
    for k, v in state.items():
        if k.endswith("relative_position_params"):
            state[k] = v.T.unflatten(1, (math.isqrt(len(v)), -1))
    return {f"module.{k}": v for k, v in state.items()}


@pytest.mark.parametrize("arch", KINDS)
def test_the_authors_files_load_and_code_alike(arch, tmp_path, monkeypatch, x):
    monkeypatch.setattr(KINDS[arch], "published_widths", {3: WIDTHS[arch]})
    monkeypatch.setattr(KINDS[arch], "authors_widths", ())
    torch.save({"state_dict": published(arch)}, tmp_path / "a.pth.tar")
    codec = load_codec(arch, 3, f"authors:{tmp_path / 'a.pth.tar'}", device="cpu")
    assert codec.weights.source == "authors" and codec.lmbda == 0.0067
    assert torch.equal(codec.reconstruct(x[:1]), untrained(arch).reconstruct(x[:1]))


@pytest.mark.parametrize("side, window, shift", [((16, 24), 4, 2), ((13, 22), 4, 2), ((16, 16), 8, 4), ((8, 8), 8, 0)])
def test_a_swin_block_is_torchvision_s(side, window, shift):
    torch.manual_seed(0)
    block = SwinBlock(12, 3, window, shift)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.5)
    theirs = SwinTransformerBlock(12, 3, [window, window], [shift, shift]).eval()
    theirs.load_state_dict({k.replace("mlp.2", "mlp.3"): v for k, v in block.state_dict().items()}, strict=False)
    v = torch.randn(2, *side, 12)
    torch.testing.assert_close(block(v), theirs(v), atol=1e-5, rtol=1e-5)


def test_the_shift_stays_where_a_side_has_one_window():
    """Then positions see those of their own quarter alone."""
    block = SwinBlock(4, 2, 4, 2)
    v = torch.randn(1, 4, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(block(v)[0, 0, 0].sum(), v)
    seen = slope[0].abs().sum(-1) > 1e-12
    assert bool(seen[:2, :2].all()) and int(seen.sum()) == 4


@pytest.mark.parametrize("arch", KINDS)
def test_the_first_slices_alone_are_what_later_ones_are_predicted_from(arch, x):
    codec = untrained(arch)
    taps = codec.walk(x[:1], None).taps
    c, slices = codec.model.M // 2, 2
    context = taps["context"]
    assert context.shape[1] == c and len(taps["samples"]) == slices
    assert taps["side"].shape[1] == 2 * codec.model.M
    only_means = codec.walk(
        x[:1], None, set_to={"side": lambda v: torch.cat((0 * v[:, : codec.model.M], v[:, codec.model.M :]), 1)}
    )
    other = codec.walk(x[:1], None, set_to={"side": lambda v: torch.cat((v[:, : codec.model.M], 0 * v[:, codec.model.M :]), 1)})
    whole = codec.walk(x[:1], None)
    assert torch.equal(only_means.scales[:, :c], whole.scales[:, :c]) and not torch.equal(only_means.means, whole.means)
    assert torch.equal(other.means[:, :c], whole.means[:, :c]) and not torch.equal(other.scales, whole.scales)


@pytest.mark.parametrize("arch", KINDS)
def test_layers_are_seen_and_weights_kept_in_half_precision(arch, tmp_path, x):
    codec = untrained(arch)
    layers = analysis.ldmr(codec, x[:1], (x[:1] + 0.02).clamp(0, 1))["layer"].tolist()
    parts = [f"{part}.{k}" for part in ("g_a", "g_s") for k, _ in getattr(codec.model, part).named_children()]
    assert sorted(layers) == sorted([*parts, "quantiser"])
    save_weights(tmp_path / "w.safetensors", codec.model.state_dict(), {"lmbda": "0.0067"})
    assert KINDS[arch].widths_of(read_weights(tmp_path / "w.safetensors").state) == WIDTHS[arch]


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="16 latent channels cannot be cut into 3 equal slices"):
        Wacnn.build(8, 16, 4, 3, 8)
    with pytest.raises(ValueError, match="12 channels cannot be shared by 8 heads"):
        Wacnn.build(12, 16, 4, 2, 8)
