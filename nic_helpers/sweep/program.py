"""Which program made a row, and which programs make the same rows."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path

from nic_helpers.settings import PROJECT, data_dir

#: What shows rows, keeps them or makes weights: no number in a row depends on these rooms and files (tests/sweep/test_program.py holds
#: them to it).
BESIDE_ROWS = (
    "analysis/",
    "card/",
    "course/",
    "exercises/",
    "training/",
    "plotting.py",
    "stats.py",
    "sweep/__init__.py",
    "sweep/__main__.py",
    "sweep/cost.py",
    "sweep/dataset.py",
    "sweep/executors.py",
    "sweep/grid.py",
    "sweep/program.py",
    "sweep/work.py",
)


@functools.cache
def program_sha256(rows_only: bool = False) -> str:
    """SHA-256 over this package's source files and where they lie: which program it was, between two versions.

    ``rows_only``: without those in ``BESIDE_ROWS``, so that a new colour in a figure is not another program to a row.
    """
    digest, package = hashlib.sha256(), PROJECT / "nic_helpers"
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        if not (rows_only and place.startswith(BESIDE_ROWS)):
            digest.update(f"{place}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def same_programs_file() -> Path:
    """The record of programs that make the same rows: lists of their hashes, as ``tests/frozen.py --record`` writes it."""
    return data_dir() / "results" / "same_programs.json"


def same_programs() -> list[list[str]]:
    """The groups of programs (the first 12 digits of their hashes) that have been shown to make the same rows."""
    path = same_programs_file()
    return json.loads(path.read_text()) if path.is_file() else []


def record_same(first: str, second: str) -> None:
    """Write down that two programs make the same rows, by the first 12 digits of their hashes."""
    groups, merged = [], {first, second}
    for group in same_programs():
        if merged & set(group):
            merged |= set(group)
        else:
            groups.append(group)
    same_programs_file().write_text(json.dumps([*groups, sorted(merged)], indent=1) + "\n")


def canonical(versions: str) -> str:
    """What a row says of its program and packages, with one name for all programs that make the same rows."""
    named = {program: group[0] for group in same_programs() for program in group}
    return re.sub(r"(?<=\+)[0-9a-f]{12}", lambda m: named.get(m[0], m[0]), versions)
