import hashlib
import importlib.metadata
import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

from nic_helpers.settings import PROJECT, get_device

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
DIRECT = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["test"]


def name_of(requirement):
    return re.split(r"[=<>\[ ;]", requirement)[0].lower().replace("_", "-")


def test_every_dependency_is_pinned_and_said_to_be_for_something():
    text = (PROJECT / "pyproject.toml").read_text()
    for requirement in DIRECT:
        assert re.fullmatch(r"[\w-]+==[\w.]+", requirement), requirement
        assert re.search(rf'"{re.escape(requirement)}", +# \w', text), f"{requirement}: say what it is for"


def test_conda_s_environment_is_the_same_and_names_nothing_twice():
    conda = yaml.safe_load((PROJECT / "environment.yml").read_text())
    *plain, pip = conda["dependencies"]
    assert plain == [f"python{PYPROJECT['project']['requires-python']}", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_constraints_pin_what_is_installed_and_repeat_nothing():
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = [name_of(line) for line in lines]
    assert all("==" in line for line in lines) and len(set(names)) == len(names)
    assert not set(names) & {name_of(r) for r in DIRECT}


def test_the_installed_environment_is_the_pinned_one():
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    wanted = dict(line.split("==") for line in [*lines, *DIRECT])
    installed = {name_of(d.name): d.version for d in importlib.metadata.distributions()}
    differing = {
        n: installed[name_of(n)] for n, v in wanted.items() if installed.get(name_of(n), v).split("+")[0] != v.split("+")[0]
    }
    assert not differing and {name_of(r) for r in DIRECT} <= set(installed)
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout


def test_no_package_beyond_the_declared_is_imported():
    declared = {name_of(r) for r in DIRECT} | {"nic-helpers", "scikit-image"}
    alias = {"PIL": "pillow", "skimage": "scikit-image", "pytorch_msssim": "pytorch-msssim", "nbformat": "nbconvert"}
    for path in (PROJECT / "nic_helpers").glob("*.py"):
        for module in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.M):
            if module not in sys.stdlib_module_names and module != "nic_helpers":
                assert alias.get(module, module).replace("_", "-") in declared, f"{path.name} imports {module}"


# --------------------------------------------------------------------------------------------------- the scripts
def fake(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def find_python(path, **env):
    script = f'. "{PROJECT}/.ci/environment.sh"; find_python'
    return subprocess.run(
        ["/bin/bash", "-c", script],
        env={"PATH": f"{path}:/usr/bin:/bin" if env.pop("system", False) else str(path), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_shim_that_runs_nothing_is_passed_over(tmp_path):
    fake(tmp_path, "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    fake(tmp_path, "python3.11", f'exec "{sys.executable}" "$@"')
    done = find_python(tmp_path)
    assert (done.returncode, done.stdout) == (0, "python3.11")


def test_no_python_says_what_to_install(tmp_path):
    fake(tmp_path, "python3", "exit 1")
    done = find_python(tmp_path)
    assert done.returncode == 1 and "Python 3.11 or 3.12 is needed" in done.stderr and not done.stdout


def test_a_python_without_venv_says_what_to_install(tmp_path):
    body = f'case "$*" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"'
    fake(tmp_path, "python3.11", body)
    done = find_python(tmp_path)
    assert done.returncode == 1 and "-venv" in done.stderr


def test_the_scripts_run_from_any_folder(tmp_path):
    env = os.environ | {"VIRTUAL_ENV": sys.prefix, "NIC_BUILD_DIR": str(tmp_path / "build")}
    done = subprocess.run(
        [PROJECT / "run_all.sh", "--cpu", "--dry-run"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert "00_start_here" in done.stdout and "profile='quick'" in done.stdout


@pytest.fixture
def installed(tmp_path):
    """An environment that says of itself that the packages are there, and notes what is run in it; and its variables."""
    prefix = tmp_path / "environment"
    (prefix / "bin").mkdir(parents=True)
    fake(prefix / "bin", "python", f'echo "$@" >>"{tmp_path}/ran"; exec "{sys.executable}" "$@"')
    content = (PROJECT / "pyproject.toml").read_bytes() + (PROJECT / "constraints.txt").read_bytes()
    stamp = hashlib.sha256(content + str(PROJECT).encode()).hexdigest()
    (prefix / ".nic-installed").write_text(stamp + "\n")
    return prefix, os.environ | {"VIRTUAL_ENV": str(prefix), "NIC_BUILD_DIR": str(tmp_path / "build")}


@pytest.mark.parametrize("script, arguments", [("run_all.sh", ["--dry-run", "--only", "00"]), ("run_tests.sh", ["--version"])])
def test_the_folder_one_stands_in_and_pythonpath_are_not_imported_from(script, arguments, installed, tmp_path):
    here = tmp_path / "here"
    (here / "nic_helpers").mkdir(parents=True)  # another clone, with files of a student's in it
    for name in ("random.py", "hashlib.py", "pytest.py", "nic_helpers/__init__.py", "sitecustomize.py"):
        (here / name).write_text("import sys; sys.exit('not this one')")
    env = installed[1] | {"PYTHONPATH": str(here), "PYTHONSTARTUP": "x", "PYTHONHOME": str(here)}
    done = subprocess.run([PROJECT / script, *arguments], cwd=here, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    assert "pip" not in (tmp_path / "ran").read_text() and "not this one" not in done.stderr


def wheel(folder, name, version):
    """A package that holds its name alone, in an index of one folder a package."""
    (folder / name).mkdir(parents=True)
    path = folder / name / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: not-there\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    (folder / name / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')


def take_cpu_torch(index, tmp_path):
    script = f'. "{PROJECT}/.ci/environment.sh"; PYTHON="{sys.executable}"; take_cpu_torch "{PROJECT}"'
    env = os.environ | {"NIC_TORCH_INDEX": index, "PIP_TARGET": str(tmp_path / "taken")}
    return subprocess.run(["/bin/bash", "-c", script], env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the usual torch is taken")
def test_without_a_gpu_the_pinned_torch_is_taken_from_its_own_index(tmp_path):
    wanted = dict(line.split("==") for line in DIRECT)["torch"]
    vision = re.search(r"^torchvision==(.+)$", (PROJECT / "constraints.txt").read_text(), re.M)[1]
    wheel(tmp_path / "index", "torch", f"{wanted}+cpu")
    wheel(tmp_path / "index", "torchvision", f"{vision}+cpu")
    index = (tmp_path / "index").as_uri()
    done = take_cpu_torch(index, tmp_path)
    assert done.returncode == 0, done.stderr
    taken = {d.name: d.version for d in importlib.metadata.distributions(path=[str(tmp_path / "taken")])}
    assert taken == {"torch": f"{wanted}+cpu", "torchvision": f"{vision}+cpu"}  # and nothing that they ask for
    (tmp_path / "index/torch/index.html").write_text("")  # an index that has not got this version
    done = take_cpu_torch(index, tmp_path)
    assert done.returncode == 1 and index in done.stderr and "without --cpu" in done.stderr
    done = take_cpu_torch("", tmp_path)
    assert done.returncode == 1 and "NIC_TORCH_INDEX" in done.stderr and "pip" not in done.stderr


def test_what_cannot_be_installed_into_says_so_before_anything_is_tried(tmp_path):
    script = f'. "{PROJECT}/.ci/environment.sh"; may_write "{tmp_path}" && may_write "{tmp_path}/missing"'
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"{tmp_path}/missing cannot be written to" in done.stderr and "copy the project" in done.stderr


def test_a_device_that_is_not_there_is_a_clear_error(monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="NIC_DEVICE"):
        get_device("cuda")
    monkeypatch.setenv("NIC_DEVICE", "cpu")
    assert get_device().type == "cpu"
