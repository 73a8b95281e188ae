"""Recipes: a file of training runs, each beginning from nothing or from an earlier one, run by one command.

    python -m nic_helpers.training --recipe data/recipes/bundled.toml --data DIR --val DIR --out data/training --jobs 2

Runs that are finished are passed over, one that was interrupted goes on at its last checkpoint, and those that do not
depend on each other go side by side.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from nic_helpers.codecs.checkpoints import read_weights
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundle, check_origin, first_start
from nic_helpers.training.export import file_of, is_ours
from nic_helpers.training.losses import train_step
from nic_helpers.training.settings import Settings, as_options, names
from nic_helpers.training.start import INITIALISE

_SETTINGS = names()
_OWN = {"name", "bundle", "stop", "keep_every"}
STATES = "states"  # the folder beside a recipe of what its begun runs have reached


@dataclass(frozen=True)
class Run:
    """One run of a recipe. ``after``: the run it begins from; ``stop``: where it ends, if before its schedule does;
    ``bundle``: among which of the repository's weights it is put when it is done, if any ("bundled" for ``true``)."""

    name: str
    settings: Settings
    after: str | None
    stop: int
    keep_every: int
    bundle: str

    def folder(self, out: Path) -> Path:
        """Where its state lies."""
        return out / self.name

    def done(self, out: Path) -> int:
        """Steps done so far."""
        state = self.folder(out) / "state.pt"
        return torch.load(state, map_location="cpu", weights_only=True)["step"] if state.is_file() else 0


def read_recipe(path: Path, out: Path) -> list[Run]:
    """The runs of a recipe in the order of the file; ``out`` is where their folders are.

    ``include`` names recipes beside it: of their runs come those, unbundled, that the recipe's own begin from.

    Raises ValueError, naming the run, for an unknown key or setting, a name given twice, or a start that is neither
    "pca", "random", "default", a set of this repository's weights ("bundled", or of another codec "bundled/mbt2018",
    "bundled/mbt2018/3") nor a run further up.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the recipe {path}: {error}") from error
    included = [replace(r, bundle="") for name in content.get("include", []) for r in read_recipe(path.parent / name, out)]
    runs: list[Run] = list(included)
    for entry in content.get("run", []):
        entry = content.get("defaults", {}) | entry
        name = entry.get("name", f"number {len(runs) + 1}")
        unknown = set(entry) - _SETTINGS - _OWN
        if unknown:
            raise ValueError(
                f"{path}, run {name}: unknown {', '.join(sorted(unknown))}; known: " + ", ".join(sorted(_SETTINGS | _OWN))
            )
        if name in {r.name for r in runs}:
            raise ValueError(f"{path} has two runs named {name}")
        start = entry.get("start", "pca")
        after = None if start in INITIALISE or is_ours(start) else start
        if after and after not in {r.name for r in runs}:
            raise ValueError(f"{path}, run {name} begins from {after!r}: no run of that name comes before it")
        given = {k: v for k, v in entry.items() if k in _SETTINGS}
        given |= {"widths": tuple(given.get("widths", ())), "start": str(out / after / "state.pt") if after else start}
        try:
            settings = Settings(**given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, run {name}: {error}") from error
        stop = min(entry.get("stop", settings.steps), settings.steps)
        collection = {True: "bundled", False: ""}.get(given_to := entry.get("bundle", False), given_to)
        runs.append(Run(name, settings, after, stop, entry.get("keep_every", 0), collection))
        _check_origin(path, runs)
    own = [r.name for r in runs[len(included) :]]
    if not own:
        raise ValueError(f"{path} has no [[run]]")
    return choose(runs, own)


def _check_origin(path: Path, runs: list[Run]) -> None:
    """ValueError if the last of the runs is to be put among weights that its beginning has no right to."""
    *_, last = chain = runs
    origin = last
    while origin.after:
        origin = next(r for r in chain if r.name == origin.after)
    s = origin.settings
    try:
        check_origin(last.bundle, first_start(read_weights(file_of(s.start, s.arch, s.quality))) if is_ours(s.start) else s.start)
    except ValueError as error:
        raise ValueError(f"{path}, run {last.name}: {error} ({origin.name})") from None


def choose(runs: list[Run], names: list[str], begun: Collection[str] = ()) -> list[Run]:
    """The named runs and all that they begin from (all runs, if no names are given); what a run in ``begun`` began from is not needed."""
    by_name = {r.name: r for r in runs}
    unknown = [n for n in names if n not in by_name]
    if unknown:
        raise ValueError(f"no run named {', '.join(unknown)}: there are {', '.join(by_name)}")
    wanted: set[str] = set(names or by_name)
    for r in reversed(runs):
        if r.name in wanted and r.after and r.name not in begun:
            wanted.add(r.after)
    return [r for r in runs if r.name in wanted]


def seconds_per_step(s: Settings, device: str = "cpu", steps: int = 2) -> float:
    """Seconds that one step of a run takes here, on random images, without the first (which warms up)."""
    arch = ARCHITECTURES[s.arch]
    torch.manual_seed(0)
    model = arch.build(*s.widths).to(device).train()
    shape = (model.M, s.crop // 16, s.crop // 16) if s.only else (3, s.crop, s.crop)
    x = torch.rand(s.batch, *shape, device=device)
    if s.channels_last:
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    took = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        train_step(s, arch, model, x, s.lmbda)[0].backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return min(took[1:])


def plan(runs: list[Run], out: Path, device: str = "cpu") -> pd.DataFrame:
    """What a recipe would do: one row a run, with the steps already done and the core-hours left at this machine's pace."""
    pace: dict[tuple, float] = {}
    rows = []
    for r in runs:
        s = r.settings
        kind = (s.arch, s.widths, s.batch, s.crop, s.bf16, s.channels_last, s.only, s.mixed)
        if kind not in pace:
            pace[kind] = seconds_per_step(s, device)
        done = min(r.done(out), r.stop)
        rows.append(
            {
                "run": r.name,
                "codec": s.arch,
                "quality": s.quality,
                "N, M": ", ".join(map(str, s.widths)),
                "begins from": r.after or s.start,
                "learns": s.learns,
                "steps": r.stop,
                "batch": f"{s.batch}×{s.crop}²",
                "lr": s.lr,
                "done": done,
                "hours left": (r.stop - done) * pace[kind] / 3600,
                "hours": r.stop * pace[kind] / 3600,
                "put among": r.bundle,
            }
        )
    return pd.DataFrame(rows)


def keep_states(runs: list[Run], a: argparse.Namespace) -> list[Path]:
    """Write where each begun run is into ``states/`` beside the recipe, in small form: kernels in half precision, without what the
    optimiser remembers. A clone of the repository goes on from there (:func:`_take_up`). Returns the files."""
    kept = []
    for r in runs:
        if not r.done(a.out):
            continue
        state = torch.load(r.folder(a.out) / "state.pt", map_location="cpu", weights_only=True)
        small = {k: v for k, v in state.items() if k != "optimiser"}
        small["model"] = {k: v.half() if v.dim() == 4 else v for k, v in state["model"].items()}
        small["log"] = (r.folder(a.out) / "log.csv").read_text()
        kept.append(_small_state(r, a))
        kept[-1].parent.mkdir(exist_ok=True)
        torch.save(small, kept[-1])
    return kept


def _small_state(r: Run, a: argparse.Namespace) -> Path:
    return a.recipe.parent / STATES / f"{r.name}.pt"


def _take_up(r: Run, a: argparse.Namespace) -> None:
    """Give a run that has not begun here the state that is kept beside the recipe, if there is one."""
    folder, small = r.folder(a.out), _small_state(r, a)
    if (folder / "state.pt").is_file() or not small.is_file():
        return
    state = torch.load(small, map_location="cpu", weights_only=True)
    (folder / "log.csv").write_text(state.pop("log"))
    state["model"] = {k: v.float() if v.dtype == torch.float16 else v for k, v in state["model"].items()}
    torch.save(state, folder / "state.pt")


def _command(r: Run, a: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "nic_helpers.training", "--out", str(r.folder(a.out)), "--data", str(a.data)]
    command += ["--device", a.device, "--every", str(a.every), "--keep-every", str(r.keep_every), "--stop", str(r.stop)]
    return command + (["--val", str(a.val)] if a.val else []) + as_options(r.settings)


def _execute(r: Run, a: argparse.Namespace) -> int:
    if r.done(a.out) >= r.stop and (r.folder(a.out) / "weights.safetensors").is_file():
        return 0
    r.folder(a.out).mkdir(parents=True, exist_ok=True)
    _take_up(r, a)
    threads = {"OMP_NUM_THREADS": "1"} if a.jobs > 1 else {}
    with (r.folder(a.out) / "output.txt").open("ab") as log:
        return subprocess.run(_command(r, a), stdout=log, stderr=subprocess.STDOUT, env=os.environ | threads).returncode


def execute(runs: list[Run], a: argparse.Namespace) -> list[str]:
    """Run them all, ``a.jobs`` at a time, each after the one it begins from; returns the names of those that failed.

    A run whose start failed is not begun. Output goes to ``output.txt`` in each run's folder.
    """
    waiting, finished, failed, chosen = list(runs), set(), [], {r.name for r in runs}
    with ThreadPoolExecutor(a.jobs) as pool:
        going: dict[Future, Run] = {}
        while waiting or going:
            ready = [r for r in waiting if r.after in finished or r.after not in chosen]  # what is not chosen has been done before
            for r in ready[: a.jobs - len(going)]:  # no more: what becomes ready meanwhile comes in the recipe's order, too
                waiting.remove(r)
                going[pool.submit(_execute, r, a)] = r
            if not going:
                failed += [r.name for r in waiting]
                break
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                r = going.pop(future)
                if future.result() == 0:
                    finished.add(r.name)
                    if r.bundle:
                        bundle(r.folder(a.out) / "weights.safetensors", r.settings.arch, r.settings.quality, r.bundle)
                    print(f"{r.name}: finished", flush=True)
                else:
                    failed.append(r.name)
                    print(f"{r.name}: failed, see {r.folder(a.out) / 'output.txt'}", flush=True)
    return failed


def run_from_command_line(a: argparse.Namespace) -> int:
    """``--recipe``: print the plan, and unless it is a dry run, do it. Returns the exit status."""
    a.out = a.out or Path("data/training")
    try:
        runs = read_recipe(a.recipe, a.out)
        runs = choose(
            runs, a.only_runs, {r.name for r in runs if (r.folder(a.out) / "state.pt").is_file() or _small_state(r, a).is_file()}
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if a.dry_run:
        table = plan(runs, a.out, a.device)
        print(table.to_string(index=False, float_format=lambda v: f"{v:.3g}"))
        where = (
            torch.cuda.get_device_name(a.device)
            if a.device.startswith("cuda")
            else (f"CPU with {torch.get_num_threads()} thread{'s'[: torch.get_num_threads() != 1]} a run")
        )
        print(
            f"{len(runs)} runs: {table['hours'].sum():.1f} hours in all, {table['hours left'].sum():.1f} left, "
            f"one after the other, at the pace of this {where}"
        )
        return 0
    if a.keep_states:
        print(*keep_states(runs, a), sep="\n")
        return 0
    if a.data is None:
        print("a recipe needs --data (and --val to watch it)", file=sys.stderr)
        return 2
    failed = execute(runs, a)
    if failed:
        print(f"not finished: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
