"""The command line: python -m nic_helpers.sweep STUDY, one of the course's own studies."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

import pandas as pd

from nic_helpers.course import studies
from nic_helpers.course.begin import PROFILES
from nic_helpers.course.grids import NAMES
from nic_helpers.sweep.cost import plan
from nic_helpers.sweep.dataset import Dataset, SweepError
from nic_helpers.sweep.work import run, units_of


def main(argv: list[str] | None = None) -> int:
    """The command line; exit status 0 if all units are done, 1 if some failed, 2 for a usage error, 130 after Ctrl-C."""
    p = argparse.ArgumentParser(prog="python -m nic_helpers.sweep", description="Run one of the course's studies.")
    p.add_argument("study", choices=NAMES, help="which")
    p.add_argument("--profile", default="standard", choices=list(PROFILES))
    p.add_argument("--out", type=Path, help="folder of the rows (default: build/sweep/STUDY-PROFILE)")
    p.add_argument("--jobs", type=int, default=1, help="processes side by side (default 1)")
    p.add_argument("--dry-run", action="store_true", help="units, cost and what is done")
    p.add_argument("--from", dest="table", type=Path, help="a published table (Parquet) whose rows are taken over first")
    p.add_argument("--same-program", action="store_true", help="do again what another version of the program did")
    p.add_argument("--save", type=Path, help="write all rows to this one Parquet file")
    a = p.parse_args(argv)
    if a.jobs < 1:
        p.error(f"--jobs is a number of processes, 1 or more, got {a.jobs}")
    if a.save and not a.save.absolute().parent.is_dir():
        p.error(f"--save: there is no folder {a.save.absolute().parent}")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way to say Ctrl-C
    chosen, out = studies.grids_of(a.study, a.profile), a.out or studies.folder(a.study, a.profile)
    try:
        given = pd.read_parquet(a.table) if a.table else None
        if a.dry_run:
            elsewhere = () if given is None or a.same_program else given.get("unit", ())
            print(plan(chosen, out, a.jobs, a.same_program, elsewhere))
            return 0
        if given is not None:
            Dataset(out).add(given)
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
