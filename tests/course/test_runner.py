import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nic_helpers import settings
from nic_helpers.course import jobs, pages, runner
from nic_helpers.course.runner import Job, State
from nic_helpers.settings import PROJECT


def notebook(*cells, parameters="profile = 'quick'\nlevel = 1"):
    nb = nbformat.v4.new_notebook()
    first = nbformat.v4.new_code_cell(parameters)
    first.metadata["tags"] = ["parameters"]
    nb.cells = [first, *(nbformat.v4.new_code_cell(c) for c in cells)]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nb


@pytest.fixture
def course(tmp_path):
    """Three tiny notebooks, a function that runs them, and the build folder. The environment is put back."""
    before = dict(os.environ)
    folder, build = tmp_path / "notebooks", tmp_path / "build"
    folder.mkdir()
    write(folder / "00_one.ipynb", notebook("import sys; print('prefix', sys.prefix, level)"))
    write(folder / "01_two.ipynb", notebook("print(profile)", parameters="profile = 'quick'"))
    write(folder / "02_three.ipynb", notebook("1 + 1"))
    yield folder, build, lambda *args: runner.main(list(args), folder, build)
    os.environ.clear()
    os.environ.update(before)


def write(path, nb):
    nbformat.write(nb, path)


def output(build, name):
    cells = nbformat.read(build / "executed" / f"{name}.ipynb", as_version=4).cells
    return "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--profile", "fast"], "quick, standard, full"),
        (["--only", "07"], "no notebook '07': there are 00_one, 01_two, 02_three"),
        (["--from", "nine"], "no notebook 'nine'"),
        (["-p", "levl", "3"], "no chosen notebook has a parameter 'levl': there are level, profile"),
        (["--only", "01", "-p", "level", "3"], "'level': there are profile"),
        (["-p", "profile", "full"], "--profile"),
        (["--publish"], "--profile standard"),
        (["--publish", "--profile", "standard", "-p", "level", "2"], "without -p"),
        (["--only", "00", "--from", "01"], "leave no notebook"),
        (["--only", ""], "no notebook ''"),
        (["--from", ""], "no notebook ''"),
        (["--profile", ""], "no profile ''"),
        (["-p", "", "3"], "has a parameter ''"),
        (["-p", "level", "3", "-p", "level", "4"], "given twice"),
    ],
)
def test_what_is_not_there_fails_before_anything_runs(course, capsys, args, says):
    _, build, run = course
    assert run(*args) == 2
    assert says in capsys.readouterr().err
    assert not (build / "executed").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("NIC_SWEEP_HOURS", "soon"), ("NIC_SWEEP_HOURS", "-1"), ("NIC_SWEEP_HOURS", "nan"), ("NIC_DEVICE", "gpu")],
)
def test_settings_that_cannot_be_are_named_before_anything_runs(course, capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert course[2]() == 2
    said = capsys.readouterr().err
    assert name in said and repr(value) in said and not course[1].exists()


def test_notebooks_are_chosen_by_number_or_name():
    notebooks = [Path(f"{name}.ipynb") for name in ("00_one", "01_two", "10_ten")]
    for wanted in ("00", "0", "00_one", "00_one.ipynb"):
        assert jobs.select(notebooks, [wanted], None) == notebooks[:1]
    assert jobs.select(notebooks, ["10", "1"], None) == notebooks[1:]


SHELL = {
    "MPLBACKEND": "agg",
    "MATPLOTLIBRC": "/nowhere",
    "PYTHONPATH": "another",
    "PYTHONSTARTUP": "start.py",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONHASHSEED": "1",
    "JUPYTER_PATH": "/nowhere",
    "JUPYTER_CONFIG_PATH": "/nowhere",
    "TQDM_DISABLE": "1",
    "IPYTHONDIR": "/nowhere",
    "MPLCONFIGDIR": "/nowhere",
    "JUPYTER_PLATFORM_DIRS": "1",
}


def test_what_a_shell_has_set_does_not_reach_the_pages(course, monkeypatch):
    folder, build, run = course
    other = folder.parent / "another" / "nic_helpers"  # another clone, and what lies beside the notebooks
    other.mkdir(parents=True)
    for path in (other / "__init__.py", folder / "papermill.py", folder / "pandas.py"):
        path.write_text("raise ImportError('not this one')")
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    code = (
        "import os, sys, pandas, nic_helpers.settings as s; import matplotlib.pyplot as plt; plt.plot([1, 2])\n"
        f"left = [n for n, v in {SHELL}.items() if os.environ.get(n) == v]\n"
        "print(left, 'of', s.PROJECT, sys.flags.optimize)"
    )
    write(folder / "00_one.ipynb", notebook(code))
    assert run("--only", "00") == 0
    assert f"[] of {PROJECT} 0" in output(build, "00_one")
    cells = nbformat.read(build / "executed" / "00_one.ipynb", as_version=4).cells
    assert any("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", []))


def test_a_build_folder_that_cannot_be_written_is_named_with_what_to_do(course, capsys):
    _, build, run = course
    build.write_text("")  # a file: nobody can make a folder there
    assert run() == 2
    said = capsys.readouterr().err
    assert f"cannot write to {build}" in said and "NIC_BUILD_DIR" in said and "Traceback" not in said
    build.unlink()
    build.mkdir()
    (build / "html").write_text("")
    assert run() == 2 and "NIC_BUILD_DIR" in capsys.readouterr().err


PICKY = """
class ParameterError(ValueError):  # as course.parameter raises it
    pass
if level not in (1, 2):
    raise ParameterError(f"level must be one of 1, 2, got {level}")
print('level', level)
"""


def test_a_value_that_one_of_several_notebooks_cannot_work_with_stops_that_one_alone(course, capsys):
    folder, build, run = course
    write(folder / "02_three.ipynb", notebook(PICKY))
    assert run("-p", "level", "7") == 0
    captured = capsys.readouterr()
    assert "ok (kept its own level)" in captured.out and "level must be one of 1, 2, got 7" in captured.err
    assert "level 1" in output(build, "02_three") and " 7\n" in output(build, "00_one")
    assert run("--only", "02", "-p", "level", "7") == 1  # what was meant for it alone is not passed over
    assert "ParameterError: level must be one of 1, 2, got 7" in capsys.readouterr().err
    assert run("--only", "02", "--only", "00", "-p", "level", "2") == 0


def test_an_unknown_flag_is_refused(course):
    with pytest.raises(SystemExit) as stopped:
        course[2]("--nonsense")
    assert stopped.value.code == 2


def test_dry_run_says_what_would_run_and_writes_nothing(course, capsys):
    _, build, run = course
    assert run("--dry-run", "--from", "01", "-p", "level", "4") == 0
    said = capsys.readouterr().out
    assert "00_one" not in said and "level=4" in said and "02_three" in said
    assert not build.exists()


def test_a_run_uses_this_environment_and_writes_pages_and_a_table(course, capsys):
    _, build, run = course
    assert run("--only", "00", "--only", "01", "-p", "level", "7", "--profile", "full") == 0
    assert f"prefix {sys.prefix} 7" in output(build, "00_one") and "full" in output(build, "01_two")
    assert (build / "html" / "01_two.html").read_text().startswith("<!DOCTYPE html>")
    said = capsys.readouterr().out
    assert said.splitlines()[0].split() == ["notebook", "seconds", "status"] and said.count("  ok\n") == 2
    assert not list(build.parent.glob("notebooks/*.html"))


def test_a_failing_cell_stops_the_run_and_resume_goes_on(course, capsys):
    folder, build, run = course
    write(folder / "01_two.ipynb", notebook("fine = 1", "raise RuntimeError('the reason')"))
    assert run() == 1
    captured = capsys.readouterr()
    assert "01_two failed in cell [4]" in captured.err and "RuntimeError: the reason" in captured.err
    assert "02_three" in captured.out and "not run" in captured.out
    assert (build / "html" / "00_one.html").exists()
    write(folder / "01_two.ipynb", notebook("fine = 1"))
    assert run("--resume") == 0
    said = capsys.readouterr().out
    assert "unchanged, skipped" in said and said.count("  ok\n") == 2
    assert run("--resume", "-p", "level", "2") == 0  # other parameters: not the same run
    assert "unchanged" not in capsys.readouterr().out


def test_a_folder_of_images_is_the_one_where_the_command_was_given(course, tmp_path, monkeypatch, capsys):
    folder, _, run = course
    write(folder / "00_one.ipynb", notebook("1", parameters="profile = 'quick'\nimages = None  # the profile's"))
    monkeypatch.chdir(tmp_path)
    assert run("--dry-run", "-p", "images", "2024") == 2
    assert f"no such folder of images: {tmp_path / '2024'}" in capsys.readouterr().err
    (tmp_path / "2024").mkdir()
    assert run("--dry-run", "-p", "images", "2024") == 0
    assert f"images={str(tmp_path / '2024')!r}" in capsys.readouterr().out
    for known in ("kodak", "None"):
        assert run("--dry-run", "--only", "00", "-p", "images", known) == 0
    keys = []
    for file in ("a.png", "b.png"):  # other files are not the same run
        (tmp_path / "2024" / file).write_bytes(b"")
        keys.append(jobs.plan([folder / "00_one.ipynb"], "quick", {"images": str(tmp_path / "2024")})[0].key)
    assert keys[0] != keys[1]


def test_publishing_replaces_a_notebook_s_files_and_no_others(course, tmp_path, monkeypatch):
    folder, build, run = course
    monkeypatch.setattr(runner, "PROJECT", tmp_path / "project")
    figures = tmp_path / "project" / "figures"
    figures.mkdir(parents=True)
    for name in ("00_old.png", "01_other.png"):
        (figures / name).write_text("old")
    code = (
        "import os, pathlib\n"
        "for kind in ('figures', 'results'):\n"
        "    path = pathlib.Path(os.environ['NIC_BUILD_DIR'], kind)\n"
        "    path.mkdir(exist_ok=True)\n"
        "    (path / '00_new.csv').write_text('new')"
    )
    write(folder / "00_one.ipynb", notebook(code))
    (build / "figures").mkdir(parents=True)
    (build / "figures" / "00_leftover.png").write_text("of an earlier run")
    assert run("--only", "00", "--profile", "standard", "--publish") == 0
    assert sorted(p.name for p in figures.iterdir()) == ["00_new.csv", "01_other.png"]
    assert (tmp_path / "project" / "data" / "results" / "00_new.csv").read_text() == "new"


def test_relative_folders_mean_where_the_command_was_given(course, tmp_path, monkeypatch):
    folder, build, run = course
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIC_KODAK_DIR", "some/kodak")
    write(folder / "00_one.ipynb", notebook("import os; print('kodak', os.environ['NIC_KODAK_DIR'])"))
    assert run("--only", "00") == 0
    assert f"kodak {tmp_path / 'some' / 'kodak'}" in output(build, "00_one")


def test_every_folder_among_the_settings_may_be_relative():
    assert set(re.findall(r"``(NIC_\w+_DIR)``", settings.__doc__)) <= set(jobs.FOLDERS)


def test_a_damaged_state_file_is_no_obstacle(course):
    _, build, run = course
    build.mkdir()
    (build / "state.json").write_text("{")
    assert run("--only", "02", "--resume") == 0
    assert list(json.loads((build / "state.json").read_text())) == ["02_three"]


def test_two_runs_side_by_side_both_leave_their_notebooks_in_the_state(tmp_path):
    one, other = State(tmp_path / "state.json"), State(tmp_path / "state.json")
    one.record(Job(Path("00_a.ipynb"), {}, "key a"), "00_a")
    other.record(Job(Path("01_b.ipynb"), {}, "key b"), "01_b")
    assert one.done == other.done == {"00_a": "key a", "01_b": "key b"}
    one.record(None, "01_b")
    assert other.done == {"00_a": "key a"} and [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_user_level_kernelspec_and_a_read_only_home_do_not_matter(tmp_path):
    home = tmp_path / "home"
    spec = home / ".local" / "share" / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "wrong", "language": "python"}))
    home.chmod(0o555)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "00_one.ipynb", notebook("import matplotlib.pyplot, sys; print(sys.prefix)"))
    code = (
        "import sys; from pathlib import Path; from nic_helpers.course import runner; "
        f"sys.exit(runner.main([], Path({str(folder)!r}), Path({str(tmp_path / 'build')!r})))"
    )
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "IPYTHON", "MPL", "XDG", "NIC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=keep | {"HOME": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    home.chmod(0o755)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sys.prefix in output(tmp_path / "build", "00_one")


def test_pages_draw_formulas_without_a_network():
    text = pages.formulas_to_mathml("with $x^2$ and\n\n$$ y = g_a(x) $$\n\nat 5 \\$ each")
    assert text.count("<math") == 2 and 'display="block"' in text and "at 5 \\$ each" in text


def test_a_prime_in_a_formula_can_be_seen():
    text = pages.formulas_to_mathml("$C(x')$ and $x''$ and $x^2$")
    assert [text.count(f'<mo lspace="0" rspace="0">&#x0203{k};</mo>') for k in "23"] == [1, 1]
    assert text.count("<msup>") == 1  # the square


def test_values_are_python_literals_or_text():
    assert [jobs.parse_value(v) for v in ("3", "[1, 2]", "0.5", "abc", "None")] == [3, [1, 2], 0.5, "abc", None]


def test_without_a_gpu_by_request_no_device_is_asked_for(monkeypatch):
    monkeypatch.setenv("NIC_DEVICE", "cuda:99")  # the setting that --cpu overrules
    with pytest.raises(runner.UsageError, match="cuda:99"):
        runner.what_to_run(runner.parse([]), PROJECT / "notebooks")
    runner.what_to_run(runner.parse(["--cpu"]), PROJECT / "notebooks")
    assert settings.get_device().type == "cpu"


def test_pages_show_a_progress_bar_once(tmp_path):
    bar = [nbformat.v4.new_output("stream", name="stdout", text=f"\rdone: {k} of 3") for k in range(4)]
    cell = nbformat.v4.new_code_cell("...", outputs=[*bar, nbformat.v4.new_output("stream", name="stdout", text="\nthe end\n")])
    notebook, page = tmp_path / "bar.ipynb", tmp_path / "bar.html"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    pages.write_html(notebook, page)
    assert re.findall(r"done: \d|the end", page.read_text(encoding="utf-8")) == ["done: 3", "the end"]
