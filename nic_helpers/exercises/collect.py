"""The exercises of all notebooks, found by number: ``03.2`` is in n03.py."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

from nic_helpers.exercises.base import Exercise


def notebooks() -> list[str]:
    """The numbers of the notebooks that have exercises: "00", "01" …"""
    names = (m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name[1:] for name in names if re.fullmatch(r"n\d\d", name))


def exercises(notebook: str) -> dict[str, Exercise]:
    """A notebook's exercises by number, in order."""
    if notebook not in notebooks():
        raise ValueError(f"no exercises for notebook {notebook!r}: there are {', '.join(notebooks())}")
    module = importlib.import_module(f"nic_helpers.exercises.n{notebook}")
    return {e.number: e for e in module.EXERCISES}


def exercise(number: str) -> Exercise:
    """One exercise; ValueError, saying which there are, if there is none of this number."""
    have = exercises(str(number)[:2])
    if number not in have:
        raise ValueError(f"no exercise {number!r}: there are {', '.join(have)}")
    return have[number]
