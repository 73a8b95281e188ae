"""The command line: python -m nic_helpers.training, one run or a recipe's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nic_helpers.codecs.weights import bundle
from nic_helpers.training import recipes
from nic_helpers.training.run import train
from nic_helpers.training.settings import add_options, missing, of_options


def parser() -> argparse.ArgumentParser:
    """The command line: one run by its settings, or a recipe's runs."""
    p = argparse.ArgumentParser(prog="python -m nic_helpers.training", description="Train compact codecs.")
    p.add_argument("--data", type=Path, help="folder of training images")
    p.add_argument("--val", type=Path, help="folder of validation images")
    p.add_argument("--out", type=Path, help="folder of the run's state; for a recipe, of its runs' folders")
    p.add_argument("--device", default="cpu")
    p.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    p.add_argument("--keep-every", type=int, default=0, help="steps between checkpoints whose weights are kept")
    many = p.add_argument_group("a recipe")
    many.add_argument("--recipe", type=Path, help="TOML file of runs, such as data/recipes/bundled.toml")
    many.add_argument("--jobs", type=int, default=1, help="runs at a time, side by side (one CPU thread each)")
    many.add_argument("--only-runs", nargs="+", default=[], metavar="NAME", help="these, and those they begin from")
    many.add_argument("--keep-states", action="store_true", help="write where its begun runs are beside the recipe, small")
    many.add_argument("--dry-run", action="store_true", help="print the plan and its cost, timed here; train nothing")
    one = p.add_argument_group("one run")
    add_options(one)
    one.add_argument("--stop", type=int, help="end after this many steps, before the schedule does")
    one.add_argument("--bundle", action="store_true", help="put the result among the bundled weights")
    return p


def main(argv: list[str] | None = None) -> None:
    """The command line: ``python -m nic_helpers.training --help``."""
    p = parser()
    a = p.parse_args(argv)
    if a.recipe:
        sys.exit(recipes.run_from_command_line(a))
    left_out = [f"--{name}" for name in ("data", "out") if getattr(a, name) is None] + missing(a)
    if left_out:
        p.error(f"one run needs {', '.join(left_out)} (or give --recipe)")
    s = of_options(a)
    state = train(s, a.data, a.out, a.val, a.device, a.every, a.keep_every, a.stop)
    if a.bundle:
        bundle(state.with_name("weights.safetensors"), a.arch, a.quality)


if __name__ == "__main__":
    main()
