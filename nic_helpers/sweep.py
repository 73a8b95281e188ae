"""Run a grid: resumable, on one process, several, or a cluster.

    table = sweep.run(grid, "build/sweep/mine")                    # here
    table = sweep.run(grid, "build/sweep/mine", jobs=2)            # two processes
    table = sweep.run(grid, "build/sweep/mine", executor=client.get_executor())       # Dask, or any concurrent.futures

python -m nic_helpers.sweep robustness --dry-run                  # the course's own studies: see nic_helpers.study

Units that are done are not done again (unless ``same_program`` asks for it). However a run ends, the same call goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from nic_helpers import attacks, grid
from nic_helpers.codecs import NeuralCodec
from nic_helpers.dataset import Dataset, SweepError
from nic_helpers.executors import BROKEN, NotFoundThere, Pool, leave_if_started_by_a_sweep, pool_of
from nic_helpers.grid import Grid, Unit
from nic_helpers.images import load_images
from nic_helpers.metrics import before_after
from nic_helpers.models import ARCHITECTURES
from nic_helpers.settings import get_device
from nic_helpers.weights import Weights

ATTEMPTS = 2  # of a unit, before its error is recorded and the rest goes on
AHEAD = 3  # units handed out for each worker: enough to keep it busy, few enough to lose little
BREAKS = 5  # processes killed with no unit done in between, before it is the machine and not a unit


def units_of(study: Grid | Sequence[Grid]) -> list[Unit]:
    """The units of one grid, or of several in their order, each once."""
    grids = [study] if isinstance(study, Grid) else study
    return list({u.key: u for g in grids for u in g.units()}.values())


def run(
    study: Grid | Sequence[Grid],
    folder: str | Path,
    *,
    executor: Executor | None = None,
    jobs: int = 1,
    progress: bool = True,
    seconds: float = math.inf,
    same_program: bool = False,
) -> pd.DataFrame:
    """Do all units of a grid (or of several, in turn) that ``folder`` has not got yet; returns the rows of all, in order.

    ``executor``: anything that submits like :mod:`concurrent.futures` (it is not shut down here); otherwise Dask's where
    ``DASK_SCHEDULER_ADDRESS`` is set; otherwise ``jobs`` processes of this machine (1: this process). Rows are written
    here, by one process, so workers need no common disk; they need this package, its data folder and the images.
    ``seconds``: hand out no more units after so long, drop those that have not begun, and return what there is (a
    cluster's job has a limit). ``same_program``: do those units again whose rows another version of this package, or of
    those that it stands on, has made; the old rows stay until the new ones are there, and a warning says how many are left.

    A unit that fails is tried once more, then recorded with its error, and the rest goes on; a warning names them at the
    end, and the next run tries them again. Raises :class:`SweepError` where nothing can go on: a full disk, another run
    in the same folder, a broken executor, workers that cannot start or cannot find what the grid names.
    """
    leave_if_started_by_a_sweep()
    if isinstance(jobs, bool) or not isinstance(jobs, Integral) or jobs < 1:
        raise ValueError(f"jobs is a number of processes, 1 or more, got {jobs!r}")
    if not seconds >= 0:
        raise ValueError(f"seconds must be a time, 0 or more, got {seconds!r}")
    units = units_of(study)
    data = Dataset(folder)
    with ExitStack() as stack:
        stack.enter_context(data.writing())
        done = data.done() - (data.by_others(grid.versions()) if same_program else set())
        missing = [u for u in units if u.key not in done]
        if missing:
            pool = pool_of(executor, jobs, stack)
            bar = stack.enter_context(_bar(units, missing, progress))
            _Work(missing, data, pool, bar, time.monotonic() + seconds).run()
    failed = {k: v for k, v in data.failures().items() if k in {u.key for u in units}}
    if failed:
        first = next(iter(failed.values()))
        warnings.warn(f"{len(failed)} of {len(units)} units failed; their rows are missing, or those of an earlier run; the "
                      f"first: {first['unit']}: "
                      f"{first['error'].splitlines()[-1]}. See {data.folder / 'failed'}; the next run tries them again.",
                      stacklevel=2)  # fmt: skip
    if same_program and (left := data.by_others(grid.versions()) & {u.key for u in units}):
        warnings.warn(f"the rows of {len(left)} of {len(units)} units are still those of another program: the time was over, they "
                      "failed, or the workers have other versions than this process", stacklevel=2)  # fmt: skip
    return data.read(u.key for u in units)


def _bar(units: list[Unit], missing: list[Unit], progress: bool) -> tqdm:
    """A progress bar in which a costly unit counts for more, so that its time left can be believed."""
    total, left = (sum(map(grid.relative_cost, which)) for which in (units, missing))
    bar = tqdm(total=total, initial=total - left, disable=not progress, unit="", mininterval=1,
               bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}")  # fmt: skip
    bar.set_postfix_str(f"{len(units) - len(missing)} of {len(units)} units")
    bar.units_done, bar.units = len(units) - len(missing), len(units)
    return bar


class _Work:
    """The loop that hands out units, writes what comes back, and tries again what fails."""

    def __init__(self, missing: list[Unit], data: Dataset, pool: Pool, bar: tqdm, until: float):
        self.data, self.pool, self.bar, self.until = data, pool, bar, until
        self.waiting: deque[Unit] = deque(missing)
        self.running: dict[Future, Unit] = {}
        self.attempts: dict[str, int] = {}
        self.suspects: set[str] = set()  # in flight when a process was killed: then alone, to see which one kills it
        self.breaks = 0

    def run(self) -> None:
        """Until nothing is left, or the time is over."""
        try:
            while self.waiting or self.running:
                if time.monotonic() > self.until:
                    self._stop_early()
                self._hand_out()
                finished, _ = wait(self.running, timeout=2, return_when=FIRST_COMPLETED)
                broken = [f for f in finished if f.cancelled() or isinstance(f.exception(), BROKEN)]
                for future in finished:
                    if future not in broken:
                        self._take_back(self.running.pop(future), future)
                if broken:
                    self._begin_again()
        except BaseException as error:
            for future in self.running:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                print(f"\nInterrupted: {self.bar.units_done} of {self.bar.units} units are done and kept in "
                      f"{self.data.folder}; the same command goes on.", file=sys.stderr)  # fmt: skip
            raise

    def _hand_out(self) -> None:
        window = 1 if self.suspects else max(1, AHEAD * self.pool.width())
        while self.waiting and len(self.running) < window:
            unit = next((u for u in self.waiting if u.key in self.suspects), self.waiting[0])
            try:
                future = self.pool.submit(grid.run_unit, unit)
            except BROKEN:
                if not self.running:
                    self._begin_again()
                return
            self.waiting.remove(unit)
            self.running[future] = unit

    def _take_back(self, unit: Unit, future: Future) -> None:
        error = future.exception()
        if error is None:
            self.data.write(unit.key, future.result())
            self.breaks = 0
        elif isinstance(error, NotFoundThere):
            raise error
        elif not self._failed(unit, error):
            return
        self.suspects.discard(unit.key)
        self.bar.units_done += 1
        self.bar.set_postfix_str(f"{self.bar.units_done} of {self.bar.units} units", refresh=False)
        self.bar.update(grid.relative_cost(unit))

    def _failed(self, unit: Unit, error: BaseException) -> bool:
        """Count an attempt; whether it was the last. Then its error is recorded."""
        self.attempts[unit.key] = self.attempts.get(unit.key, 0) + 1
        if self.attempts[unit.key] < ATTEMPTS:
            self.waiting.appendleft(unit)
            return False
        self.data.fail(unit.key, str(unit), "".join(traceback.format_exception(error)))
        return True

    def _begin_again(self) -> None:
        """After a process was killed: new ones, for what was in flight, one unit at a time."""
        self.pool.renew()
        self.breaks += 1
        if self.breaks > BREAKS:
            raise SweepError(f"processes were killed {self.breaks} times with no unit done in between: is there memory enough "
                             "for one, and does the package import? What is done is kept")  # fmt: skip
        units = list(self.running.values())
        self.running.clear()
        alone = len(units) == 1
        for unit in units:
            if not alone:
                self.suspects.add(unit.key)
                self.waiting.appendleft(unit)
            elif self._failed(unit, BrokenProcessPool("the process that did it was killed")):
                self.suspects.discard(unit.key)
                self.breaks = 0

    def _stop_early(self) -> None:
        """Drop what has not begun; what failed once and will not be tried again is left for the next run."""
        self.waiting.clear()
        for future in list(self.running):
            if future.cancel():
                del self.running[future]


# ------------------------------------------------------------------------------------------------------- what it costs
def pace(name: str, quality: float, weights: str, pixels: int) -> dict[str, float]:
    """Seconds of a gradient evaluation and of coding and measuring, an image of ``pixels``, timed now on this device.

    ``guessed``: 1 where the weights are not at hand, so that random ones of the published size were timed.
    """
    x = load_images("bundled")[0][None]
    scale, guessed = pixels / x[0, 0].numel(), 0.0
    try:
        codec = grid.codec_at(name, quality, weights)
    except (ConnectionError, FileNotFoundError, ValueError):
        codec, guessed = _random(name, int(quality)), 1.0
    attack = attacks.PGD(8 / 255, steps=4, precision="auto")
    took = {"gradient": 0.0}
    if codec.differentiable:
        attack.with_(steps=1)(codec, x)
        began = time.perf_counter()
        attack(codec, x)
        took["gradient"] = (time.perf_counter() - began) / attack.steps * scale
    began = time.perf_counter()
    # random weights spend bits that no trained codec does: their coding time is that of the bundled ones, where there are
    coder = grid.codec_at(name, 3, "bundled") if guessed else codec
    before_after(coder, x, x, coded=(coder.roundtrip(x),) * 2)
    took["coding"] = (time.perf_counter() - began) * scale
    return took | {"guessed": guessed}


def _random(name: str, quality: int) -> NeuralCodec:
    arch = ARCHITECTURES[name]
    model = arch.build(*arch.published_widths[quality])
    return NeuralCodec(name, quality, Weights(model.state_dict(), "random", name, "00" * 32, 0.01), get_device())


def costs(study: Grid | Sequence[Grid], folder: str | Path | None = None, same_program: bool = False) -> pd.DataFrame:
    """What a study costs on this device: a row a unit, with its gradients, seconds, whether it is done, and whether it was
    another program that did it (which counts as not done for ``same_program``)."""
    units = units_of(study)
    data = Dataset(folder) if folder and Path(folder).is_dir() else None
    done, others = (data.done(), data.by_others(grid.versions())) if data else (set(), set())
    done -= others if same_program else set()
    paces = {}
    for unit in tqdm(units, desc="timing the codecs", leave=False):
        pixels = grid.images_of(unit.source, unit.crop)[unit.images[0]][0].numel()
        for codec in (*unit.attacked, *unit.measured):
            if (*codec, unit.weights) not in paces:
                paces[*codec, unit.weights] = pace(*codec, unit.weights, pixels)
    rows = []
    for u in units:
        gradients = grid.expected_gradients(u.attack, u.objective) * len(u.images)
        seconds = sum(paces[*c, u.weights]["gradient"] for c in u.attacked) * gradients
        seconds += sum(paces[*c, u.weights]["coding"] for c in u.measured) * len(u.images)
        rows.append({"attacked": u.label, "attack": u.name, "units": 1, "images": len(u.images), "gradients": gradients,
                     "seconds": seconds, "done": u.key in done, "by_others": u.key in others,
                     "seconds_left": 0.0 if u.key in done else seconds,
                     "guessed": max(paces[*c, u.weights]["guessed"] for c in (*u.attacked, *u.measured))})  # fmt: skip
    return pd.DataFrame(rows)


def plan(study: Grid | Sequence[Grid], folder: str | Path | None, jobs: int, same_program: bool = False) -> str:
    """The dry run: units, what is done, and hours, as text."""
    table = costs(study, folder, same_program)
    by_codec = table.groupby("attacked", sort=False).agg(
        units=("units", "sum"), done=("done", "sum"), gradients=("gradients", "sum"), hours=("seconds", "sum"),
        left=("seconds_left", "sum"),
    )  # fmt: skip
    by_codec[["hours", "left"]] /= 3600
    hours, left = table["seconds"].sum() / 3600, table["seconds_left"].sum() / 3600
    lines = [by_codec.to_string(float_format=lambda v: f"{v:.2f}"), "",
             f"{len(table)} units, {int(table['done'].sum())} of them done; {table['gradients'].sum():,.0f} gradient evaluations",
             f"{hours:.1f} hours of this device ({get_device()}), {left:.1f} of them left; with {jobs} process"
             f"{'es' * (jobs > 1)} about {left / jobs:.1f} hours from now"]  # fmt: skip
    if table["by_others"].any():
        lines.append(f"{int(table['by_others'].sum())} units were done by another version of this program or of its packages: "
                     "with --same-program they are done again")  # fmt: skip
    if table["guessed"].any():
        lines.append("Timed with random weights of the published size, as the weights themselves are not at hand: "
                     + ", ".join(dict.fromkeys(table.loc[table["guessed"] > 0, "attacked"])))  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line; exit status 0 if all units are done, 1 if some failed, 2 for a usage error, 130 after Ctrl-C."""
    from nic_helpers import study

    p = argparse.ArgumentParser(prog="python -m nic_helpers.sweep", description="Run one of the course's studies.")
    p.add_argument("study", choices=study.NAMES, help="which")
    p.add_argument("--profile", default="standard", choices=list(study.PROFILES))
    p.add_argument("--out", type=Path, help="folder of the rows (default: build/sweep/STUDY-PROFILE)")
    p.add_argument("--jobs", type=int, default=1, help="processes side by side (default 1)")
    p.add_argument("--dry-run", action="store_true", help="units, cost and what is done")
    p.add_argument(
        "--from", dest="table", type=Path, help="a published table (Parquet) whose rows are taken over first"
    )
    p.add_argument("--same-program", action="store_true", help="do again what another version of the program did")
    p.add_argument("--save", type=Path, help="write all rows to this one Parquet file")
    a = p.parse_args(argv)
    if a.jobs < 1:
        p.error(f"--jobs is a number of processes, 1 or more, got {a.jobs}")
    if a.save and not a.save.absolute().parent.is_dir():
        p.error(f"--save: there is no folder {a.save.absolute().parent}")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way to say Ctrl-C
    chosen, out = study.grids_of(a.study, a.profile), a.out or study.folder(a.study, a.profile)
    try:
        if a.dry_run:
            print(plan(chosen, out, a.jobs, a.same_program))
            return 0
        if a.table:
            Dataset(out).add(pd.read_parquet(a.table))
        table = run(chosen, out, jobs=a.jobs, same_program=a.same_program)
        if a.save:
            table.to_parquet(a.save, index=False, compression="zstd")
        print(f"{len(table)} rows of {table['unit'].nunique() if len(table) else 0} units in {out}")
        return 1 if {u.key for u in units_of(chosen)} & set(Dataset(out).failures()) else 0
    except (SweepError, OSError, ValueError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
