import ast
import importlib
import inspect
import re
from inspect import signature
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

from nic_helpers import load_images
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.course import exercises
from nic_helpers.course.jobs import known_parameters
from nic_helpers.settings import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


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
    lengths = sorted(len([line for line in c.source.splitlines() if line.strip()]) for c in cells(path, "code"))
    assert lengths[-1] <= 30 and lengths[len(lengths) // 2] <= 8
    assert len(cells(path, "markdown")) >= 0.7 * len(cells(path, "code"))


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


def test_the_first_cells_take_parameters_and_check_the_kernel(path):
    first, second = cells(path, "code")[:2]
    assert first.metadata["tags"] == ["parameters"] and "assert sys.prefix" in second.source
    assert {"profile", "seed"} <= set(known_parameters(path))


def test_goals_minutes_predictions_exercises_and_references_are_there(path):
    text = "\n".join(c.source for c in cells(path, "markdown"))
    for part in ("**Goal", "**Time.**", "> **Predict.**", "## What was seen", "## Exercises", "## References"):
        assert part in text, part
    checks = re.findall(r'check\("(\d\d\.\d)"', "\n".join(c.source for c in cells(path, "code")))
    assert checks == [f"{path.stem[:2]}.{k}" for k in (1, 2, 3)] and set(checks) <= set(exercises.EXERCISES)


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


OF_A_CODEC = [n for n, e in exercises.EXERCISES.items() if set(signature(e.solution).parameters) == {"codec", "x"}]


@pytest.mark.parametrize("number", OF_A_CODEC)
def test_an_exercise_accepts_its_solution_and_refuses_others(number, hyperprior, x, capsys):
    right = exercises.EXERCISES[number].solution(codec=hyperprior, x=x)
    assert exercises.is_right(number, right, codec=hyperprior, x=x)
    assert not exercises.is_right(number, right + 5, codec=hyperprior, x=x)
    assert not exercises.is_right(number, float("nan"), codec=hyperprior, x=x)
    assert not exercises.is_right(number, ..., codec=hyperprior, x=x)
    assert exercises.EXERCISES[number].hint in capsys.readouterr().out


def test_exercises_on_tables_are_solved_from_the_table():
    rows = pd.DataFrame(
        {"attack": ["APGD", "PGD", "sign noise", "PGD"], "bpp_ratio": [1.5, 3.0, 1.1, 2.0], "psnr_recon": [25.0, 27.0, 34.0, 29.0]}
    )
    names = ["bmshj2018-hyperprior 3", "cheng2020-anchor 3"]
    matrix = pd.DataFrame([[1.0, 2.0], [3.0, 5.0]], index=names, columns=names)
    solved = {n: exercises.EXERCISES[n].solution for n in ("08.1", "08.2", "08.3", "09.1", "09.2")}
    assert solved["08.1"](strongest=rows) == 0.25 and solved["08.2"](main=rows) == 3.0
    assert solved["08.3"](at_eps=rows) == 6.0
    assert solved["09.1"](matrix=matrix) == 3.0 and solved["09.2"](matrix=matrix) == 3.0


def test_the_exercise_on_the_linear_codec_is_the_longer_shopping_list(x):
    linear, eps = LinearCodec(load_images("bundled"), step=32), 16 / 255
    y = linear.analysis(x[:1]).flatten()
    near = 0.5 - (y - y.round()).abs()
    steps = torch.arange(1, 30, dtype=torch.float64)
    prices = (near[:, None] + steps - 1).square().diff(dim=1, prepend=torch.zeros(len(near), 1, dtype=torch.float64)).flatten()
    worth = (2 * steps - 1).expand(len(near), -1).flatten()
    order = (worth / prices).argsort(descending=True)
    bought = worth[order][prices[order].cumsum(0) <= x[0].numel() * (255 * eps / 32) ** 2].sum()
    answer = 10 * torch.log10(bought * (32 / 255) ** 2 / x[0].numel() / eps**2)
    assert exercises.is_right("10.3", answer, linear=linear, x=x[:1])
    assert not exercises.is_right("10.3", answer - 1, linear=linear, x=x[:1])
