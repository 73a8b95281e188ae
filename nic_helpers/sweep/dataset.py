"""A sweep's rows on disk: one Parquet file a unit, whole or not there, in a folder that any Parquet reader opens.

    FOLDER/rows/<unit's key>-<SHA-256 of the file, 12 digits>.parquet
    FOLDER/failed/<unit's key>.json      what a unit that failed twice said

A file is written beside its place and renamed, so that a program killed at any instant leaves whole files only; its name
says what it must contain, so that a damaged one is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pandas as pd

from nic_helpers.sweep.program import canonical


class SweepError(RuntimeError):
    """A sweep cannot go on; what is done is kept."""


class Dataset:
    """The rows of a sweep in ``folder``, made if it is not there."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._rows, self._failed = self.folder / "rows", self.folder / "failed"
        self._found: dict[str, Path] = {}
        self._writes = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While this one writes: no other process may, and what a killed one left half-written is removed. SweepError where
        another one is writing, or nobody can; a warning where the system or its disk has no locks to see that by."""
        try:
            self._rows.mkdir(parents=True, exist_ok=True)
            self._failed.mkdir(exist_ok=True)
            opened = (self.folder / "lock").open("w")
        except OSError as error:
            raise SweepError(
                f"cannot write to {self.folder} ({error}): give another folder (the course's own studies: NIC_BUILD_DIR)"
            ) from error
        with opened as lock:
            _lock(lock, self.folder)
            for leftover in self.folder.rglob("*.part"):
                leftover.unlink()
            self._writes = True
            try:
                yield
            finally:
                self._writes = False

    def done(self) -> set[str]:
        """The keys of the units whose rows are there and whole. Damaged files are named in a warning, and removed by
        who is :meth:`writing`, as are rows for which there are newer ones."""
        self._found = {}
        for path in sorted(self._rows.glob("*.parquet"), key=_age):
            key, _, digest = path.stem.partition("-")
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # who writes has just replaced it
                continue
            if digest != _digest(content):
                warnings.warn(f"{path} is damaged: {'removed, ' * self._writes}its unit is done again", stacklevel=2)
                if self._writes:
                    path.unlink()
            else:
                self._put(key, path)
        return set(self._found)

    def _put(self, key: str, path: Path) -> None:
        """Know a unit's file; an older one of the same unit goes, now that the newer is whole."""
        older = self._found.get(key, path)
        self._found[key] = path
        if self._writes and older != path:
            older.unlink()

    def by_others(self, versions: str) -> set[str]:
        """The keys of the units there whose rows were not made by this program and these packages (``versions`` of a
        row, as :func:`nic_helpers.sweep.unit.versions` says it), nor by a program that makes the same rows."""
        if not self._found:
            self.done()
        others = set()
        for key, path in self._found.items():
            with suppress(FileNotFoundError):  # as above
                if {canonical(v) for v in pd.read_parquet(path, columns=["versions"])["versions"].unique()} != {
                    canonical(versions)
                }:
                    others.add(key)
        return others

    def write(self, key: str, table: pd.DataFrame) -> None:
        """Store a unit's rows: all of them, or none. They replace those that are there."""
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False, compression="zstd")
        content = buffer.getvalue()
        target = self._rows / f"{key}-{_digest(content)}.parquet"
        _write_whole(target, content)
        self._put(key, target)
        (self._failed / f"{key}.json").unlink(missing_ok=True)

    def read(self, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """The rows of these units (default: of all), in the order of the keys."""
        if not self._found:
            self.done()
        wanted = list(self._found) if keys is None else [k for k in keys if k in self._found]
        if not wanted:
            return pd.DataFrame()
        return pd.concat([pd.read_parquet(self._found[k]) for k in wanted], ignore_index=True)

    def add(self, table: pd.DataFrame) -> None:
        """Take over rows that were read elsewhere, unit by unit: to go on with a study from its published table."""
        if "unit" not in table:
            raise ValueError(f"no table of a sweep: it has no column 'unit', but {', '.join(map(str, table))}")
        with self.writing():
            known = self.done()
            for key, rows in table.groupby("unit", sort=False):
                if key not in known:
                    self.write(key, rows.reset_index(drop=True))

    def fail(self, key: str, unit: str, error: str) -> None:
        """Note that a unit failed, with its error."""
        _write_whole(self._failed / f"{key}.json", json.dumps({"unit": unit, "error": error}, indent=1).encode())

    def failures(self) -> dict[str, dict[str, str]]:
        """Units that failed when they were last tried: key -> unit and error."""
        return {p.stem: json.loads(p.read_text()) for p in sorted(self._failed.glob("*.json"))}


def _lock(file: IO, folder: Path) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # EWOULDBLOCK, or EACCES on some network disks
        raise SweepError(f"another run is writing to {folder}: wait for it, or give another folder") from error
    except (ImportError, OSError) as error:
        warnings.warn(f"no lock can be had for {folder} ({error}): see to it that no other run writes there", stacklevel=4)


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _write_whole(target: Path, content: bytes) -> None:
    temporary = target.with_name(target.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except KeyboardInterrupt:
        temporary.unlink(missing_ok=True)
        raise
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SweepError(f"cannot write {target} ({error}): free some space, then run again; what is done is kept") from error
