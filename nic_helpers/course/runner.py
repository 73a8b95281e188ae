"""The headless run: papermill through the notebooks in order, with a table at the end.

python -P -m nic_helpers.course.runner --profile quick     (what ./run_all.sh calls)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from nic_helpers.course.jobs import (
    FOLDERS,
    OTHER_PARAMETERS,
    PROFILES,
    Job,
    State,
    UsageError,
    find_notebooks,
    parse_value,
    plan,
    select,
)
from nic_helpers.course.kernels import check_writable, isolate
from nic_helpers.course.pages import write_html
from nic_helpers.course.site import write_site
from nic_helpers.settings import PROJECT, get_device, sweep_seconds


def execute_as_it_can(job: Job, build: Path, elsewhere: set[str]) -> str:
    """:func:`execute`; a parameter for which there are other notebooks ``elsewhere``, and whose value this one refuses
    (:class:`nic_helpers.course.ParameterError`), keeps its own value here. Returns the status for the table."""
    kept = []
    while True:
        try:
            execute(job, build)
            return "ok" + f" (kept its own {', '.join(kept)})" * bool(kept)
        except Exception as error:
            refused = str(getattr(error, "evalue", "")).partition(" ")[0]
            given = job.parameters.keys() - {"profile", "seed"}
            # one that is not given is refused for what is: shown_levels must be among levels
            drop = given & elsewhere & ({refused} if refused in given else given)
            if getattr(error, "ename", "") != "ParameterError" or not drop:
                raise
            print(f"{job.name} keeps its own {', '.join(sorted(drop))}: {error.evalue}", file=sys.stderr)
            kept += sorted(drop)
            job.parameters = {k: v for k, v in job.parameters.items() if k not in drop}


def execute(job: Job, build: Path) -> None:
    """Run one notebook into the build folder, then write it as HTML."""
    import papermill

    for leftover in products(job, build):
        leftover.unlink()
    os.environ[OTHER_PARAMETERS] = "1" * bool(job.parameters.keys() - {"profile", "seed"})
    output = build / "executed" / job.path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(job.path),
        str(output),
        parameters=job.parameters,
        kernel_name="python3",
        cwd=str(job.path.parent),
        progress_bar={"desc": job.name, "ncols": 80, "file": sys.stderr},
        log_output=False,
    )
    write_html(output, page_of(job, build))


def page_of(job: Job, build: Path) -> Path:
    """Where a notebook's HTML page is."""
    return build / "html" / f"{job.name}.html"


def products(job: Job, build: Path) -> list[Path]:
    """The figures and tables that a notebook has written."""
    return [p for folder in ("figures", "results") for p in sorted((build / folder).glob(f"{job.name[:2]}_*"))]


def publish(job: Job, build: Path) -> None:
    """Replace a notebook's committed figures and tables by those of the build folder."""
    targets = {"figures": PROJECT / "figures", "results": PROJECT / "data" / "results"}
    for target in targets.values():
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob(f"{job.name[:2]}_*"):
            old.unlink()
    for path in products(job, build):
        shutil.copy2(path, targets[path.parent.name] / path.name)


def table(rows: list[tuple[str, str, str]]) -> str:
    """Rows of text in columns."""
    rows = [("notebook", "seconds", "status"), *rows]
    widths = [max(len(r[k]) for r in rows) for k in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows)


def explain(error: Exception) -> str:
    """A failed notebook in a few lines: the cell, its source and the error."""
    if hasattr(error, "ename"):
        source = "\n".join(f"    {line}" for line in str(error.source).splitlines()[:30])
        return f"cell [{error.exec_count}]:\n{source}\n{error.ename}: {error.evalue}"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}\nIs there room, and may you write there? NIC_BUILD_DIR names another build folder."
    return f"{type(error).__name__}: {error}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="run_all.sh", description="Run the course's notebooks in order, headless.")
    p.add_argument("--profile", default="quick", help="quick (default), standard or full")
    p.add_argument("--only", action="append", default=[], metavar="NN", help="this notebook alone (may be repeated)")
    p.add_argument("--from", dest="start", metavar="NN", help="this notebook and those after it")
    p.add_argument("--resume", action="store_true", help="skip what is unchanged since its last good run")
    p.add_argument("--dry-run", action="store_true", help="say what would run, and stop")
    p.add_argument("--publish", action="store_true", help="standard profile: also write figures/ and data/results/")
    p.add_argument("--html", action="store_true", help="write the pages and their index from what was run (runs if nothing was)")
    p.add_argument("--cpu", action="store_true", help="use no GPU; on the first run, install torch without GPU libraries (README)")
    p.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter")
    return p.parse_args(argv)


def what_to_run(a: argparse.Namespace, notebooks: Path) -> list[Job]:
    """The jobs that a command line asks for; UsageError for one that asks for what there is not."""
    if a.cpu:
        os.environ["NIC_DEVICE"] = "cpu"  # the notebooks' kernels have it from here
    if a.profile not in PROFILES:
        raise UsageError(f"no profile {a.profile!r}: there are {', '.join(PROFILES)}")
    if a.publish and a.profile != "standard":
        raise UsageError("--publish goes with --profile standard: only that run's figures are committed")
    if a.publish and a.html:
        raise UsageError("--publish goes without --html, which runs nothing that has been run")
    if a.publish and a.p:
        raise UsageError("--publish goes without -p: what is committed is the profile's own run")
    extra = {name: parse_value(value) for name, value in a.p}
    if len(extra) < len(a.p):
        raise UsageError("a parameter is given twice with -p: which of its values?")
    images = dict(a.p).get("images", "None")
    if images not in ("None", "bundled", "kodak"):  # a folder, as seen from where the command was given
        extra["images"] = str(Path(images).resolve())
        if not Path(images).is_dir():
            raise UsageError(f"no such folder of images: {extra['images']}")
    if "profile" in extra:
        raise UsageError("give the profile with --profile, not -p")
    jobs = plan(select(find_notebooks(notebooks), a.only, a.start), a.profile, extra)
    try:  # for another machine, maybe, where it is a dry run
        sweep_seconds(), a.dry_run or get_device()
    except (RuntimeError, ValueError) as error:
        raise UsageError(str(error)) from None
    return jobs


class Run:
    """One run of the course: what has been done, and how it went."""

    def __init__(self, a: argparse.Namespace, jobs: list[Job], build: Path):
        self.a, self.jobs, self.build, self.state = a, jobs, build, State(build / "state.json")
        self.rows: list[tuple[str, str, str]] = []
        self.failed: tuple[str, Exception] | None = None
        self._taken: set[str] = set()  # parameters that some notebook had a use for

    def do(self, k: int) -> None:
        """The k-th job: skipped, listed or executed."""
        job = self.jobs[k]
        fresh = self.state.done.get(job.name) == job.key and page_of(job, self.build).is_file()
        if self.failed:
            self.rows.append((job.name, "", "not run"))
        elif self.a.resume and fresh:
            if self.a.publish and not self.a.dry_run:
                publish(job, self.build)
            self.rows.append((job.name, "", "unchanged, skipped"))
        elif self.a.dry_run:
            self.rows.append((job.name, "", "would run: " + (", ".join(f"{n}={v!r}" for n, v in job.parameters.items()))))
        else:
            print(f"[{k + 1}/{len(self.jobs)}] {job.name}", file=sys.stderr, flush=True)
            self._execute(job, self._taken.union(*(other.parameters for other in self.jobs[k + 1 :])))

    def _execute(self, job: Job, elsewhere: set[str]) -> None:
        began = time.perf_counter()
        try:
            self.state.record(None, job.name)
            status = execute_as_it_can(job, self.build, elsewhere)
            self.state.record(job, job.name)
            if self.a.publish:
                publish(job, self.build)
            self._taken |= job.parameters.keys()
        except Exception as error:
            self.failed, status = (job.name, error), f"failed: {type(error).__name__}"
        except KeyboardInterrupt:
            print(f"\nInterrupted in {job.name}; go on with --resume.", file=sys.stderr)
            raise
        self.rows.append((job.name, f"{time.perf_counter() - began:.1f}", status))

    def executed(self) -> list[Job]:
        """The jobs whose notebooks have been run to their end, at whatever profile."""
        return [job for job in self.jobs if job.name in self.state.done and self._executed(job).is_file()]

    def write_pages(self, jobs: list[Job]) -> None:
        """The pages again, from what was run before; nothing is run."""
        for job in self.jobs:
            if job in jobs:
                write_html(self._executed(job), page_of(job, self.build))
            self.rows.append((job.name, "", "page written, not run" if job in jobs else "has not been run: no page"))

    def _executed(self, job: Job) -> Path:
        return self.build / "executed" / job.path.name


def main(argv: list[str] | None = None, notebooks: Path | None = None, build: Path | None = None) -> int:
    """Run; the exit status is 0 if all went well, 1 if a notebook failed, 2 for a usage error."""
    a = parse(argv)
    for name in FOLDERS:  # notebooks run in their own folder: a relative path means where the command was given
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).resolve())
    notebooks = notebooks or PROJECT / "notebooks"
    build = build or Path(os.environ.get("NIC_BUILD_DIR") or PROJECT / "build").resolve()
    try:
        run = Run(a, what_to_run(a, notebooks), build)
        if not a.dry_run:
            check_writable(build)
            isolate(build)
    except UsageError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"run_all.sh: cannot write to {build} ({error}): set NIC_BUILD_DIR to a folder of yours", file=sys.stderr)
        return 2
    try:
        if a.html and not a.dry_run and (there := run.executed()):
            run.write_pages(there)
        else:
            for k in range(len(run.jobs)):
                run.do(k)
    except KeyboardInterrupt:
        return 130
    print(table(run.rows))
    if run.failed:
        with contextlib.suppress(OSError):  # which may be what failed
            write_site(build, find_notebooks(notebooks))
        name, error = run.failed
        print(f"\n{name} failed in {explain(error)}\nWhat was finished is in {build}; go on with --resume.", file=sys.stderr)
        return 1
    if not a.dry_run:
        print(f"The course as a site: {write_site(build, find_notebooks(notebooks))}")
        print(f"Executed notebooks, pages and figures: {build}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
