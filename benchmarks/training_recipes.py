"""Training recipes against each other: what each run of data/recipes/comparison.toml reached in about the same time.

python -m nic_helpers.training --recipe data/recipes/comparison.toml --data DIR --val DIR --out data/training
python benchmarks/training_recipes.py data/training
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from nic_helpers.recipes import Run, read_recipe
from nic_helpers.settings import data_dir


def row(r: Run, out: Path) -> dict | None:
    """What a finished run reached, and how it differs from the first of the comparison."""
    log = r.folder(out) / "log.csv"
    if not log.is_file():
        return None
    last, s = pd.read_csv(log).iloc[-1], r.settings
    return {"run": r.name.removeprefix("compare-"), "begins from": r.after or s.start, "N, M": "{}, {}".format(*s.widths),
            "batch": f"{s.batch}×{s.crop}²", "lr": s.lr, "synthesis sees": "rounded" if s.mixed else "noisy",
            "precision": ("bfloat16" if s.bf16 else "float32") + (", channels last" if s.channels_last else ""),
            "steps": int(last["step"]), "seconds": last["seconds"], "val loss": last["val_loss"],
            "bpp": last["val_bpp"], "PSNR": last["val_psnr"],
            "averaged weights": last.get("val_loss_ema", float("nan"))}  # fmt: skip


def main() -> None:
    """Print the table as Markdown."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=Path, help="the recipe's --out")
    a = p.parse_args()
    runs = [r for r in read_recipe(data_dir() / "recipes" / "comparison.toml", a.out) if r.name.startswith("compare-")]
    table = pd.DataFrame([found for r in runs if (found := row(r, a.out))])
    shown = table.round({"seconds": 0, "val loss": 4, "bpp": 4, "PSNR": 2, "averaged weights": 4}).fillna("")
    for line in [shown.columns, ["---"] * shown.shape[1], *shown.to_numpy()]:
        print("| " + " | ".join(map(str, line)) + " |")


if __name__ == "__main__":
    main()
