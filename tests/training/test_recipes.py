import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from test_training import folder  # noqa: F401

from nic_helpers.codecs import weights
from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.checkpoints import read_weights, save_weights
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.settings import data_dir
from nic_helpers.training import __main__ as training
from nic_helpers.training import export, recipes
from nic_helpers.training.data import Crops
from nic_helpers.training.recipes import choose, read_recipe
from nic_helpers.training.run import _initialise
from nic_helpers.training.settings import Settings

SMALL = """
[defaults]
arch = "bmshj2018-hyperprior"
quality = 3
widths = [8, 12]
batch = 2
crop = 64
bf16 = false

[[run]]
name = "wide"
steps = 8
stop = 6

[[run]]
name = "narrow"
widths = [6, 8]
steps = 4
start = "wide"
mixed = true
ema = 0.5
bundle = true

[[run]]
name = "means"
arch = "mbt2018-mean"
steps = 4
start = "wide"
only = "entropy"
side_warmup = 0.5

[[run]]
name = "alone"
steps = 4
start = "random"
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(SMALL)
    return path


def test_an_included_recipe_gives_only_what_is_begun_from(recipe, tmp_path):
    other = tmp_path / "other.toml"
    run = 'arch = "bmshj2018-hyperprior"\nquality = 3\nwidths = [6, 8]\nsteps = 4\nstart = '
    other.write_text(f'include = ["recipe.toml"]\n[[run]]\nname = "more"\n{run}"narrow"\n')
    runs = read_recipe(other, tmp_path)
    assert [r.name for r in runs] == ["wide", "narrow", "more"] and not any(r.bundle for r in runs)
    other.write_text('include = ["recipe.toml"]\n')
    with pytest.raises(ValueError, match="no \\[\\[run"):
        read_recipe(other, tmp_path)


def command(recipe, tmp_path, *more):
    return ["--recipe", str(recipe), "--out", str(tmp_path / "out"), *more]


def run(arguments):
    with pytest.raises(SystemExit) as left:
        training.main(arguments)
    return left.value.code


def test_a_recipe_runs_side_by_side_in_order_and_only_once(recipe, folder, tmp_path, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path / "data"))
    arguments = command(recipe, tmp_path, "--data", str(folder), "--val", str(folder), "--jobs", "2", "--every", "2")
    assert run(arguments) == 0
    out = tmp_path / "out"
    states = {n: torch.load(out / n / "state.pt", weights_only=True) for n in ("wide", "narrow", "means", "alone")}
    assert {n: s["step"] for n, s in states.items()} == {"wide": 6, "narrow": 4, "means": 4, "alone": 4}
    card = read_weights(out / "narrow" / "weights.safetensors").card
    assert [s["start"] for s in json.loads(card["stages"])] == ["pca", "wide"]
    assert ARCHITECTURES["bmshj2018-hyperprior"].widths_of(weights.load_weights("bmshj2018-hyperprior", 3).state) == (
        6,
        8,
    )  # it was bundled
    rows = list(csv.DictReader((out / "narrow" / "log.csv").open()))
    assert [r["step"] for r in rows] == ["2", "4"] and all(float(r["val_loss_ema"]) > 0 for r in rows)
    moved = {n: (out / n / "state.pt").stat().st_mtime_ns for n in states}
    assert run(arguments) == 0
    assert moved == {n: (out / n / "state.pt").stat().st_mtime_ns for n in states}


def test_training_the_entropy_model_alone_leaves_the_transforms(folder, tmp_path):  # noqa: F811
    s = Settings("mbt2018-mean", 3, (8, 12), 3, batch=2, crop=64, bf16=False, only="entropy")
    train_once = training.train(s, folder, tmp_path, every=3)
    after = torch.load(train_once, weights_only=True)["model"]
    torch.manual_seed(0)
    model = ARCHITECTURES["mbt2018-mean"].build(8, 12)
    _initialise(s, ARCHITECTURES["mbt2018-mean"], model, Crops(folder))
    before = model.state_dict()
    for key in before:
        if key.startswith(("g_a", "g_s")):
            assert torch.equal(before[key], after[key]), key
    assert not torch.equal(before["h_s.0.weight"], after["h_s.0.weight"])


def test_a_variable_rate_codec_trains_at_every_level(folder, tmp_path):  # noqa: F811
    s = Settings("bmshj2018-hyperprior-vbr", 3, (8, 12), 6, batch=2, crop=64, bf16=False, mixed=True)
    path = training.train(s, folder, tmp_path, val=folder, every=6).with_name("weights.safetensors")
    for quality in (1, 2, 3):
        loaded = weights.load_weights("bmshj2018-hyperprior-vbr", quality, path)
        assert loaded.lmbda == LAMBDAS[quality]
    assert not torch.equal(loaded.state["QuantABCD.4.weight"], torch.zeros_like(loaded.state["QuantABCD.4.weight"]))


def test_the_dry_run_prints_the_plan_and_trains_nothing(recipe, tmp_path, capsys):
    assert run(command(recipe, tmp_path, "--dry-run")) == 0
    printed = capsys.readouterr().out
    assert "4 runs" in printed and "hours" in printed and "narrow" in printed
    assert not (tmp_path / "out").exists()


def test_a_failed_run_is_named_and_what_depends_on_it_is_not_begun(recipe, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(command(recipe, tmp_path, "--data", str(empty), "--only-runs", "narrow")) == 1
    assert "not finished: wide, narrow" in capsys.readouterr().err
    assert "no training images" in (tmp_path / "out" / "wide" / "output.txt").read_text()


def test_chosen_runs_bring_those_they_begin_from(recipe, tmp_path):
    runs = read_recipe(recipe, tmp_path)
    assert [r.name for r in choose(runs, ["means"])] == ["wide", "means"]
    assert [r.name for r in choose(runs, ["means"], begun=["means"])] == ["means"]  # it goes on from its own state
    with pytest.raises(ValueError, match="no run named nothing"):
        choose(runs, ["nothing"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no .*run"),
        ("[[run]\n", "cannot read"),
        (SMALL.replace('name = "narrow"', 'name = "wide"'), "two runs named wide"),
        (SMALL.replace('start = "wide"', 'start = "later"'), "no run of that name comes before"),
        (SMALL.replace("mixed = true", "mixd = true"), "narrow: unknown mixd; known: .*mixed"),
        (SMALL.replace("[6, 8]", "[6]"), "narrow: .*2 widths \\(N M\\)"),
        (SMALL.replace('only = "entropy"', 'only = "all"'), "means: only must be"),
        (SMALL.replace("bundle = true", 'bundle = "nowhere"'), "narrow: no set of weights is named 'nowhere'"),
        (SMALL.replace("bundle = true", 'bundle = "random-start"'), "narrow: .*must begin from .*'pca': .*(wide)"),
        (SMALL.replace('start = "random"', 'start = "random"\noptimiser = "sgd"'), "alone: optimiser must be"),
    ],
)
def test_a_recipe_with_a_mistake_says_where(text, message, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path, tmp_path)


def test_a_clone_goes_on_where_a_kept_state_ended(recipe, folder, tmp_path, capsys):  # noqa: F811
    begun = read_recipe(recipe, tmp_path / "out")[0]
    training.train(begun.settings, folder, tmp_path / "out" / "wide", every=2, stop=4)
    where = ["--recipe", str(recipe), "--data", str(folder), "--only-runs", "wide", "--every", "2"]
    assert run([*where, "--out", str(tmp_path / "out"), "--keep-states"]) == 0
    kept = tmp_path / "states" / "wide.pt"
    assert str(kept) in capsys.readouterr().out and "optimiser" not in torch.load(kept, weights_only=True)
    assert run([*where, "--out", str(tmp_path / "clone")]) == 0
    assert torch.load(tmp_path / "clone" / "wide" / "state.pt", weights_only=True)["step"] == begun.stop == 6
    steps = [line.split(",")[0] for line in (tmp_path / "clone" / "wide" / "log.csv").read_text().splitlines()]
    assert steps == ["step", "2", "4", "6"]


def test_a_missing_recipe_or_argument_is_an_error_with_advice(recipe, tmp_path, capsys):
    assert run(["--recipe", str(tmp_path / "no.toml"), "--dry-run"]) == 2
    assert run(command(recipe, tmp_path)) == 2
    assert "--data" in capsys.readouterr().err
    assert run(["--arch", "mbt2018"]) == 2
    assert "--quality" in capsys.readouterr().err


def test_the_recipes_make_every_bundled_file():
    paths = [data_dir() / "recipes" / f"{name}.toml" for name in ("bundled", "eight", "eight-variable")]
    runs = [r for path in paths for r in read_recipe(path, data_dir() / "training") if r.bundle]
    made = {weights.bundled_name(r.settings.arch, r.settings.quality): r for r in runs}
    assert {r.bundle for r in runs} == {"bundled"} and len(made) == len(runs)
    assert set(made) == set(weights.manifest())
    for name, r in made.items():
        found = read_weights(weights.checkpoints_dir() / name)
        last = json.loads(found.card["stages"])[-1]
        s = r.settings
        assert ARCHITECTURES[s.arch].widths_of(found.state) == s.widths
        assert (last["steps"], last["batch"], last["crop"], last["lr"]) == (r.stop, s.batch, s.crop, s.lr), name


@pytest.mark.parametrize("path", sorted((data_dir() / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_one(path):
    assert read_recipe(path, data_dir() / "training")


def test_there_is_room_for_the_files_of_the_eight(tmp_path):
    """Runs that only prepare another one are not bundled."""
    runs = [r for name in ("eight", "eight-variable") for r in read_recipe(data_dir() / "recipes" / f"{name}.toml", Path("out"))]
    files = {(r.settings.arch, r.settings.quality): r.settings.widths for r in runs if r.settings.arch != "bmshj2018-hyperprior"}
    sizes = {}
    for arch, widths in {(arch, widths) for (arch, _), widths in files.items()}:
        save_weights(path := tmp_path / arch, ARCHITECTURES[arch].build(*widths).state_dict(), {})
        sizes[arch, widths] = path.stat().st_size
    assert len(files) == 11 and sum(sizes[arch, widths] for (arch, _), widths in files.items()) < 30e6


def test_a_run_may_begin_from_weights_of_another_architecture_of_ours(tmp_path):
    assert export.file_of("bundled", "mbt2018", 3) == weights.bundled_path("mbt2018", 3, "bundled")
    assert export.file_of("bundled/mbt2018", "zou2022-wacnn", 3) == weights.bundled_path("mbt2018", 3, "bundled")
    assert export.file_of("bundled/zou2022-wacnn/3", "zou2022-wacnn", 6) == weights.bundled_path("zou2022-wacnn", 3, "bundled")
    assert not any(map(export.is_ours, ("bundled/mbt2018/", "bundled/mbt2018/three", "bundled/mbt2018/3/4", "none/mbt2018/3")))
    assert not export.is_ours("bundled/none") and export.file_of("bundled/none", "mbt2018", 3) == Path("bundled/none")
    path = tmp_path / "r.toml"
    text = (
        '[[run]]\nname = "a"\narch = "mbt2018"\nwidths = [48, 112]\nquality = 3\nsteps = 1\nbundle = "random-start"\nstart = "{}"\n'
    )
    path.write_text(text.format("random-start/bmshj2018-hyperprior"))
    assert read_recipe(path, tmp_path)[0].after is None
    path.write_text(text.format("bundled/bmshj2018-hyperprior"))
    with pytest.raises(ValueError, match=r"must begin from .*'pca'"):
        read_recipe(path, tmp_path)


def test_the_command_of_a_run_gives_its_settings_back(recipe, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(training, "train", lambda s, *a: seen.update({s.arch + str(s.widths): s}) or tmp_path / "s")
    for r in read_recipe(recipe, tmp_path):
        a = training.parser().parse_args(["--data", "d", "--out", "o"])
        arguments = recipes._command(r, a)
        assert arguments[0] == sys.executable
        training.main(arguments[3:])
        assert seen[r.settings.arch + str(r.settings.widths)] == r.settings
