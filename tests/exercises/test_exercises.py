"""Every exercise of the course: its solution passes, what is unsolved or typically wrong does not, and a teacher gets all of it."""

import functools
import re

import nbformat
import pytest

from nic_helpers.exercises import exercise, exercises, is_right
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.collect import notebooks
from nic_helpers.exercises.teacher import source_of, write
from nic_helpers.settings import PROJECT

ALL = [number for notebook in notebooks() for number in exercises(notebook)]
WRONG = [(number, name) for number in ALL if isinstance(e := exercise(number), Write) for name in e.wrong]


@functools.cache
def given(number: str) -> dict:
    return _made(exercise(number).example)


@functools.cache
def _made(example) -> dict:
    return example()


@functools.cache
def solved(number: str):
    e = exercise(number)
    return e.solution(**given(number)) if isinstance(e, Number) else e.solution


@pytest.mark.parametrize("number", ALL)
def test_the_solution_is_right_and_dots_are_not(number, capsys):
    assert is_right(number, solved(number), **given(number)), capsys.readouterr().out
    assert not is_right(number, ..., **given(number))
    said = capsys.readouterr().out
    assert not any(hint in said for hint in exercise(number).hints)


@pytest.mark.parametrize("number", [n for n in ALL if isinstance(exercise(n), Number)])
def test_another_number_is_not_right(number, capsys):
    tolerance = exercise(number).tolerance
    for answer in (solved(number) + 3 * tolerance, solved(number) - 3 * tolerance, float("nan")):
        assert exercise(number).verdict(answer, **given(number))


@pytest.mark.parametrize("number, name", WRONG)
def test_a_typical_wrong_answer_is_told_what_is_wrong(number, name):
    said = exercise(number).verdict(exercise(number).wrong[name], **given(number))
    assert isinstance(said, str) and len(said.split()) >= 4
    assert "could not use" not in said and "your function raises" not in said, said


@pytest.mark.parametrize("number", [n for n in ALL if isinstance(exercise(n), Write)])
def test_something_to_write_has_wrong_answers_and_meets_nonsense(number):
    e = exercise(number)
    assert e.wrong
    for nonsense in (3, None) if not isinstance(e.solution, (int, float)) else ("three", None):
        assert e.verdict(nonsense, **given(number))
    if callable(e.solution) and not isinstance(e.solution, type):
        assert "returns nothing yet" in e.verdict(lambda *a, **k: None, **given(number))


def test_hints_are_in_tiers_and_numbers_in_order():
    for notebook in notebooks():
        assert list(exercises(notebook)) == [f"{notebook}.{k}" for k in range(1, len(exercises(notebook)) + 1)]
        assert any(isinstance(e, Write) for e in exercises(notebook).values()), notebook
    for number in ALL:
        assert len(exercise(number).hints) >= 2, number


def test_an_unknown_number_is_said():
    with pytest.raises(ValueError, match="there are 03"):
        exercise("03.99")
    with pytest.raises(ValueError, match="no exercises for notebook '77'"):
        exercise("77.1")


def test_the_teachers_notebook_has_every_question_and_solution(tmp_path):
    assert write(PROJECT / "notebooks", tmp_path / "teacher.ipynb") == len(ALL)
    text = "\n".join(c.source for c in nbformat.read(tmp_path / "teacher.ipynb", as_version=4).cells)
    for number in ALL:
        assert f"### {number}" in text and source_of(exercise(number).solution) in text
        assert re.search(rf"### {number}\n\n(?!\*\*Hints)", text), f"{number} has no question"
