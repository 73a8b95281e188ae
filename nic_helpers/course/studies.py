"""The rows of the course's studies: where they are kept, made where they are missing, and read as published or as far as they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nic_helpers.course.begin import build_dir
from nic_helpers.course.grids import LIMIT, RATE, grids_of
from nic_helpers.settings import data_dir, get_device, sweep_seconds
from nic_helpers.sweep import work as sweep
from nic_helpers.sweep.dataset import SweepError
from nic_helpers.sweep.executors import cores


def folder(study: str, profile: str) -> Path:
    """Where a study's rows are kept while it runs."""
    return build_dir() / "sweep" / f"{study}-{profile}"


def rows(study: str, profile: str, seed: int = 0) -> pd.DataFrame:
    """A study's rows: what is missing is done now (for NIC_SWEEP_HOURS at most), and all there are returned."""
    jobs = 1 if profile == "quick" or get_device().type == "cuda" else cores()
    found = sweep.run(grids_of(study, profile, seed), folder(study, profile), jobs=jobs, seconds=sweep_seconds())
    if found.empty:
        raise SweepError(
            f"no unit of the study {study!r} is done, so there is nothing to show: raise NIC_SWEEP_HOURS, or unset it "
            f"(it gives {sweep_seconds():g} seconds); what failed is in {folder(study, profile) / 'failed'}"
        )
    return found


def levels(profile: str) -> list[float]:
    """The budgets, in 8-bit levels, of the robustness study's rows that notebook 08 shows at a profile."""
    if profile == "quick":
        rows = published("08", "robustness")
        rows = rows[rows["attack"].isin([*LIMIT["box"], *LIMIT["ball"], *RATE])]
        met = rows.drop_duplicates(["eps_255", "attack", "attacked"]).groupby("eps_255").size()
        return met.index[met == met.max()].tolist()
    return sorted({round(255 * eps, 6) for g in grids_of("robustness", profile) for eps in g.budgets})


def defended_levels(profile: str) -> list[float]:
    """The budgets, in 8-bit levels, at which notebook 11 shows defences: those of the committed rows, or all of the study's."""
    if profile != "quick":
        return [4, 8, 16]
    rows = published("11", "defences")
    levels = (set(rows[rows["attack"] == f"{aim}, adaptive"]["eps_255"]) for aim in ("picture", "file"))
    return sorted(set.intersection(*levels))


def trained_levels(profile: str) -> list[float]:
    """The budgets, in 8-bit levels, at which notebook 12 shows trained codecs: those with rows of all weights, or all."""
    if profile != "quick":
        return [8, 16]
    sets = published("12", "trained").groupby("eps_255")["weights"].nunique()
    return sets.index[sets == sets.max()].tolist()


def published(notebook: str, name: str) -> pd.DataFrame:
    """The committed rows, or table, of the last standard run; FileNotFoundError, saying how they are made, if there are none."""
    path = data_dir() / "results" / f"{notebook}_{name}.parquet"
    table = path.with_suffix(".csv")
    if table.is_file():
        return pd.read_csv(table)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: restore it with git checkout, or make it with ./run_all.sh --only "
            f"{notebook} --profile standard --publish"
        )
    return pd.read_parquet(path)


def begun(study: str) -> pd.DataFrame:
    """The committed rows of a study that is under way: as far as it has come. FileNotFoundError if there are none."""
    path = data_dir() / "results" / "begun" / f"{study}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: restore it with git checkout")
    return pd.read_parquet(path)
