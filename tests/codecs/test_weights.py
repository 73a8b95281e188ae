import argparse
import hashlib
import json
import math
import pickle
import re
import shutil
import traceback
from fractions import Fraction

import pytest
import torch
from conftest import untrained

from nic_helpers import load_codec, objectives
from nic_helpers.codecs import load, weights
from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.checkpoints import save_weights
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundle, checkpoints_dir, load_weights, manifest


def test_every_bundled_file_is_listed_with_its_hash_and_loads():
    files = {p.name for p in checkpoints_dir().glob("*.safetensors")}
    assert files == set(manifest())
    for entry in manifest().values():
        for quality in entry["qualities"]:
            loaded = load_weights(entry["arch"], quality)
            assert loaded.source == "bundled" and loaded.sha256 == entry["sha256"]
            assert loaded.lmbda == LAMBDAS[quality]


def test_bundled_weights_fit_their_size_limit():
    sizes = {p.name: p.stat().st_size for p in checkpoints_dir().glob("*.safetensors")}
    later = {name: size for name, size in sizes.items() if name.startswith(("zou2022", "liu2023", "song2021", "cai2022"))}
    assert sum(sizes.values()) - sum(later.values()) <= 48e6 and sum(later.values()) <= 30e6


@pytest.mark.parametrize("arch", ("bmshj2018-hyperprior-vbr", "mbt2018", "zou2022-wacnn"))
def test_each_part_is_kept_in_its_precision(arch, tmp_path):
    model, path = untrained(arch).model, tmp_path / "w.safetensors"
    save_weights(path, model.state_dict(), {"lmbda": "0.0067"})
    loaded = load_weights(arch, 3, path).state
    for name, value in model.named_parameters():
        if any(part in name for part in ("beta", "gamma", "entropy_bottleneck", "Gain", "QuantABCD", "gayn2zqstep")):
            assert torch.equal(loaded[name], value), name
        elif (name.startswith(("g_a", "g_s")) and ".conv_" not in name) or value.dim() == 1 or "position_bias" in name:
            assert torch.equal(loaded[name], value.half().float()), name
        else:
            if name == "context_prediction.weight":
                value = value * model.context_prediction.mask
            half_step = value.abs().flatten(1).amax(1) / 127 / 2
            assert bool(((loaded[name] - value).abs().flatten(1).amax(1) <= half_step * 1.001).all()), name


def test_saved_and_reloaded_codec_decodes_its_own_bytes(tmp_path, x):
    for arch in ARCHITECTURES:
        save_weights(tmp_path / "w.safetensors", untrained(arch).model.state_dict(), {})
        codec = load_codec(arch, 3, tmp_path / "w.safetensors", device="cpu")
        torch.testing.assert_close(codec.decode(codec.encode(x)), codec.reconstruct(x), atol=1e-5, rtol=0)


@pytest.fixture
def bundled_copy(tmp_path, monkeypatch):
    """A data folder of its own with one bundled file."""
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path))
    path = tmp_path / "checkpoints" / "bmshj2018-hyperprior-q3.safetensors"
    path.parent.mkdir()
    save_weights(path, untrained("bmshj2018-hyperprior").model.state_dict(), {"lmbda": "0.0067"})
    bundle(path, "bmshj2018-hyperprior", 3)
    return path


@pytest.mark.parametrize("name, quality", [("control/pca", 3), ("control/random", 4)])
def test_the_control_s_weights_have_names(name, quality, tmp_path, monkeypatch, x):
    shutil.copytree(checkpoints_dir() / "control", tmp_path / "checkpoints" / "control")
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path))
    codec = load_codec("bmshj2018-hyperprior", quality, name)
    assert codec.weights.source == name and codec.reconstruct(x[:1]).shape == x[:1].shape
    with pytest.raises(ValueError, match="of quality"):
        load_codec("bmshj2018-hyperprior", 1, name)
    (tmp_path / "checkpoints" / f"{name}.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"damaged .* git checkout"):
        load_codec("bmshj2018-hyperprior", quality, name)
    with pytest.raises(FileNotFoundError, match="'control/pca', 'control/random' or the path"):
        load_codec("bmshj2018-hyperprior", quality, "control/nobody")


def test_a_bundled_file_with_a_wrong_hash_is_refused(bundled_copy):
    content = bytearray(bundled_copy.read_bytes())
    content[-1] ^= 1
    bundled_copy.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="SHA-256"):
        load_weights("bmshj2018-hyperprior", 3)


def test_weights_of_the_random_start_family_begin_there(tmp_path, monkeypatch, x):
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "manifest.json").write_text("{}")
    arch, trained = "bmshj2018-hyperprior", tmp_path / "weights.safetensors"
    with pytest.raises(ValueError, match=r"no random-start weights for bmshj2018-hyperprior at quality 3 .*none yet"):
        load_codec(arch, 3, "random-start")
    for start in ("pca", "default"):
        card = {
            "arch": arch,
            "quality": "3",
            "lmbda": "0.0067",
            "stages": json.dumps([{"start": start}, {"start": "earlier"}]),
        }
        save_weights(trained, untrained(arch).model.state_dict(), card)
        if start == "pca":
            with pytest.raises(ValueError, match="random-start must begin from 'default' or 'random', these begin from 'pca'"):
                bundle(trained, arch, 3, "random-start")
    bundle(trained, arch, 3, "random-start")
    codec = load_codec(arch, 3, "random-start", device="cpu")
    assert codec.weights.source == "random-start" and load.available_qualities(arch, "random-start") == [3]
    assert codec.decode(codec.encode(x[:1])).shape == x[:1].shape
    stored = tmp_path / "checkpoints" / "random-start" / "bmshj2018-hyperprior-q3.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(ValueError, match="SHA-256"):
        load_codec(arch, 3, "random-start")


def test_missing_bundled_files_say_what_to_do(bundled_copy, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="weights='zoo'"):
        load_weights("bmshj2018-hyperprior", 4)
    with pytest.raises(ValueError, match="bundled codecs: bmshj2018-hyperprior"):
        load_weights("mbt2018", 3)
    bundled_copy.unlink()
    with pytest.raises(FileNotFoundError, match="git checkout"):
        load_weights("bmshj2018-hyperprior", 3)
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="NIC_DATA_DIR"):
        load_weights("bmshj2018-hyperprior", 3)


def test_files_that_hold_no_weights_are_refused_without_running_them(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    cases = {
        "a.pth": pickle.dumps(Evil()),
        "b.pth": b"",
        "c.pth": b"text",
        "d.safetensors": b"text",
        "e.safetensors": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_weights("bmshj2018-hyperprior", 3, tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError, match=r"'bundled', 'zoo'.* or the path"):
        load_weights("bmshj2018-hyperprior", 3, "zo")


def test_a_file_of_another_codec_or_quality_by_its_card_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, untrained("mbt2018").model.state_dict(), {"arch": "mbt2018", "quality": "3"})
    assert load_weights("mbt2018", 3, path).card["quality"] == "3"
    with pytest.raises(ValueError, match="quality 3, not 6"):
        load_weights("mbt2018", 6, path)
    with pytest.raises(ValueError, match="arch mbt2018, not mbt2018-mean"):
        load_weights("mbt2018-mean", 3, path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", untrained("bmshj2018-factorized").model.state_dict(), {})
    with pytest.raises(ValueError, match="does not fit"):
        load_codec("bmshj2018-hyperprior", 3, tmp_path / "w.safetensors")


# ------------------------------------------------------------------------------------------------- others' files
ARCH = "bmshj2018-hyperprior"


def state_of(arch=ARCH) -> dict:
    return dict(untrained(arch).model.state_dict())


def under(prefix: str) -> dict:
    return {f"{prefix}{k}": v for k, v in state_of().items()}


@pytest.mark.parametrize(
    "content",
    [
        state_of,
        lambda: {"epoch": 1, "state_dict": state_of()},
        lambda: {"network": state_of()},
        lambda: {"model_state_dict": state_of()},
        lambda: {"model": {"state_dict": state_of()}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        lambda: {"state_dict": under("module.")},
        lambda: under("_orig_mod."),
        lambda: under("_orig_mod.module."),
        lambda: {"state_dict": under("model.") | {"criterion.weight": torch.ones(3)}},
        lambda: {"params": under("net.codec.")},
        lambda: under("module.") | {"n_averaged": torch.tensor(5)},
        lambda: {"ema_state_dict": state_of()},
        lambda: {k.replace("g_a.", "g_a.module.").replace("h_s.", "h_s._orig_mod."): v for k, v in state_of().items()},
        lambda: {"state_dict": state_of(), "args": argparse.Namespace(lmbda=0.01, dataset="photos")},
    ],
)
def test_checkpoints_are_taken_as_trainers_leave_them(content, tmp_path):
    torch.save(content(), tmp_path / "own.pth.tar")
    loaded = load_weights(ARCH, 3, tmp_path / "own.pth.tar", lmbda=0.01).state
    assert all(torch.equal(loaded[k], v) for k, v in untrained(ARCH).model.named_parameters())


@pytest.mark.parametrize("pair", [("state_dict", "ema_state_dict"), ("ema_model", "online_model"), ("model_ema", "model")])
def test_of_several_sets_of_weights_the_plain_one_is_taken_and_said(pair, tmp_path):
    average = {k: 0 * v if v.is_floating_point() else v for k, v in state_of().items()}
    sets = {name: average if "ema" in name else state_of() for name in pair}
    nested, flat = sets, {f"{name}.{k}": v for name, state in sets.items() for k, v in state.items()}
    for content in (nested, flat):
        torch.save(content, tmp_path / "own.pth")
        with pytest.warns(UserWarning, match=f"2 sets of weights .*: {min(pair, key=lambda n: 'ema' in n)} is taken"):
            loaded = load_weights(ARCH, 3, tmp_path / "own.pth", lmbda=0.01).state
        assert torch.equal(loaded["g_a.0.weight"], state_of()["g_a.0.weight"])


@pytest.mark.parametrize(
    "content, says",
    [
        ({"optimizer": {"lr": 1}, "epoch": 3}, "no g_a.0.weight, its keys are optimizer, epoch"),
        ([1, 2], "it is a list"),
        ({"encoder.0.weight": torch.ones(2)}, "its keys are encoder.0.weight"),
        (torch.ones(2), "it is a Tensor"),
        ({"best": Fraction(1, 3)}, r"Python object \(fractions.Fraction\).* save the tensors alone"),
        (torch.nn.ReLU(), "Python object"),
    ],
)
def test_what_holds_no_weights_is_told_what_was_found_and_never_to_load_unsafely(content, says, tmp_path):
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=says) as caught:
        load_codec(ARCH, 3, tmp_path / "own.pth")
    assert "weights_only" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_pointers_and_web_pages_are_known_as_such(suffix, tmp_path):
    for content, says in (
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04 cut off", "damaged|no whole"),
    ):
        (tmp_path / f"own.{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=says) as caught:
            load_weights(ARCH, 3, tmp_path / f"own.{suffix}")
        assert "weights_only" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value, tmp_path):
    state = {k: v.clone() for k, v in state_of().items()}
    state["h_a.2.weight"][0, 0, 1, 1] = value
    torch.save(state, tmp_path / "own.pth")
    save_weights(tmp_path / "own.safetensors", state_of() | {"g_s.0.bias": torch.full_like(state["g_s.0.bias"], value)}, {})
    for file, name in (("own.pth", "1 of the .* h_a.2.weight"), ("own.safetensors", "g_s.0.bias")):
        with pytest.raises(ValueError, match=f"{name} are NaN or infinite"):
            load_weights(ARCH, 3, tmp_path / file)


def test_the_lambda_of_a_file_is_what_it_or_the_caller_says_never_what_the_quality_would_be(tmp_path, x):
    path, told = tmp_path / "own.pth.tar", tmp_path / "own.safetensors"
    torch.save(state_of(), path)
    with pytest.warns(UserWarning, match=r"own.pth.tar does not say which λ .* lmbda="):
        codec = load_codec(ARCH, 3, path, device="cpu")
    assert math.isnan(codec.lmbda)
    with pytest.raises(ValueError, match=r"has no λ .*lmbda="):
        objectives.Joint.at(45).bind(codec, x, None)
    assert load_codec(ARCH, 3, path, lmbda=0.01).lmbda == 0.01
    assert math.isnan(load_codec(ARCH, 3, path, metric="ms-ssim").lmbda)
    save_weights(told, state_of(), {"lmbda": "0.02"})
    assert load_codec(ARCH, 3, told).lmbda == load_codec(ARCH, 3, told, lmbda=0.02).lmbda == 0.02
    for source, given, says in (
        (told, {"lmbda": 0.01}, "λ = 0.02, not 0.01"),
        ("bundled", {"lmbda": 0.01}, "λ = 0.0067, not 0.01"),
        ("bundled", {"metric": "ms-ssim"}, "trained for mse, not ms-ssim"),
        (path, {"lmbda": -1}, "positive number"),
        (path, {"lmbda": "0.01"}, "positive number"),
        (path, {"metric": "psnr"}, "mse, ms-ssim"),
        (path, {"metric": "ms-ssim", "lmbda": 8.73}, "leave it out"),
    ):
        with pytest.raises(ValueError, match=says):
            load_codec(ARCH, 3, source, **given)
    with pytest.raises(ValueError, match="1 to 255"):
        load_codec(ARCH, 999, path)
    with pytest.raises(ValueError, match="was not trained"):
        load_codec("jpeg", 30, lmbda=0.01)
    for wrong in (state_of(), None):
        with pytest.raises(TypeError, match="path of a file"):
            load_codec(ARCH, 3, wrong)
    with pytest.raises(TypeError, match="a codec's name, got NeuralCodec: there are"):
        load_codec(codec, 3)


def test_a_name_of_the_zoo_s_form_is_held_to_what_it_says(tmp_path, monkeypatch):
    torch.save(state_of(), tmp_path / "file")
    digest = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()[:8]

    def load(name, quality=3, **said):
        path = tmp_path / name
        shutil.copyfile(tmp_path / "file", path)
        return load_codec(ARCH, quality, path, device="cpu", **said)

    for name in (f"{ARCH}-3-{'0' * 8}.pth.tar", "checkpoint_best-12345678.pth.tar", "mine-deadbeef.pth"):
        with pytest.raises(ValueError, match=r"SHA-256 begins .* rename it"):
            load(name)
    assert load("mine-20240131.pth", lmbda=0.01).lmbda == 0.01  # a date
    for name, quality, said, says in (
        (f"{ARCH}-3-{digest}.pth.tar", 5, {}, "by its name, .* quality 3, not 5"),
        (f"{ARCH}-q3.pth", 5, {}, "quality 3, not 5"),
        (f"mbt2018-mean-3-{digest}.pth.tar", 3, {}, f"arch mbt2018-mean, not {ARCH}"),
        (f"{ARCH}-mse-vbr-{digest}.pth.tar", 3, {}, f"arch {ARCH}-vbr, not"),
        (f"{ARCH}-ms-ssim-3-{digest}.pth.tar", 3, {"metric": "mse"}, "metric ms-ssim, not mse"),
    ):
        with pytest.raises(ValueError, match=says):
            load(name, quality, **said)
    structural = load(f"{ARCH}-ms-ssim-3-{digest}.pth.tar")
    assert structural.weights.metric == "ms-ssim" and math.isnan(structural.lmbda)
    assert load(f"{ARCH}-3-{digest}.pth.tar", lmbda=0.01).lmbda == 0.01  # somebody's own
    # the zoo's own files are known by their hash, whatever their name
    zoo = {
        "mse": {3: f"https://zoo/{ARCH}-3-{digest}.pth.tar"},
        "ms-ssim": {3: f"https://zoo/{ARCH}-ms-ssim-3-00000000.pth.tar"},
    }
    monkeypatch.setattr(weights, "model_urls", {ARCH: zoo})
    assert load("renamed.pth").lmbda == LAMBDAS[3]
    with pytest.raises(ValueError, match=r"by its hash, .* quality 3, not 5"):
        load("renamed.pth", 5)
    monkeypatch.setattr(weights, "model_urls", {ARCH: {"mse": {}, "ms-ssim": {3: zoo["mse"][3]}}})
    assert math.isnan(load("renamed.pth").lmbda)


# -------------------------------------------------------------------------------------------------------- the zoo
IN_ZOO = [name for name in ARCHITECTURES if weights.in_zoo(name)]


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A served folder with files of the zoo's form and names: old key spelling, DataParallel prefix, CDF buffers."""
    served = tmp_path / "served"
    served.mkdir()
    urls = {}
    for arch in IN_ZOO:
        form = ARCHITECTURES[arch]
        real = weights.variable_rate_urls[arch]["mse"] if form.variable else weights.model_urls[arch]["mse"]
        state = {}
        for key, value in untrained(arch).model.state_dict().items():
            for new, old in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
                key = key.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
            state[f"module.{key}"] = value
        torch.save(state, served / "file")
        digest = hashlib.sha256((served / "file").read_bytes()).hexdigest()[:8]
        named = {
            q: re.sub(r"-[0-9a-f]{8}\.pth", f"-{digest}.pth", url)
            for q, url in (real.items() if isinstance(real, dict) else ((1, real),))
        }
        assert all(url.startswith(weights.ZOO_URL) for url in named.values())
        for url in named.values():
            shutil.copyfile(served / "file", served / url.rsplit("/", 1)[1])
        urls[arch] = {"mse": named[1] if form.variable else named}
        (served / "file").unlink()
    monkeypatch.setattr(weights, "model_urls", urls)
    monkeypatch.setattr(weights, "variable_rate_urls", urls)
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path / "data"))
    return served


@pytest.mark.parametrize("arch", IN_ZOO)
def test_the_zoo_s_files_of_every_codec_and_quality_load_through_the_real_path(arch, zoo, serve, monkeypatch, x):
    address = serve(zoo)
    for quality in ARCHITECTURES[arch].qualities:
        monkeypatch.setenv("NIC_ZOO_URL", address)
        codec = load_codec(arch, quality, weights="zoo", device="cpu")
        assert codec.weights.source == "zoo" and codec.lmbda == LAMBDAS[quality]
        monkeypatch.setenv("NIC_ZOO_URL", "http://127.0.0.1:9")  # the second load needs no network
        load_codec(arch, quality, weights="zoo", device="cpu")
        if quality == 3:
            torch.testing.assert_close(codec.reconstruct(x), untrained(arch).reconstruct(x), atol=1e-5, rtol=0)


def test_a_zoo_file_that_does_not_match_its_name_is_refused(zoo, serve, monkeypatch, tmp_path):
    for path in zoo.iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setenv("NIC_ZOO_URL", serve(zoo))
    with pytest.raises(ValueError, match="SHA-256"):
        load_codec("bmshj2018-hyperprior", 3, weights="zoo")
    assert not list((tmp_path / "data" / "zoo").glob("*"))


def test_without_network_the_zoo_says_what_to_do(zoo, closed_port, monkeypatch):
    monkeypatch.setenv("NIC_ZOO_URL", closed_port)
    with pytest.raises(ConnectionError, match="weights='bundled'"):
        load_codec("bmshj2018-hyperprior", 3, weights="zoo")
    with pytest.raises(ValueError, match="the zoo has no"):
        load_codec("bmshj2018-hyperprior", 9, weights="zoo")


def test_what_the_zoo_has_not_got_is_had_from_its_authors():
    for source in ("zoo", "bundled"):
        with pytest.raises(ValueError, match="weights='authors:PATH' takes what its authors published"):
            load_codec("zou2022-stf", 8, weights=source)


def test_the_manifest_is_plain_json(bundled_copy):
    entries = json.loads((bundled_copy.parent / "manifest.json").read_text())
    assert entries[bundled_copy.name]["sha256"] == hashlib.sha256(bundled_copy.read_bytes()).hexdigest()
