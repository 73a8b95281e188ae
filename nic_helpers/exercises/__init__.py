"""The notebooks' exercises: a file for each notebook, with solutions, hints, judges and typical wrong answers."""

from nic_helpers.exercises.checking import check, hint, is_right
from nic_helpers.exercises.collect import exercise, exercises

__all__ = ["check", "exercise", "exercises", "hint", "is_right"]
