"""Which program made a row, which make the same, and what a unit is known by."""

import ast
import dataclasses
import json
import os
import shutil

import pandas as pd
import pytest

from nic_helpers import attacks, sweep
from nic_helpers.attacks import BPDA
from nic_helpers.course import studies
from nic_helpers.objectives import DIRECTIONS, Distortion, Joint, Rate, Together
from nic_helpers.settings import PROJECT, data_dir
from nic_helpers.sweep import program, unit
from nic_helpers.sweep.dataset import Dataset
from nic_helpers.sweep.unit import UNLESS_DEFAULT, said

EPS = 8 / 255


@pytest.fixture
def another(tmp_path, monkeypatch):
    """A copy of the package that may be changed; a function that gives its two hashes."""
    shutil.copytree(PROJECT / "nic_helpers", tmp_path / "nic_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(program, "PROJECT", tmp_path)

    def hashes():
        program.program_sha256.cache_clear()
        return program.program_sha256(rows_only=True), program.program_sha256()

    yield tmp_path / "nic_helpers", hashes
    program.program_sha256.cache_clear()


def test_the_hash_is_of_every_file_in_every_folder_that_rows_depend_on(another):
    package, hashes = another
    rows, whole = hashes()
    for path in sorted(package.rglob("*.py")):
        text = path.read_text()
        path.write_text(text + "# changed\n")
        beside = path.relative_to(package).as_posix().startswith(program.BESIDE_ROWS)
        changed = hashes()
        assert (changed[0] == rows) == beside and changed[1] != whole, path
        path.write_text(text)
    (package / "codecs" / "new.py").write_text("")
    assert hashes()[0] != rows


def test_nothing_that_makes_a_row_is_beside_the_rows():
    package = PROJECT / "nic_helpers"
    assert all((package / name).exists() for name in program.BESIDE_ROWS)
    waiting, seen = ["sweep/unit.py"], set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (package / path).is_file() or path == "sweep/program.py":
            continue
        seen.add(path)
        for node in ast.walk(ast.parse((package / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nic_helpers":
                inside = node.module.removeprefix("nic_helpers").removeprefix(".").replace(".", "/")
                waiting += [f"{inside}.py", *(f"{inside}/{alias.name}.py".removeprefix("/") for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [a.name.removeprefix("nic_helpers.").replace(".", "/") + ".py" for a in node.names]
    assert {"attacks/base.py", "codecs/neural.py", "metrics.py", "budgets.py"} <= seen
    assert not {path for path in seen if path.startswith(program.BESIDE_ROWS)} - {"sweep/unit.py"}


def test_a_run_that_asks_for_this_program_does_again_only_what_no_recorded_one_has_done(tmp_path, monkeypatch):
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path / "data"))
    shutil.copytree(PROJECT / "data" / "checkpoints", tmp_path / "data" / "checkpoints")
    (tmp_path / "data" / "results").mkdir()
    noise = {"noise": attacks.RandomNoise(EPS)}
    grid = sweep.Grid(codecs={"bmshj2018-hyperprior": (1,)}, attacks=noise, crop=48, limit=1)
    first = sweep.run(grid, tmp_path / "rows", progress=False)
    own = unit.versions().partition("+")[2][:12]
    old = first.assign(versions=unit.versions().replace(own, "0" * 12), seconds=-1.0)
    with Dataset(tmp_path / "rows").writing():
        Dataset(tmp_path / "rows").write(first["unit"].iloc[0], old)
    program.record_same("0" * 12, own)
    again = sweep.run(grid, tmp_path / "rows", progress=False, same_program=True)
    assert (again["seconds"] == -1).all()
    program.same_programs_file().unlink()
    again = sweep.run(grid, tmp_path / "rows", progress=False, same_program=True)
    assert (again["seconds"] > 0).all()


def test_programs_that_are_recorded_to_make_the_same_rows_are_one(tmp_path, monkeypatch):
    monkeypatch.setenv("NIC_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "results").mkdir(parents=True)
    old, own = "0" * 12, unit.versions().partition("+")[2][:12]
    rows = pd.DataFrame({"unit": ["k"], "versions": [unit.versions().replace(own, old)]})
    Dataset(tmp_path / "rows").add(rows)
    assert Dataset(tmp_path / "rows").by_others(unit.versions()) == {"k"}
    program.record_same("1" * 12, own)
    program.record_same(old, "1" * 12)
    assert json.loads(program.same_programs_file().read_text()) == [sorted([old, "1" * 12, own])]
    assert not Dataset(tmp_path / "rows").by_others(unit.versions())
    assert Dataset(tmp_path / "rows").by_others(unit.versions().replace("torch", "other")) == {"k"}  # other packages are others


# -------------------------------------------------------------------------------------------------------------- keys
@pytest.mark.parametrize(
    "part",
    [
        attacks.PGD(EPS, steps=3, precision="auto"),
        attacks.Strongest(EPS, attacks=(attacks.PGD(EPS), attacks.APGD(EPS, seed=2))),
        attacks.Strongest(EPS, attacks=(attacks.FGSM(EPS),)),
        attacks.Descend(EPS, like=attacks.FGSM(EPS)),
        Joint.at(DIRECTIONS["mostly rate"]),
        Together(Distortion("source"), 0.01),
        Rate(),
        None,
        0.1,
        "text",
    ],
)
def test_settings_are_said_as_ever(part):
    assert said(part) == repr(part)


def test_a_setting_that_comes_later_changes_no_key_of_before():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class PGD(attacks.PGD):
        warm: int = dataclasses.field(default=0, metadata=UNLESS_DEFAULT)
        also: tuple = dataclasses.field(default_factory=tuple, metadata=UNLESS_DEFAULT)

    PGD.__qualname__ = "PGD"
    assert said(PGD(EPS)) == repr(attacks.PGD(EPS))
    assert said(PGD(EPS, warm=1)) == repr(attacks.PGD(EPS)).removesuffix(")") + ", warm=1)"
    assert said(attacks.Descend(EPS, like=PGD(EPS))) == repr(attacks.Descend(EPS, like=attacks.PGD(EPS)))


def test_what_has_moved_is_named_by_its_first_place():
    assert said(BPDA) == "nic_helpers.through.BPDA" and said(studies.grids_of) == "nic_helpers.course.grids.grids_of"


def test_a_unit_s_key_is_what_it_was():
    grid = sweep.Grid(codecs={"bmshj2018-hyperprior": (3,)}, attacks={"PGD": attacks.PGD(EPS, steps=4)}, crop=64, limit=2)
    assert [u.key for u in grid.units()] == ["35637f105488459a45b6"]


@pytest.mark.skipif(not os.environ.get("NIC_KODAK_DIR"), reason="the study's images are Kodak's: set NIC_KODAK_DIR")
@pytest.mark.parametrize(
    "study, table",
    [("robustness", "08_robustness"), ("strength", "strength"), ("transfer", "09_transfer")],
)
def test_the_committed_rows_are_those_of_the_study_as_it_is(study, table):
    done = set(pd.read_parquet(data_dir() / "results" / f"{table}.parquet", columns=["unit"])["unit"])
    planned = {u.key for u in sweep.units_of(studies.grids_of(study, "standard"))}
    assert done == planned
