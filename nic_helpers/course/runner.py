"""The headless run: papermill through the notebooks in order, with a table at the end.

python -P -m nic_helpers.course.runner --profile quick     (what ./run_all.sh calls)
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nic_helpers.settings import PROJECT, data_dir, get_device, sweep_seconds
from nic_helpers.sweep.program import program_sha256

PROFILES = ("quick", "standard", "full")
FOLDERS = ("NIC_KODAK_DIR", "NIC_JPEGAI_DIR", "NIC_DATA_DIR", "NIC_BUILD_DIR")
#: What a shell may have set for other programs (PYTHONPATH, PYTHONOPTIMIZE, JUPYTER_PATH, MATPLOTLIBRC, TQDM_DISABLE …), and would
#: change pages or leave their figures out: not for kernels.
NOT_FOR_KERNELS = ("PYTHON", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", "TQDM_", "COLUMNS", "LINES")


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


def isolate(build: Path) -> None:
    """Keep Jupyter, IPython and matplotlib out of the home folder, what the shell has set away from the kernel, and the
    kernel in this environment, with this program and the backend that puts figures into pages."""
    state = build / "state"
    for name in [n for n in os.environ if n.startswith(NOT_FOR_KERNELS)]:
        del os.environ[name]
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        folder = state / name.lower()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    profile = state / "ipythondir" / "profile_default"
    profile.mkdir(exist_ok=True)
    # the kernel talks to this machine only; its warning that it does so unencrypted would come with every notebook
    # what lies beside the notebooks is no module of theirs
    config = "c.IPKernelApp.log_level = 40\nc.InteractiveShellApp.ignore_cwd = True\n"
    (profile / "ipython_kernel_config.py").write_text(config)
    # a user-level kernelspec named python3 would otherwise win over the environment's own
    os.environ |= {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "NIC_PREFIX": sys.prefix,
        "NIC_BUILD_DIR": str(build),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "PYTHONPATH": str(_only_this_package(state)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _only_this_package(state: Path) -> Path:
    """A folder for the import path with this package and nothing else: the installed one may be another clone's."""
    folder = state / "path"
    folder.mkdir(exist_ok=True)
    link = folder / "nic_helpers"
    try:
        if not link.is_symlink() or link.resolve() != PROJECT / "nic_helpers":
            link.unlink(missing_ok=True)
            link.symlink_to(PROJECT / "nic_helpers", target_is_directory=True)
    except FileExistsError:  # another run has just made it
        return folder
    except OSError:  # a disk without links: the project's folder, with whatever else is there
        return PROJECT
    return folder


def check_writable(build: Path) -> None:
    """OSError unless what a run makes can be written."""
    for name in ("", "executed", "html", "figures", "results"):
        (build / name).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=build / name).close()


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
    write_html(output, build / "html" / f"{job.name}.html")


def write_html(notebook: Path, page: Path) -> None:
    """An executed notebook as one HTML file: formulas as MathML, links between notebooks leading to their pages."""
    import nbformat
    from nbconvert import HTMLExporter

    nb = nbformat.read(notebook, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_to_mathml(cell.source)
    exporter = HTMLExporter(mathjax_url="")  # nothing of the page is fetched from elsewhere to show a formula
    body, _ = exporter.from_notebook_node(nb)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', body), encoding="utf-8")


def formulas_to_mathml(text: str) -> str:
    """Markdown with its $…$ and $$…$$ turned into MathML, which browsers draw themselves."""
    from latex2mathml.converter import convert

    text = re.sub(r"\$\$(.+?)\$\$", lambda m: convert(m[1].strip(), display="block"), text, flags=re.S)
    return re.sub(r"(?<![\\$])\$([^$\n]+)\$", lambda m: convert(m[1]), text)


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
    p.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter")
    return p.parse_args(argv)


def main(argv: list[str] | None = None, notebooks: Path | None = None, build: Path | None = None) -> int:
    """Run; the exit status is 0 if all went well, 1 if a notebook failed, 2 for a usage error."""
    a = parse(argv)
    for name in FOLDERS:  # notebooks run in their own folder: a relative path means where the command was given
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).resolve())
    build = build or Path(os.environ.get("NIC_BUILD_DIR") or PROJECT / "build").resolve()
    try:
        if a.profile not in PROFILES:
            raise UsageError(f"no profile {a.profile!r}: there are {', '.join(PROFILES)}")
        if a.publish and a.profile != "standard":
            raise UsageError("--publish goes with --profile standard: only that run's figures are committed")
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
        chosen = select(find_notebooks(notebooks or PROJECT / "notebooks"), a.only, a.start)
        jobs = plan(chosen, a.profile, extra)
        try:  # for another machine, maybe, where it is a dry run
            sweep_seconds(), a.dry_run or get_device()
        except (RuntimeError, ValueError) as error:
            raise UsageError(str(error)) from None
    except UsageError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    state = State(build / "state.json")
    rows: list[tuple[str, str, str]] = []
    failed = None
    if not a.dry_run:
        try:
            check_writable(build)
            isolate(build)
        except OSError as error:
            print(
                f"run_all.sh: cannot write to {build} ({error}): set NIC_BUILD_DIR to a folder of yours",
                file=sys.stderr,
            )
            return 2
    taken: set[str] = set()
    for k, job in enumerate(jobs):
        fresh = state.done.get(job.name) == job.key and (build / "html" / f"{job.name}.html").is_file()
        if failed:
            rows.append((job.name, "", "not run"))
        elif a.resume and fresh:
            if a.publish and not a.dry_run:
                publish(job, build)
            rows.append((job.name, "", "unchanged, skipped"))
        elif a.dry_run:
            rows.append((job.name, "", "would run: " + (", ".join(f"{n}={v!r}" for n, v in job.parameters.items()))))
        else:
            print(f"[{k + 1}/{len(jobs)}] {job.name}", file=sys.stderr, flush=True)
            began = time.perf_counter()
            elsewhere = taken.union(*(other.parameters for other in jobs[k + 1 :]))
            try:
                state.record(None, job.name)
                status = execute_as_it_can(job, build, elsewhere)
                state.record(job, job.name)
                if a.publish:
                    publish(job, build)
            except Exception as error:
                failed = error
                rows.append((job.name, f"{time.perf_counter() - began:.1f}", f"failed: {type(error).__name__}"))
                continue
            except KeyboardInterrupt:
                print(f"\nInterrupted in {job.name}; go on with --resume.", file=sys.stderr)
                return 130
            taken |= job.parameters.keys()
            rows.append((job.name, f"{time.perf_counter() - began:.1f}", status))
    print(table(rows))
    if failed:
        name = next(r[0] for r in rows if r[2].startswith("failed"))
        print(
            f"\n{name} failed in {explain(failed)}\nWhat was finished is in {build}; go on with --resume.",
            file=sys.stderr,
        )
        return 1
    if not a.dry_run:
        print(f"Executed notebooks, pages and figures: {build}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
