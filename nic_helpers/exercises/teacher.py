"""The teacher's notebook, made from the one place where each solution stands and from the questions in the course's notebooks."""

from __future__ import annotations

import inspect
import pprint
import textwrap
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from nic_helpers.exercises.base import Exercise, Number
from nic_helpers.exercises.collect import exercises, notebooks


def source_of(solution) -> str:
    """A solution as a reader would write it: a function's source, or a value."""
    if callable(solution):
        return textwrap.dedent(inspect.getsource(solution)).strip()
    return f"answer = {pprint.pformat(solution, sort_dicts=False)}"


def question_of(notebook: Path, number: str) -> str:
    """The text before the cell that checks this exercise."""
    said = ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            said = cell.source
        elif f'check("{number}"' in cell.source:
            return said
    return ""


def typical(number: str) -> None:
    """Print what the check says to the exercise's solution and to its typical wrong answers, on its small example."""
    e: Exercise = exercises(number[:2])[number]
    given = e.example()
    right = e.solution(**given) if isinstance(e, Number) else e.solution
    print(f"the solution: {e.verdict(right, **given) or 'right'}")
    for name, answer in {} if isinstance(e, Number) else e.wrong.items():
        print(f"{name}: {e.verdict(answer, **given)}")


def write(folder: Path, out: Path) -> int:
    """Write the teacher's notebook; returns how many exercises are in it."""
    cells = [
        new_markdown_cell(
            "# The exercises, solved\n\nFor teachers. Made by `python -m nic_helpers.exercises` from the checks' own solutions. "
            "The code cells show what the checks say to the solution and to typical wrong answers."
        ),
        new_code_cell("from nic_helpers.exercises.teacher import typical"),
    ]
    count = 0
    for n in notebooks():
        notebook = next(iter(sorted(folder.glob(f"{n}_*.ipynb"))), None)
        cells.append(new_markdown_cell(f"## {notebook.stem if notebook else n}"))
        for number, e in exercises(n).items():
            hints = "\n".join(f"{k}. {text}" for k, text in enumerate(e.hints, 1))
            question = question_of(notebook, number) if notebook else ""
            parts = (f"### {number}", question, f"**Hints**\n\n{hints}", f"**Solution**\n\n```python\n{source_of(e.solution)}\n```")
            cells += [new_markdown_cell("\n\n".join(p for p in parts if p)), new_code_cell(f'typical("{number}")')]
            count += 1
    nb = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, out)
    return count
