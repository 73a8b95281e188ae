"""The teacher's notebook: every exercise with its question, hints, solution, and what the check says to typical wrong answers.

python -m nic_helpers.exercises [--out build/teacher.ipynb]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nic_helpers.exercises.teacher import write
from nic_helpers.settings import PROJECT

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m nic_helpers.exercises", description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, default=PROJECT / "notebooks", help="where the questions are read from")
    parser.add_argument("--out", type=Path, default=PROJECT / "build" / "teacher.ipynb", help="the notebook to write")
    a = parser.parse_args()
    try:
        print(f"{write(a.notebooks, a.out)} exercises with their solutions: {a.out}")
    except OSError as error:
        sys.exit(f"cannot write the teacher's notebook: {error}")
