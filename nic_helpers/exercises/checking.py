"""Checking a reader's answer, and giving hints one at a time and only when asked."""

from __future__ import annotations

from collections import Counter

import torch

from nic_helpers.exercises.base import Number
from nic_helpers.exercises.collect import exercise

_given: Counter[str] = Counter()  # hints that this reader has had


def is_right(number: str, answer, **given) -> bool:
    """Judge an answer and say how it went; False, and no error, for one not given yet (``...``). ``given``: what the exercise needs."""
    e = exercise(number)
    for_help = f'course.hint("{number}") gives a hint'
    if answer is ... or answer is None:
        print(f"Exercise {number}: not answered yet. {for_help}.")
        return False
    wrong = e.verdict(answer, **given)
    if wrong is None:
        print(f"Exercise {number}: right" + (f", {float(torch.as_tensor(answer).detach()):.4g}." if isinstance(e, Number) else "."))
    else:
        print(f"Exercise {number}: {wrong.rstrip('.')}. {for_help}.")
    return wrong is None


def check(number: str, answer, **given) -> None:
    """:func:`is_right` for the last line of a cell: it prints and returns nothing."""
    is_right(number, answer, **given)


def hint(number: str) -> None:
    """Print the next hint of an exercise: the first says where to look, the last names the calls."""
    hints = exercise(number).hints
    k = _given[number]
    if k < len(hints):
        _given[number] += 1
        print(f"Hint {k + 1} of {len(hints)}: {hints[k]}")
    else:
        print(f"That were all {len(hints)} hints of exercise {number}:")
        for n, text in enumerate(hints, 1):
            print(f"  {n}. {text}")
