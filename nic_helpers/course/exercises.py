"""Checks of the notebooks' exercises: each computes its solution and compares it with the reader's answer.

An exercise not yet answered (``...``) prints its hint and raises nothing, so that the headless run goes through.
"""

from __future__ import annotations

import math

import torch

from nic_helpers.course import exercises_on_attacks, exercises_on_defences
from nic_helpers.course.exercises_on_attacks import Exercise

EXERCISES: dict[str, Exercise] = exercises_on_attacks.EXERCISES | exercises_on_defences.EXERCISES


def is_right(number: str, answer, **given) -> bool:
    """Compare an answer with the exercise's solution, and say how it went. ``given``: what the solution needs."""
    exercise = EXERCISES[number]
    if answer is ...:
        print(f"Exercise {number}: not answered yet. Hint: {exercise.hint}.")
        return False
    value = float(answer.detach()) if isinstance(answer, torch.Tensor) else float(answer)
    right = exercise.solution(**given)
    good = math.isfinite(value) and abs(value - right) <= exercise.tolerance
    if good:
        print(f"Exercise {number}: right, {right:.4g}.")
    else:
        print(f"Exercise {number}: {value:.4g} is not it. Hint: {exercise.hint}.")
    return good


def check(number: str, answer, **given) -> None:
    """:func:`is_right` for the last line of a cell: it prints and returns nothing."""
    is_right(number, answer, **given)
