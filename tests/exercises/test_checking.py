"""How any exercise meets any answer; the exercises themselves are in test_exercises.py."""

import pytest
import torch

from nic_helpers.exercises import checking
from nic_helpers.exercises.base import Number, Write, image_like


def double(x):
    return 2 * x


def judge(answer, x):
    return None if torch.equal(answer(x), 2 * x) else f"of {x.tolist()} it makes {answer(x).tolist()}"


NUMBER = Number("99.1", lambda x: float(x.sum()), 0.1, ("add them up", "x.sum()"))
WRITE = Write("99.2", double, judge, ("twice", "2 * x"))
X = torch.tensor([1.0, 2.0])


@pytest.fixture(autouse=True)
def two_exercises(monkeypatch):
    monkeypatch.setattr(checking, "exercise", {"99.1": NUMBER, "99.2": WRITE}.__getitem__)
    checking._given.clear()


@pytest.mark.parametrize("answer", [3, 3.05, torch.tensor(3.0), torch.tensor([3.0], requires_grad=True)])
def test_a_number_within_tolerance_is_right(answer, capsys):
    assert checking.is_right("99.1", answer, x=X) and "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer, why",
    [
        (..., "not answered yet"),
        (None, "not answered yet"),
        (4, "4 is not it"),
        (float("nan"), "no finite number"),
        ("3", "is a str"),
        (True, "is a bool"),
        ([3], "is a list"),
        (double, "a function; call it"),
        (torch.ones(2), r"a tensor of shape (2,)"),
    ],
)
def test_what_is_wrong_with_a_number_is_said_and_no_hint_is_given(answer, why, capsys):
    assert not checking.is_right("99.1", answer, x=X)
    said = capsys.readouterr().out
    assert why in said and "x.sum()" not in said and 'course.hint("99.1")' in said


@pytest.mark.parametrize(
    "answer, why",
    [
        (lambda x: x, "it makes [1.0, 2.0]"),
        (lambda x: ..., "returns nothing yet"),
        (lambda x: None, "returns nothing yet"),
        (lambda x: 1 / 0, "your function raises ZeroDivisionError"),
        (lambda: 1, "your function raises TypeError"),
        (lambda x: "text", "the check could not use this answer"),
        (3, "a function is asked for, and this is a number"),
        (X, "this is a tensor"),
    ],
)
def test_what_is_wrong_with_something_written_is_said(answer, why, capsys):
    assert not checking.is_right("99.2", answer, x=X)
    assert why in capsys.readouterr().out


def test_something_written_may_be_right(capsys):
    assert checking.is_right("99.2", lambda x: x + x, x=X)


def test_hints_come_one_at_a_time(capsys):
    checking.hint("99.1")
    assert capsys.readouterr().out == "Hint 1 of 2: add them up\n"
    checking.hint("99.1")
    assert "Hint 2 of 2: x.sum()" in capsys.readouterr().out
    checking.hint("99.1")
    assert "all 2 hints" in (said := capsys.readouterr().out) and "add them up" in said


@pytest.mark.parametrize(
    "answer, why",
    [
        (None, "a tensor of images"),
        (torch.zeros(3, 8, 8), "the shape must be"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating-point"),
        (torch.zeros(1, 3, 8, 8, requires_grad=True), "gradient"),
        (torch.full((1, 3, 8, 8), torch.nan), "NaN"),
        (torch.full((1, 3, 8, 8), 1.5), r"[0, 1]"),
    ],
)
def test_what_keeps_a_tensor_from_being_images_is_said(answer, why):
    assert why in image_like(answer, torch.zeros(1, 3, 8, 8))
    assert image_like(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)) is None
