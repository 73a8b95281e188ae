"""What a headless run is to do: which notebooks, with which parameters, and which of them are done."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from nic_helpers.settings import PROJECT, data_dir
from nic_helpers.sweep.program import program_sha256

PROFILES = ("quick", "standard", "full")


#: Set in a kernel whose notebook was given parameters beside profile and seed: its sentences are about another run.
OTHER_PARAMETERS = "NIC_OTHER_PARAMETERS"
FOLDERS = ("NIC_KODAK_DIR", "NIC_JPEGAI_DIR", "NIC_DATA_DIR", "NIC_BUILD_DIR")


class UsageError(ValueError):
    """Something asked for on the command line that is not there."""


@dataclass
class Job:
    """One notebook of a run, with the parameters it is given."""

    path: Path
    parameters: dict
    key: str

    @property
    def name(self) -> str:
        """The notebook's name without its suffix."""
        return self.path.stem


def find_notebooks(folder: Path) -> list[Path]:
    """The course's notebooks ``NN_topic.ipynb`` in order."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise UsageError(f"no notebooks NN_topic.ipynb in {folder}")
    return found


def select(notebooks: list[Path], only: list[str], start: str | None) -> list[Path]:
    """Those asked for with --only (numbers or names) and --from, in course order."""

    def find(wanted: str) -> Path:
        number = wanted.zfill(2) if wanted.isdecimal() else None
        matches = [p for p in notebooks if wanted in (p.stem, p.name) or number == p.stem[:2]]
        if not matches:
            raise UsageError(f"no notebook {wanted!r}: there are {', '.join(p.stem for p in notebooks)}")
        return matches[0]

    chosen = [find(w) for w in only] or list(notebooks)
    if start is not None:
        chosen = [p for p in chosen if p >= find(start)]
        if not chosen:
            raise UsageError("--only and --from together leave no notebook to run")
    return sorted(set(chosen))


def known_parameters(path: Path) -> dict:
    """Names and default values (as source text) in a notebook's parameters cell."""
    from papermill import inspect_notebook

    return {name: info["default"] for name, info in inspect_notebook(str(path)).items()}


def parse_value(text: str):
    """A parameter's value: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def plan(notebooks: list[Path], profile: str, extra: dict) -> list[Job]:
    """The jobs of a run; a parameter that no chosen notebook has is an error."""
    known = {p: known_parameters(p) for p in notebooks}
    for name in extra:
        if not any(name in names for names in known.values()):
            have = sorted({n for names in known.values() for n in names})
            raise UsageError(f"no chosen notebook has a parameter {name!r}: there are {', '.join(have)}")
    package = hashlib.sha256(program_sha256().encode())
    for path in [
        PROJECT / "constraints.txt",
        data_dir() / "checkpoints" / "manifest.json",
        *sorted((data_dir() / "reference").glob("*")),
    ]:
        if path.is_file():
            package.update(path.read_bytes())
    settings = {k: os.environ.get(k) for k in ("NIC_KODAK_DIR", "NIC_DEVICE", "NIC_SWEEP_HOURS")}
    if extra.get("images") not in (None, "bundled", "kodak"):
        settings["files"] = [(p.name, p.stat().st_size, p.stat().st_mtime) for p in sorted(Path(extra["images"]).iterdir())]
    jobs = []
    for path in notebooks:
        parameters = {k: v for k, v in ({"profile": profile} | extra).items() if k in known[path]}
        content = json.dumps([parameters, settings], sort_keys=True, default=str).encode() + path.read_bytes()
        jobs.append(Job(path, parameters, hashlib.sha256(package.digest() + content).hexdigest()))
    return jobs


class State:
    """What was run to the end, kept in the build folder for --resume."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def done(self) -> dict[str, str]:
        """Name -> key of what is done; read anew each time, as another run may be writing, too."""
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}

    def record(self, job: Job | None, name: str) -> None:
        """Note a job as done (or, with None, as not)."""
        done = {k: v for k, v in self.done.items() if k != name}
        if job:
            done[name] = job.key
        temporary = self.path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(done, indent=1))
        temporary.replace(self.path)
