"""Song's and Cai's codecs: the published sizes and files, the quality map, and a network that runs backwards."""

import copy
import hashlib
import os
from pathlib import Path

import pytest
import torch
from conftest import untrained

from nic_helpers import attacks, load_codec
from nic_helpers.codecs import cai2022, song2021
from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.authors import renamed
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.cai2022 import Cai2022, Coupling, InvertibleConv, Squeeze
from nic_helpers.codecs.song2021 import Song2021
from nic_helpers.objectives import Joint, Rate

VARIABLE = pytest.mark.parametrize("arch", [Song2021, Cai2022], ids=lambda a: a.name)
#: Values of all parameters, entries of the state dict, and the SHA-256 of its sorted lines "name shape".
PUBLISHED = {
    "song2021": (27_574_979, 327, "b9a0e51e62a46f688ee91cf75f1ca060d8115815e9983bbe3bbaca4cfbd06d65"),
    "cai2022": (49_570_114, 448, "296925aabb34a0593110f034d9f5406adfd4e86114e93b44b33ef67d87112ff6"),
}
#: From this package's names to those in the authors' files.
THEIRS = {
    "song2021": (
        (r"^(g_a|h_a|g_s)\.(\d+)\.", r"\1\2."),
        (r"^prior\.", "qmap_feature_gs0."),
        (r"^condition_s\.", "qmap_feature_gs"),
        (r"^condition_a\.", "qmap_feature_"),
        (r"\.(matrices|biases|factors)\.", r"._\1."),
    ),
    "cai2022": (
        (r"^g_a\.0\.", "enh.forw_enh."),
        (r"^g_s\.4\.", "enh.back_enh."),
        (r"^g_a\.(\d)\.operations\.", r"inv.operations\1."),
        (r"^g_a\.(\d)\.affine\.", r"inv.SFTlevel_\1."),
        (r"\.(matri|bias|factor)(ces|es|s)\.(\d)$", r"._\1\3"),
        (r"_matri(\d)$", r"_matrix\1"),
    ),
}


def listing(shapes):
    """One line for each entry of a state dict, sorted."""
    return "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))


# -------------------------------------------------------------------------------------------------- what was published
@VARIABLE
def test_the_published_size_has_the_published_parameters_by_name_and_shape(arch):
    model = arch.build(*arch.published_widths[3])
    state = model.state_dict()
    own = listing({name: "x".join(map(str, v.shape)) for name, v in state.items()})
    values, entries, digest = PUBLISHED[arch.name]
    assert sum(p.numel() for p in model.parameters()) == values and len(state) == entries
    assert hashlib.sha256(own.encode()).hexdigest() == digest
    assert arch.widths_of(state)[:2] == arch.published_widths[3]
    folder = os.environ.get("NIC_ARCHITECTURES_DIR")
    if folder:  # with the listings of the authors' own classes
        lines = (Path(folder) / "keys" / f"{arch.name}.tsv").read_text().splitlines()
        theirs = dict(line.split("\t")[:2] for line in lines if not line.startswith("#"))
        today = renamed(theirs, ((r"\._(matrices|biases|factors)\.", r".\1."),))
        assert listing(arch.from_authors(today)) == own


def authors_file(path, arch, **more):
    """An untrained codec in the form in which the authors save theirs, for ``load_codec``."""
    state = renamed(untrained(arch.name).model.state_dict(), THEIRS[arch.name]) | more
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "step": 3}, path)
    return f"authors:{path}"


@VARIABLE
def test_the_authors_files_load_under_their_own_names_or_say_what_does_not_fit(arch, tmp_path, monkeypatch, x):
    codec = untrained(arch.name)
    weights = authors_file(tmp_path / "a.pth.tar", arch)
    monkeypatch.setattr(arch, "published_widths", {3: arch.widths_of(codec.model.state_dict())})
    loaded = load_codec(arch.name, 3, weights, device="cpu")
    assert loaded.weights.source == "authors" and loaded.lmbda == LAMBDAS[3]
    assert torch.equal(loaded.reconstruct(x[:1]), codec.reconstruct(x[:1]))
    stale = authors_file(tmp_path / "b.pth.tar", arch, **{"h_s.9.weight": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match=r"h_s.9.weight is 3×2 in the file and missing in the model\. Take"):
        load_codec(arch.name, 3, stale)
    monkeypatch.setattr(arch, "published_widths", {3: (24, *arch.widths_of(codec.model.state_dict())[1:])})
    with pytest.raises(ValueError, match=r"in the file and \S+ in the model \(and \d+ more\)"):
        load_codec(arch.name, 3, weights)


def test_the_qualities_stand_for_the_levels_whose_lambda_is_compressai_s():
    for module, levels in (
        (song2021, (0.134, 0.286, 0.434, 0.585, 0.735, 0.885)),
        (cai2022, (0.093, 0.244, 0.392, 0.544, 0.693, 0.843)),
    ):
        assert [round(module.level_of(LAMBDAS[q]), 3) for q in range(1, 7)] == list(levels)
    torch.testing.assert_close(song2021.lambda_of(torch.tensor([0.0, 1.0])), torch.tensor([0.001, 0.080]), atol=1e-4, rtol=0)


@VARIABLE
def test_qualities_differ_and_one_must_be_known(arch, x):
    codec = untrained(arch.name)
    other = copy.copy(codec)
    other.quality, other.arch = 4, arch(codec.model, 4)
    stream = other.encode(x[:1])[0]
    assert not torch.equal(other.latents(x[:1]), codec.latents(x[:1]))
    with pytest.raises(BitstreamError, match="quality"):
        codec.decode([stream])
    with pytest.raises(ValueError, match=f"{arch.name} needs to know which quality"):
        arch(codec.model).analysis(torch.rand(1, 3, 128, 128))


# ------------------------------------------------------------------------------------------------------ the quality map
@pytest.fixture
def song():
    """An untrained codec of Song's."""
    return untrained("song2021")


def test_a_uniform_map_is_the_quality_of_its_level(song, x):
    uniform = torch.full((64, 64), song2021.level_of(LAMBDAS[3]))
    for quality_map in (uniform, uniform.double(), uniform.expand(3, 1, -1, -1)):
        assert song.with_map(quality_map).encode(x) == song.encode(x)


def test_a_map_asks_for_each_pixel_and_no_decoder_needs_it(song, x):
    odd, ramp = x[:2, :, :41, :23], torch.linspace(0, 1, 23).expand(41, 23)
    mapped = song.with_map(ramp)
    coded = mapped.roundtrip(odd)
    assert mapped.label == "song2021 q3, a map" and mapped.lmbda != mapped.lmbda
    assert not torch.equal(mapped.latents(odd), song.latents(odd))
    torch.testing.assert_close(song.decode(coded.streams), coded.x_hat, atol=1e-5, rtol=0)
    own = torch.stack((ramp, ramp.flip(1)))[:, None]
    together = song.with_map(own).encode(odd)
    assert together == [song.with_map(m[0]).encode(image[None])[0] for m, image in zip(own, odd, strict=True)]
    found = attacks.PGD(8 / 255, steps=1, precision="bfloat16")(mapped, odd[:1], Rate())
    assert found.objective.isfinite().all()
    with pytest.raises(ValueError, match="λ"):
        attacks.PGD(8 / 255, steps=1)(mapped, odd[:1], Joint(1, 1))


def test_what_is_no_map_of_the_images_is_refused(song, x):
    for bad, says in (
        (torch.rand(3, 64, 64), r"a quality map is \[H, W\], or \[B, 1, H, W\] with a map for each image, got \(3, 64, 64\)"),
        (torch.full((64, 64), 1.5), r"lies in \[0, 1\].*from 1.5 to 1.5"),
        (torch.full((64, 64), torch.nan), r"lies in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=says):
            song.with_map(bad)
    with pytest.raises(TypeError, match=r"a quality map is a tensor .* got NoneType"):
        song.with_map(None)
    for bad in (torch.rand(64, 65), torch.rand(2, 1, 64, 64)):
        with pytest.raises(ValueError, match=r"does not fit images \(3, 3, 64, 64\): it needs their height and width"):
            song.with_map(bad).encode(x)
    with pytest.raises(TypeError, match="cai2022 takes no quality map: song2021 does"):
        untrained("cai2022").with_map(torch.rand(64, 64))


# ------------------------------------------------------------------------------------------------- invertible networks
def test_a_square_s_positions_become_channels_position_after_position():
    v = torch.arange(2 * 4).reshape(1, 2, 2, 2)  # channels 0–3 and 4–7
    assert Squeeze()(v).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert torch.equal(Squeeze().inverse(Squeeze()(v)), v)


def test_a_level_backwards_undoes_it_but_for_the_means_of_the_last():
    model = copy.deepcopy(untrained("cai2022").model)
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, (Coupling, InvertibleConv)):
                for p in m.parameters():
                    p.add_(0.1 / p.size(0) ** 0.5 * torch.randn_like(p))
        v = before = torch.randn(2, 3, 32, 32)
        for level in model.g_a[1:4]:
            v = level(v, 0.3)
        for operation in model.g_a[4].operations:
            v = operation(v)
        for operation in reversed(model.g_a[4].operations):
            v = operation.inverse(v)
        for level in model.g_s[1:4]:
            v = level(v, 0.3)
        torch.testing.assert_close(v, before, atol=1e-4, rtol=0)
        y = model.g_a[4](torch.randn(1, 192, 4, 4), 0.3)
        torch.testing.assert_close(model.g_a[4](model.g_s[0](y, 0.3), 0.3), y, atol=1e-4, rtol=1e-4)


def test_a_matrix_is_inverted_once_for_its_values():
    layer = InvertibleConv(12).requires_grad_(False)
    v = torch.randn(1, 12, 4, 4)
    with torch.inference_mode():
        layer.inverse(layer(v))
    kept = layer._kept[1]
    torch.testing.assert_close(layer.inverse(layer(v.requires_grad_(True))), v, atol=1e-5, rtol=0)
    assert layer._kept[1] is kept
    layer.weight.mul_(2)
    torch.testing.assert_close(layer.inverse(layer(v)), v, atol=1e-5, rtol=0)
    layer.requires_grad_(True).inverse(v).sum().backward()
    assert layer.weight.grad.abs().max() > 0


# ------------------------------------------------------------------------------------------------- values that overflow
def test_a_synthesis_that_overflows_is_named_and_its_values_are_not_replaced(song, x):
    """Every stage multiplies by features that grow with the latents: large enough ones end as infinite values, and these as NaN."""
    far = with_a_model_of_its_own(song)
    with torch.no_grad():
        for k in (2, 5, 8, 11):
            far.model.g_s[k].weight.mul_(1e6)
    with pytest.warns(
        UserWarning, match=r"image\(s\) \[0, 1, 2\] of the batch: the synthesis of song2021 gave values that are not"
    ):
        x_hat = far.reconstruct(x)
    assert x_hat.isnan().any()


def with_a_model_of_its_own(song):
    """A copy whose networks may be changed."""
    other = copy.copy(song)
    other.model = copy.deepcopy(song.model)
    other.arch = other._differentiated = Song2021(other.model, 3)
    return other


def test_an_attack_on_a_network_that_gives_nan_stops_there_and_keeps_the_best_so_far(song, x):
    broken, calls = with_a_model_of_its_own(song), []

    def spoil(module, inputs, out):
        calls.append(len(out))
        return out if len(calls) < 4 else torch.cat((out[:1], out[1:] * torch.nan))

    broken.model.g_s[14].register_forward_hook(spoil)
    attack = attacks.PGD(8 / 255, steps=6)
    with pytest.warns(UserWarning, match=r"image\(s\) \[1\] of the batch: the objective or its gradient is not finite"):
        found = attack(broken, x[:2])
    assert found.x_adv.isfinite().all() and found.objective.isfinite().all()
    assert found.linf[1] > 0 and found.objective[1] > 0  # what it had found by then
