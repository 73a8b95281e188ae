"""What a sweep costs, and what a second worker brings: the tables of docs/scaling.md.

python benchmarks/scaling.py            # hours of this device for settings × images, from steps timed now
python benchmarks/scaling.py --workers  # one and two processes on the same grid, in turns
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import torch

from nic_helpers import attacks, sweep
from nic_helpers.course.grids import ARCHS
from nic_helpers.settings import get_device
from nic_helpers.sweep import unit
from nic_helpers.sweep.cost import pace
from nic_helpers.sweep.grid import Grid

EPS = 8 / 255
SETTINGS = {"noise": 0, "FGSM": 1, "PGD, 10 steps": 10, "SRDA, 6 × 30 steps": 180, "FTDA, 1001 steps": 1001}
IMAGES = (24, 1_000, 1_000_000)


def cost(weights: str, quality: int, pixels: int) -> pd.DataFrame:
    """Hours of this device, a row a codec and setting, a column a number of images."""
    rows = []
    for name in ARCHS:
        took = pace(name, quality, weights, pixels)
        for setting, gradients in SETTINGS.items():
            seconds = gradients * took["gradient"] + took["coding"]
            rows.append(
                {"codec": f"{name} q{quality}", "setting": setting, "s an image": seconds}
                | {f"{n:,} images (h)": n * seconds / 3600 for n in IMAGES}
            )
        where = "random weights of the published size" if took["guessed"] else f"{weights} weights"
        print(
            f"{name}: {took['gradient']:.3f} s a gradient, {took['coding']:.3f} s to code and measure ({where})",
            flush=True,
        )
    return pd.DataFrame(rows)


def workers(rounds: int) -> None:
    """Seconds of one grid with one and with two processes, taking turns; each thread-for-thread alike."""
    small = Grid(
        codecs={"bmshj2018-hyperprior": (1, 3, 6)},
        attacks={"PGD": attacks.PGD(EPS, steps=20)},
        crop=256,
        seeds=range(2),
        limit=4,
        shard=2,
    )
    took: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for jobs, times in took.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool,
            ):
                for future in [pool.submit(unit.codec_at, "bmshj2018-hyperprior", 1, "bundled") for _ in range(4 * jobs)]:
                    future.exception()  # the processes have started, and imported what they need
                began = time.perf_counter()
                sweep.run(small, folder, executor=pool, progress=False)
                times.append(time.perf_counter() - began)
    one, two = (statistics.median(t) for t in took.values())
    print(f"{len(small.units())} units: one process {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast")


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--workers", action="store_true")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--weights", default="bundled", help="bundled, or zoo (timed with random weights where it is not at hand)")
    p.add_argument("--quality", type=int, default=3)
    p.add_argument("--pixels", type=int, default=256 * 256, help="of an image; whole Kodak images have 393216")
    a = p.parse_args()
    if a.workers:
        workers(a.rounds)
        return
    table = cost(a.weights, a.quality, a.pixels)
    print(f"\n{get_device()}, {a.pixels} pixels an image, real bytes")
    print("| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.3g}" for v in row) + " |")


if __name__ == "__main__":
    main()
