import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from nic_helpers import course, image_sets, images, plotting
from nic_helpers.course import reference, studies
from nic_helpers.images import to_pil
from nic_helpers.settings import PROJECT
from nic_helpers.sweep.dataset import SweepError

matplotlib.use("Agg")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NIC_BUILD_DIR", str(tmp_path))
    return course.begin("03", "quick", seed=4)


def test_begin_prints_what_it_resolved(run, capsys):
    said = capsys.readouterr().out
    for part in ("profile  quick", "images   4 bundled images, 192×192", "seed  4", "torch", "device   "):
        assert part in said
    assert run.x.shape == (4, 3, 192, 192) and "bundled weights" in run.caption


def test_a_folder_of_one_s_own_is_called_by_its_name_and_read_as_far_as_it_is_used(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "holiday"
    folder.mkdir()
    for k in range(6):
        to_pil(torch.rand(3, 200, 240)).save(folder / f"{k}.png")
    read, really = [], images.load_image
    monkeypatch.setattr(image_sets, "load_image", lambda path: read.append(path.name) or really(path))
    own = course.begin("03", source=folder)
    assert own.caption == "4 images of holiday, 192×192; bundled weights; profile quick" and own.x.shape == (
        4,
        3,
        192,
        192,
    )
    assert [name for name in read if name[0].isdigit()] == own.names == ["0.png", "1.png", "2.png", "3.png"]
    said = capsys.readouterr().out
    assert "small crops; here other images" in said and "images   4 images of holiday, 192×192: 0, 1" in said
    assert "Kodak" not in own.caption + said and own.example.shape == (1, 3, 192, 192)


def test_an_unknown_profile_says_what_there_is():
    with pytest.raises(ValueError, match="quick, standard, full"):
        course.begin("00", "fast")


@pytest.mark.parametrize(
    ("value", "rules", "says"),
    [
        (4, {"one_of": [2.0, 8.0]}, "level must be one of 2, 8, got 4"),
        ("x", {"one_of": [2, 8]}, "one of 2, 8"),
        (0, {"least": 1, "most": 255}, "a number from 1 to 255, got 0"),
        (300, {"most": 255}, "to 255"),
        (0, {"least": 1}, "of at least 1"),
        (1.5, {"whole": True}, "whole number"),
        ("8", {}, "a number, got '8'"),
        (True, {}, "a number"),
        (float("nan"), {}, "a number"),
        ([8], {}, "a number"),
        (3, {"several": True}, "must be a list"),
        ([], {"several": True}, "must be a list"),
        ("12", {"several": True}, "must be a list"),
        ([1, "2"], {"several": True}, "each of it a number"),
        ([1, 1.0], {"several": True}, "twice"),
        ([2], {"several": True, "holds": [1]}, "must hold 1, got"),
        ([0, 1], {"several": True, "least": 1}, "of at least 1"),
    ],
)
def test_a_parameter_that_a_notebook_cannot_work_with_is_refused_with_what_there_is(value, rules, says):
    with pytest.raises(ValueError, match=says):
        course.parameter("level", value, **rules)


def test_parameters_that_a_notebook_can_work_with_pass():
    course.parameter("level", 2.55, least=0.5, most=127)
    course.parameter("levels", (1, 4), several=True, whole=True, least=1, holds=[1])
    course.parameter("level", np.float64(8), one_of=studies.levels("quick"))
    assert studies.levels("standard") == [2, 8, 16]


@pytest.mark.parametrize("seed", ["0", 0.5, -1, 2**32, True, None])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        course.begin("00", seed=seed)


def test_a_build_folder_that_cannot_be_written_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NIC_BUILD_DIR", str(tmp_path / "file"))
    for save in (
        lambda: run.save_table(pd.DataFrame({"a": [1]}), "t"),
        lambda: run.save(plotting.picture_grid([[run.x[0]]], [["a"]]), "g"),
    ):
        with pytest.raises(OSError, match="set NIC_BUILD_DIR"):
            save()


def test_a_study_of_which_nothing_could_be_done_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("NIC_BUILD_DIR", str(tmp_path))
    monkeypatch.setenv("NIC_SWEEP_HOURS", "0")
    with pytest.raises(SweepError, match=r"no unit of the study 'transfer' is done.*NIC_SWEEP_HOURS"):
        studies.rows("transfer", "quick")


def test_figures_and_tables_go_to_the_build_folder(run, tmp_path):
    figure = plotting.picture_grid([[run.x[0], None]], [["a", ""]])
    run.save(figure, "grid")
    run.save_table(pd.DataFrame({"a": [1.23456789]}), "t")
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
    assert names == ["figures/03_grid.pdf", "figures/03_grid.png", "results/03_t.csv"]


def test_a_study_s_rows_are_kept_in_single_precision_and_small(run, tmp_path):
    values = np.random.default_rng(0).normal(30, 0.1, 20_000)
    rows = pd.DataFrame({"image": "kodim01", "psnr_recon": values, "delta_amp": (30 - values).astype("float32"), "seed": 0})
    run.save_rows(rows, "study")
    back = pd.read_parquet(tmp_path / "results" / "03_study.parquet")
    assert list(back) == list(rows) and (back["image"] == "kodim01").all() and (back["seed"] == 0).all()
    assert np.array_equal(back["psnr_recon"], values.astype("float32")) and back["delta_amp"].equals(rows["delta_amp"])
    assert (tmp_path / "results" / "03_study.parquet").stat().st_size < 0.8 * 2 * 4 * len(rows)


def test_the_environment_table_names_every_bundled_codec():
    table = course.check_environment()
    assert table["state"].str.contains("hashes checked").any() and table["part"].str.contains("cheng2020-anchor").any()


def test_every_codec_has_its_own_colour_and_marker():
    looks = list(plotting.STYLES.values())
    assert len(set(looks)) == len(looks)


def test_the_ladder_labels_each_line_by_its_attack_and_not_its_band():
    rows = [
        {"codec": "jpeg", "codec_label": "jpeg 30", "attack": a, "eps_255": e, "image": k, "v": e * n + k}
        for n, a in enumerate(("FGSM", "uniform noise", "sign noise"))
        for e in (1, 2)
        for k in (0, 1)
    ]
    ax = plotting.ladder(pd.DataFrame(rows), "v", "v")
    lines, labels = ax.get_legend_handles_labels()
    assert labels == ["FGSM", "uniform noise", "sign noise"]
    assert [line.get_linestyle() for line in lines] == ["-", ":", "--"]
    assert [line.get_ydata()[1] for line in lines] == [0.5, 2.5, 4.5]


def test_published_points_are_read_by_our_names():
    table = reference.published(["bmshj2018-hyperprior", "jpeg-plain"])
    assert set(table["codec"]) == {"bmshj2018-hyperprior", "jpeg-plain"}
    assert table[["bpp", "psnr", "ms_ssim"]].notna().all().all()


def test_the_committed_tables_are_readable():
    tables = sorted((PROJECT / "data" / "results").glob("*.csv"))
    assert {"02_against_jpeg", "02_rate_distortion", "03_fgsm_ladder", "04_strength", "05_rd_plane"} <= {t.stem for t in tables}
    for path in tables:
        table = pd.read_csv(path)
        assert len(table)
        if path.stem[:2].isdigit():  # a notebook's; the others are benchmarks'
            assert set(table["profile"]) == {"standard"}
    assert json.loads((PROJECT / "data" / "checkpoints" / "manifest.json").read_text())


def test_a_claim_that_does_not_hold_stops_the_run_that_it_is_about(run, capsys, monkeypatch):
    run.claim("two is more than one", True)
    run.claim("seed 4 is another run", False)
    said = capsys.readouterr().out
    assert "✓ two is more than one" in said and "✗ Not in this run: seed 4 is another run" in said
    run.seed = 0
    with pytest.raises(AssertionError, match="does not bear out: pigs fly"):
        run.claim("pigs fly", False)
    for name in ("NIC_OTHER_PARAMETERS", "JPY_SESSION_NAME"):  # -p on the command line; a reader in JupyterLab
        with monkeypatch.context() as m:
            m.setenv(name, "1")
            run.claim("pigs fly", False)
    run.profile_name = "full"
    run.claim("pigs fly", False)
    assert capsys.readouterr().out.count("✗ Not in this run: pigs fly") == 3


def test_the_rows_of_a_study_under_way_are_read_or_missed_in_words():
    rows = studies.begun("start")
    assert {"bundled", "random-start"} <= set(rows["weights"])
    with pytest.raises(FileNotFoundError, match="restore it"):
        studies.begun("nothing")
