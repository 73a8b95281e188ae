import argparse
import csv
import dataclasses
import json
import multiprocessing
import os
import signal
import time

import pytest
import torch
from conftest import WIDTHS
from PIL import Image

from nic_helpers import load_codec, load_images
from nic_helpers.codecs.checkpoints import read_weights
from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.quantisers import add_noise, round_ste, round_true
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import load_weights
from nic_helpers.images import to_pil
from nic_helpers.training.centring import Centring
from nic_helpers.training.data import Crops
from nic_helpers.training.export import read_run
from nic_helpers.training.kinds import has_other_transforms
from nic_helpers.training.losses import rate_distortion_loss
from nic_helpers.training.run import learning_rate, train
from nic_helpers.training.settings import Settings, add_options, as_options, of_options
from nic_helpers.training.start import pca_initialise

SMALL = Settings("bmshj2018-hyperprior", 3, (8, 12), steps=12, batch=2, crop=64, bf16=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of training images: the bundled ones."""
    path = tmp_path_factory.mktemp("train")
    for k, image in enumerate(load_images("bundled")):
        to_pil(image).save(path / f"{k}.png")
    return path


def final(path):
    return torch.load(path, weights_only=True)["model"]


def test_an_interrupted_run_ends_exactly_like_an_undisturbed_one(folder, tmp_path):
    whole = final(train(SMALL, folder, tmp_path / "a", every=4))
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, folder, tmp_path / "b", every=4, on_step=interrupt_at(7))
    resumed = final(train(SMALL, folder, tmp_path / "b", every=4))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    rows = list(csv.DictReader((tmp_path / "b" / "log.csv").open()))
    assert [r["step"] for r in rows] == ["4", "8", "12"]


def test_a_centred_run_resumes_exactly_too(folder, tmp_path):
    settings = Settings("cheng2020-anchor", 3, (8, 8), steps=6, batch=1, crop=64, centred=True)
    whole = final(train(settings, folder, tmp_path / "a", every=2))
    with pytest.raises(KeyboardInterrupt):
        train(settings, folder, tmp_path / "b", every=2, on_step=interrupt_at(5))
    resumed = final(train(settings, folder, tmp_path / "b", every=2))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


@pytest.mark.parametrize("start", ["random", "default"])
def test_a_run_with_muon_resumes_exactly_too_and_says_where_it_began(start, folder, tmp_path):
    settings = dataclasses.replace(SMALL, start=start, optimiser="muon", channels_last=True, steps=6)
    whole = final(train(settings, folder, tmp_path / "a", every=2))
    with pytest.raises(KeyboardInterrupt):
        train(settings, folder, tmp_path / "b", every=2, on_step=interrupt_at(5))
    resumed = final(train(settings, folder, tmp_path / "b", every=2))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    (stage,) = json.loads(read_weights(tmp_path / "a" / "weights.safetensors").card["stages"])
    assert (stage["start"], stage["optimiser"]) == (start, "muon")


def test_the_default_start_is_compressai_s_own(folder, tmp_path):
    settings = dataclasses.replace(SMALL, start="default", steps=1, lr=1e-12, seed=3)
    trained = final(train(settings, folder, tmp_path))
    torch.manual_seed(3)
    own = ARCHITECTURES[SMALL.arch].build(*SMALL.widths).state_dict()
    assert all(torch.allclose(trained[k], own[k], atol=1e-6) for k in own if k.startswith(("g_a.", "h_s.")))


def test_a_centred_step_of_the_weights_leaves_a_mean_input_s_output_alone(folder):
    model = ARCHITECTURES["cheng2020-anchor"].build(8, 8)
    x = Crops(folder).batch(2, 64, 0, 0)
    pca_initialise("cheng2020-anchor", model, x, 0.0067)
    centring = Centring(model, x)
    layer, mean = next(iter(centring._means.items()))
    constant = mean[None, :, None, None].expand(1, -1, 16, 16)
    before = layer(constant)[..., 2:-2, 2:-2]
    rate_distortion_loss(ARCHITECTURES["cheng2020-anchor"], model, x, 0.0067)[0].backward()
    raw, bias = layer.weight.grad.clone(), layer.bias.grad
    centring.centre_gradients()
    torch.testing.assert_close(raw - layer.weight.grad, bias[:, None, None, None] * mean[None, :, None, None].expand_as(raw))
    with torch.no_grad():
        layer.weight += 0.1 * torch.randn_like(layer.weight)
    centring.follow()
    torch.testing.assert_close(layer(constant)[..., 2:-2, 2:-2], before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def _distance(model, y, wanted):
    return float(((model.h_a(y) - wanted) ** 2).mean() / wanted.var())


def test_a_mean_scale_hyperprior_can_begin_by_imitating_the_scale_hyperprior(folder, tmp_path):
    start = train(Settings("bmshj2018-hyperprior", 3, (8, 12), 60, 2, 64, 2e-3, bf16=False), folder, tmp_path / "h")
    y = None
    errors = []
    for imitate in (0, 300):
        s = Settings("mbt2018-mean", 3, (8, 12), 1, 2, 64, 1e-9, bf16=False, start=str(start), only="entropy", imitate=imitate)
        _, model, _ = read_run(train(s, folder, tmp_path / str(imitate)))
        _, old, _ = read_run(start)
        y = old.g_a(Crops(folder).batch(4, 64, 1, 1)) if y is None else y
        wanted = old.h_a(y.abs())
        errors.append(_distance(model, y, wanted))
        if imitate:  # the same scales from the same z, up to the leaky ReLUs; no means yet
            scales, means = model.h_s(wanted).chunk(2, 1)
            assert torch.corrcoef(torch.stack((scales.flatten(), old.h_s(wanted).flatten())))[0, 1] > 0.99
            assert means.abs().mean() < 0.3 * scales.abs().mean()
    assert errors[1] < 0.6 * errors[0]
    with pytest.raises(ValueError, match="imitate is for mbt2018-mean"):
        Settings("mbt2018", 3, (8, 12), 1, only="entropy", imitate=5)
    with pytest.raises(ValueError, match="of the same λ"):
        other = Settings("mbt2018-mean", 1, (8, 12), 1, 2, 64, start=str(start), only="entropy", imitate=5)
        train(other, folder, tmp_path / "other")
    with pytest.raises(ValueError, match="centred concerns the transforms"):
        Settings("mbt2018-mean", 3, (8, 12), 1, only="entropy", centred=True)


def interrupt_at(step):
    def check(done):
        if done == step:
            raise KeyboardInterrupt

    return check


def _train_forever(folder, out):
    train(Settings("bmshj2018-hyperprior", 3, (8, 12), steps=100_000, batch=2, crop=64, bf16=False), folder, out, every=2)


def test_a_killed_run_leaves_a_whole_checkpoint(folder, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_train_forever, args=(folder, tmp_path))
    process.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] >= 2


def test_the_log_has_no_row_that_a_killed_run_had_not_saved(folder, tmp_path):
    train(SMALL, folder, tmp_path, every=12)
    with (tmp_path / "log.csv").open("a") as f:
        f.write("16,1,1,1,1\n")
    train(SMALL, folder, tmp_path, every=12)
    assert [r["step"] for r in csv.DictReader((tmp_path / "log.csv").open())] == ["12"]


def test_exported_quantiles_are_the_learnt_tails(folder, tmp_path):
    weights = load_weights(SMALL.arch, 3, train(SMALL, folder, tmp_path, every=12).with_name("weights.safetensors"))
    model = ARCHITECTURES[SMALL.arch].build(*SMALL.widths)
    torch.nn.Module.load_state_dict(model, weights.state, strict=False)
    bottleneck = model.entropy_bottleneck
    reached = torch.sigmoid(bottleneck._logits_cumulative(bottleneck.quantiles[:, :, ::2], stop_gradient=True))
    assert reached[..., 0].max() < 1e-8 and reached[..., 1].min() > 1 - 1e-6


def test_every_setting_is_an_option_with_its_own_default_and_is_read_back():
    p = argparse.ArgumentParser()
    add_options(p)
    needed = ["--arch", "mbt2018-mean", "--quality", "3", "--widths", "8", "12", "--steps", "5"]
    plain = Settings("mbt2018-mean", 3, (8, 12), 5)
    assert of_options(p.parse_args(needed)) == plain
    numbers = {"quality": 4, "widths": (6, 8), "steps": 9, "batch": 1, "crop": 64, "lr": 1e-3, "warmup": 0.1, "seed": 5, "ema": 0.9}
    numbers |= {"eps": 0.1, "attack_steps": 7, "penalty": 0.5}
    words = {"start": "a/state.pt", "optimiser": "muon", "only": "entropy", "side_warmup": 0.5, "imitate": 7}
    flags = {"bf16": False, "channels_last": True, "mixed": True, "compile": True, "by_inputs": True}
    other = dataclasses.replace(plain, **numbers, **words, **flags)
    same = {f.name for f in dataclasses.fields(plain) if getattr(plain, f.name) == getattr(other, f.name)}
    assert same == {"arch", "centred", "against"}  # these go with only=None
    for s in (plain, other, dataclasses.replace(plain, centred=True, bf16=True, against="joint")):
        assert of_options(p.parse_args(as_options(s))) == s


def test_other_settings_in_the_same_folder_are_refused(folder, tmp_path):
    train(SMALL, folder, tmp_path, every=12)
    with pytest.raises(ValueError, match="other settings"):
        train(Settings("bmshj2018-hyperprior", 6, (8, 12), steps=12, batch=2, crop=64, bf16=False), folder, tmp_path)


def test_a_state_may_name_a_setting_that_is_gone_unless_it_was_made_use_of(folder, tmp_path):
    path = train(dataclasses.replace(SMALL, steps=1), folder, tmp_path)
    for value in (None, "bundled/mbt2018/3"):
        state = torch.load(path, weights_only=True)
        torch.save(state | {"settings": json.dumps(json.loads(state["settings"]) | {"gone": value})}, path)
        if value is None:
            assert train(dataclasses.replace(SMALL, steps=1), folder, tmp_path) == path
        else:
            with pytest.raises(ValueError, match="other settings"):
                train(dataclasses.replace(SMALL, steps=1), folder, tmp_path)


def test_training_lowers_the_loss_and_exports_weights_that_load(folder, tmp_path):
    state = train(
        Settings("bmshj2018-hyperprior", 3, (12, 16), steps=60, batch=4, crop=64, bf16=False),
        folder,
        tmp_path,
        every=20,
    )
    rows = [float(r["loss"]) for r in csv.DictReader((tmp_path / "log.csv").open())]
    assert rows[-1] < rows[0]
    loaded = load_weights("bmshj2018-hyperprior", 3, state.with_name("weights.safetensors"))
    assert (
        ARCHITECTURES[SMALL.arch].widths_of(loaded.state) == (12, 16)
        and loaded.lmbda == 0.0067
        and json.loads(loaded.card["stages"])[-1]["steps"] == 60
    )


#: Of the architectures with transforms of their own, those that have such a start, and widths.
OTHERS = {"zou2022-stf": (9, 8, 4, 8, 2), "liu2023": (8, 48, 8, 4, 8, 8), "cai2022": (12, 48, 4, 1), "song2021": (24, 48)}


@pytest.mark.parametrize("name", [n for n, kind in ARCHITECTURES.items() if n in OTHERS or not has_other_transforms(kind)])
def test_the_principal_component_start_is_far_ahead_of_a_random_one(name, folder):
    crops = Crops(folder)
    x = crops.batch(4, 128, 0, 1)
    losses = []
    for start in (True, False):
        torch.manual_seed(0)
        model = ARCHITECTURES[name].build(*OTHERS.get(name, (24,) if name.startswith("cheng") else (24, 48))).eval()
        if start:
            pca_initialise(name, model, crops.batch(32, 128, 0, 0), 0.0067)
        with torch.no_grad():
            losses.append(rate_distortion_loss(ARCHITECTURES[name], model, x, 0.0067, None, round_true)[0].item())
            if start:
                x_hat = walk(ARCHITECTURES[name](model, 3), x, round_true, rate=False).x_hat
    assert losses[0] < losses[1] / 3
    assert -10 * torch.log10((x_hat - x).pow(2).mean()) > 22


def test_a_warm_start_at_another_lambda_keeps_the_picture_and_moves_the_rate(folder, tmp_path):
    first = train(SMALL, folder, tmp_path / "q3", every=12)
    from dataclasses import replace

    finer = replace(SMALL, quality=6, steps=1, lr=0.0, start=str(first))
    second = final(train(finer, folder, tmp_path / "q6", every=1))
    arch, x = ARCHITECTURES[SMALL.arch], Crops(folder).batch(4, 64, 0, 1)
    results = []
    for state in (final(first), second):
        model = arch.build(8, 12).eval()
        torch.nn.Module.load_state_dict(model, state, strict=False)
        with torch.no_grad():
            w = walk(arch(model), x, round_true)
        results.append((sum(b.sum() for b in w.bits().values()).item(), (w.x_hat - x).pow(2).mean().item()))
    assert results[1][0] > results[0][0] and results[1][1] < results[0][1]


def test_a_channel_wise_codec_resumes_exactly_is_exported_and_goes_on_at_another_quality(folder, tmp_path):
    name = "zou2022-wacnn"
    settings = Settings(name, 3, WIDTHS[name], steps=2, batch=1, crop=64, mixed=True, optimiser="muon", start="default")
    whole = final(train(settings, folder, tmp_path / "a", every=1))
    with pytest.raises(KeyboardInterrupt):
        train(settings, folder, tmp_path / "b", every=1, on_step=interrupt_at(1))
    path = train(settings, folder, tmp_path / "b", every=1)
    assert all(torch.equal(whole[k], v) for k, v in final(path).items())
    codec = load_codec(name, 3, path.with_name("weights.safetensors"), device="cpu")
    assert codec.arch.widths_of(codec.weights.state) == WIDTHS[name] and codec.lmbda == 0.0067
    further = dataclasses.replace(settings, quality=6, steps=1, lr=0.0, start=str(path))
    taken_over = final(train(further, folder, tmp_path / "c", every=1))
    assert all(torch.equal(whole[k], v) for k, v in taken_over.items() if "quantiles" not in k)
    with pytest.raises(ValueError, match="has no principal-component start: begin from 'random', 'default'"):
        train(dataclasses.replace(settings, start="pca"), folder, tmp_path / "d")


def test_the_learning_rate_rises_and_falls():
    s = Settings("mbt2018", 3, (8, 8), steps=100, lr=1e-3, warmup=0.1)
    rates = [learning_rate(s, k) for k in range(100)]
    assert max(rates) == pytest.approx(1e-3) and rates.index(max(rates)) in (9, 10)
    assert rates[-1] < 2e-5 and rates[0] == pytest.approx(1e-4)


def test_crops_depend_on_seed_and_step_alone(folder):
    a, b = Crops(folder), Crops(folder)
    b.batch(3, 32, 0, 5)
    assert torch.equal(a.batch(3, 32, 0, 6), b.batch(3, 32, 0, 6))
    assert not torch.equal(a.batch(3, 32, 0, 6), a.batch(3, 32, 1, 6))
    assert a.batch(3, 32, 0, 6).is_contiguous()  # channels-last inputs crashed Cheng2020's training on a CPU


def test_bad_training_data_is_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="--data"):
        Crops(tmp_path)
    Image.new("RGB", (40, 40)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png.*64"):
        train(SMALL, tmp_path, tmp_path / "out")


def test_unknown_architecture_quality_or_widths(tmp_path, folder):
    with pytest.raises(ValueError, match="unknown architecture"):
        Settings("resnet", 3, (8, 8), 1)
    for arch, widths, quality in (("mbt2018", (8, 8), 11), ("cheng2020-attn", (8, 8), 7)):
        with pytest.raises(ValueError, match="quality"):
            Settings(arch, quality, widths, 1)
    with pytest.raises(ValueError, match="widths"):
        Settings("cheng2020-attn", 3, (8,), 1)


def test_in_training_the_synthesis_sees_what_the_decoder_of_a_context_model_gives():
    """Rounded around the means, though the context model is shown noise around zero."""
    torch.manual_seed(0)
    arch = ARCHITECTURES["mbt2018"]
    x = torch.rand(1, 3, 64, 64)
    w = walk(arch(arch.build(8, 12), 3), x, add_noise, see=round_ste)
    assert torch.allclose(w.y_hat, round_true(w.y, w.means)) and not torch.allclose(w.y_hat, round_true(w.y))
