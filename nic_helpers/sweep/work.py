"""Run a grid's units: what is missing is handed out, written as it comes back, and tried again where it fails."""

from __future__ import annotations

import math
import sys
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

from nic_helpers.sweep import unit as one
from nic_helpers.sweep.dataset import Dataset, SweepError
from nic_helpers.sweep.executors import BROKEN, NotFoundThere, Pool, leave_if_started_by_a_sweep, pool_of
from nic_helpers.sweep.grid import Grid
from nic_helpers.sweep.unit import Unit

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
        done = data.done() - (data.by_others(one.versions()) if same_program else set())
        missing = [u for u in units if u.key not in done]
        if missing:
            pool = pool_of(executor, jobs, stack)
            bar = stack.enter_context(_bar(units, missing, progress))
            _Work(missing, data, pool, bar, time.monotonic() + seconds).run()
    failed = {k: v for k, v in data.failures().items() if k in {u.key for u in units}}
    if failed:
        first = next(iter(failed.values()))
        warnings.warn(
            f"{len(failed)} of {len(units)} units failed; their rows are missing, or those of an earlier run; the "
            f"first: {first['unit']}: "
            f"{first['error'].splitlines()[-1]}. See {data.folder / 'failed'}; the next run tries them again.",
            stacklevel=2,
        )
    if same_program and (left := data.by_others(one.versions()) & {u.key for u in units}):
        warnings.warn(
            f"the rows of {len(left)} of {len(units)} units are still those of another program: the time was over, they "
            "failed, or the workers have other versions than this process",
            stacklevel=2,
        )
    return data.read(u.key for u in units)


def _bar(units: list[Unit], missing: list[Unit], progress: bool) -> tqdm:
    """A progress bar in which a costly unit counts for more, so that its time left can be believed."""
    total, left = (sum(map(one.relative_cost, which)) for which in (units, missing))
    bar = tqdm(
        total=total,
        initial=total - left,
        disable=not progress,
        unit="",
        # what a notebook gets by stderr looks like an error
        file=sys.stdout if type(sys.stdout).__module__.startswith("ipykernel") else None,
        mininterval=1,
        bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}",
    )
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
                print(
                    f"\nInterrupted: {self.bar.units_done} of {self.bar.units} units are done and kept in "
                    f"{self.data.folder}; the same command goes on.",
                    file=sys.stderr,
                )
            raise

    def _hand_out(self) -> None:
        window = 1 if self.suspects else max(1, AHEAD * self.pool.width())
        while self.waiting and len(self.running) < window:
            unit = next((u for u in self.waiting if u.key in self.suspects), self.waiting[0])
            try:
                future = self.pool.submit(one.run_unit, unit)
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
        self.bar.update(one.relative_cost(unit))

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
            raise SweepError(
                f"processes were killed {self.breaks} times with no unit done in between: is there memory enough "
                "for one, and does the package import? What is done is kept"
            )
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
