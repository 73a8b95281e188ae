import ast
import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest

from nic_helpers.course.jobs import known_parameters
from nic_helpers.exercises import exercises
from nic_helpers.settings import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))

#: Makes, measures or draws something: a function, an import, a codec, an attack, a defence, a pass of the codec, a gradient, a figure.
BUILDS = re.compile(
    r"\bdef |^from |^import |run\.save\(|load_codec\(|\battacks\.|\bdefences\.|attack\(|encode\(|decode\(|reconstruct\(|"
    r"before_after\(|autograd|gradient\(|\bmeasure\(|parts\.|course\.check",
    re.M,
)


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request) -> Path:
    return request.param


def cells(path, kind):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


def test_outputs_are_stripped_and_the_kernel_is_python3(path):
    nb = nbformat.read(path, as_version=4)
    assert all(not c.outputs and c.execution_count is None for c in nb.cells if c.cell_type == "code")
    assert nb.metadata["kernelspec"]["name"] == "python3" and "widgets" not in nb.metadata


def test_cells_are_short_and_prose_is_not_rarer_than_code(path):
    read = [c for c in cells(path, "code") if "guess = ..." not in c.source and "course.check(" not in c.source]  # not filled in
    lengths = sorted(len([line for line in c.source.splitlines() if line.strip()]) for c in cells(path, "code"))
    assert lengths[-1] <= 30 and lengths[len(lengths) // 2] <= 8
    assert len(cells(path, "markdown")) >= 0.7 * len(read)


def test_what_only_counts_is_folded_and_nothing_that_builds(path):
    """A folded cell: JupyterLab shows its first line and three dots, a page "how this is counted". What a reader learns to do stays open;
    what only gathers rows may be folded, too."""
    for cell in cells(path, "code"):
        folded = (cell.metadata.get("jupyter") or {}).get("source_hidden", False)
        judges = "run.claim(" in cell.source or "run.answer(" in cell.source
        builds = BUILDS.search(cell.source)
        assert not (folded and builds), cell.source
        assert folded or builds or not judges, cell.source


def test_what_a_notebook_names_of_the_package_is_there(path):
    lines = "\n".join(c.source for c in cells(path, "code")).splitlines()
    tree = ast.parse("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "nic_helpers":
            for alias in node.names:
                modules[alias.asname or alias.name] = named(node.module, alias.name)
    assert modules
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert node.attr in dir(modules[node.value.id]) or not inspect.ismodule(modules[node.value.id]), ast.unparse(node)


def named(module, name):
    """What ``from module import name`` gives."""
    found = importlib.import_module(module)
    return getattr(found, name) if name in dir(found) else importlib.import_module(f"{module}.{name}")


def test_no_code_line_runs_out_of_the_page(path):
    for cell in cells(path, "code"):
        assert max(map(len, cell.source.splitlines())) <= 100


def test_the_first_cells_take_parameters_and_begin_the_run(path):
    first, second = cells(path, "code")[:2]
    assert first.metadata["tags"] == ["parameters"] and "sys.prefix" not in second.source
    assert any("course.begin(" in c.source for c in cells(path, "code")[1:3])  # begin looks which kernel this is
    assert {"profile", "seed"} <= set(known_parameters(path))


def test_goals_minutes_predictions_exercises_and_references_are_there(path):
    text = "\n".join(c.source for c in cells(path, "markdown"))
    for part in ("**Goal", "**Time.**", "> **Predict.**", "## What was seen", "## Exercises", "## References"):
        assert part in text, part
    checks = re.findall(r'check\(\s*"(\d\d\.\d)"', "\n".join(c.source for c in cells(path, "code")))
    assert checks == list(exercises(path.stem[:2])) and len(checks) >= 3
    assert "course.hint(" in text and "Hint" not in text


def test_every_parameter_is_checked_before_anything_is_computed(path):
    first = "\n".join(c.source for c in cells(path, "code")[1:3])
    for name in set(known_parameters(path)) - {
        "profile",
        "seed",
    }:  # those two course.begin checks, and images where it is given
        if name == "images":
            assert "source=images)" in first
            continue
        assert f'course.parameter("{name}", {name}' in first, name


def test_links_lead_to_notebooks_that_exist(path):
    for target in re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(c.source for c in cells(path, "markdown"))):
        assert (path.parent / target).exists(), target


def test_no_number_of_a_result_is_typed_into_the_prose(path):
    # results are printed by code; prose may speak of budgets (8/255), sizes and settings
    for cell in cells(path, "markdown"):
        for line in cell.source.splitlines():
            assert not re.search(r"\d ?(dB|bpp|%)", line.replace("reaches 30 dB", "").replace("less than 15 dB", "")), line
