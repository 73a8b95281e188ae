"""The command line: python -m nic_helpers.training, one run or a recipe's."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundle
from nic_helpers.training import recipes
from nic_helpers.training.optimisers import NAMES
from nic_helpers.training.run import train
from nic_helpers.training.settings import Settings


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
    one.add_argument("--arch", choices=sorted(ARCHITECTURES))
    one.add_argument("--quality", type=int, choices=sorted(LAMBDAS))
    one.add_argument("--widths", type=int, nargs=2, help="N M")
    one.add_argument("--steps", type=int)
    for name in ("batch", "crop", "seed"):
        one.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    for name in ("lr", "warmup"):
        one.add_argument(f"--{name}", type=float, default=getattr(Settings, name))
    one.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the transforms")
    one.add_argument("--channels-last", action="store_true")
    one.add_argument("--optimiser", default="adam", choices=NAMES)
    one.add_argument(
        "--start",
        default="pca",
        help="pca, random, default (CompressAI's own random weights), or the state.pt or weights of a run to begin from",
    )
    one.add_argument("--only", choices=("entropy",), help="train the entropy model alone")
    one.add_argument("--side-warmup", type=float, default=0.0, help="share of the steps in which z becomes dear")
    one.add_argument("--imitate", type=int, default=0, help="steps in which a new h_a first learns to give the old z")
    one.add_argument("--mixed", action="store_true", help="round for the synthesis, add noise for the rate")
    one.add_argument("--compile", action="store_true", help="compile the transforms")
    one.add_argument("--centred", action="store_true", help="steps as if each convolution's inputs had mean zero")
    one.add_argument("--ema", type=float, default=0.0, help="decay of the averaged weights that are exported")
    one.add_argument("--stop", type=int, help="end after this many steps, before the schedule does")
    one.add_argument("--bundle", action="store_true", help="put the result among the bundled weights")
    return p


def main(argv: list[str] | None = None) -> None:
    """The command line: ``python -m nic_helpers.training --help``."""
    p = parser()
    a = p.parse_args(argv)
    if a.recipe:
        sys.exit(recipes.run_from_command_line(a))
    missing = [f"--{n}" for n in ("data", "out", "arch", "quality", "widths", "steps") if getattr(a, n) is None]
    if missing:
        p.error(f"one run needs {', '.join(missing)} (or give --recipe)")
    bf16 = {"auto": None, "bf16": True, "fp32": False}[a.precision]
    same = {f.name for f in fields(Settings) if f.init} - {"widths", "bf16"}
    s = Settings(widths=tuple(a.widths), bf16=bf16, **{name: getattr(a, name) for name in same})
    state = train(s, a.data, a.out, a.val, a.device, a.every, a.keep_every, a.stop)
    if a.bundle:
        bundle(state.with_name("weights.safetensors"), a.arch, a.quality)


if __name__ == "__main__":
    main()
