"""All attacks side by side: three codecs, equal budgets, equal gradient evaluations, on centre crops of Kodak images.

NIC_KODAK_DIR=… python benchmarks/all_attacks.py                 # eight images, 256² crops, 30 gradient evaluations
NIC_KODAK_DIR=… python benchmarks/all_attacks.py --summary       # the tables of the last run again

Two budgets: ε = 8/255 for the attacks that bound every sample, and, for those that bound the root mean square, the one that
FGSM's ±8 has (8/255). Every attack raises the distortion to the clean reconstruction but the last nine, which aim at the
rate, at the distortion to the input, or at both; on the rate alone ``steps`` are those of each of the three surrogates. ARDA
is one image against qualities 1, 3 and 6, measured on 3. Rows go to data/results/all_attacks.csv as each attack ends; a run
started again does what is missing, or was made by another program.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from nic_helpers import attacks, image_sets, images, load_codec, metrics, stats
from nic_helpers.codecs.base import stack
from nic_helpers.objectives import Distortion, Rate
from nic_helpers.settings import data_dir
from nic_helpers.sweep.program import program_sha256

EPS = 8 / 255
CODECS = (("bmshj2018-hyperprior", 3), ("mbt2018", 3), ("cheng2020-anchor", 3))
TOGETHER = (1, 3, 6)  # the qualities that ARDA attacks at once
RESULTS = "all_attacks.csv"


def contestants(steps: int, queries: int) -> dict[str, tuple[str, attacks.Attack, object]]:
    """name -> (budget, attack, objective), each of ``steps`` gradient evaluations (Square: of ``queries`` forward passes)."""
    half = max(1, steps // 3)
    sign = {
        "uniform noise": attacks.RandomNoise(EPS),
        "sign noise": attacks.RandomNoise(EPS, kind="sign"),
        "coarse noise": attacks.RandomNoise(EPS, kind="coarse"),
        "FGSM, sign reversed": attacks.Descend(EPS, like=attacks.FGSM(EPS)),
        "FGSM": attacks.FGSM(EPS),
        "FGSM, best of n": attacks.FGSM(EPS, restarts=steps),
        "I-FGSM": attacks.IFGSM(EPS, steps=steps),
        "PGD": attacks.PGD(EPS, steps=steps),
        "PGD, 3 restarts": attacks.PGD(EPS, steps=half, restarts=3),
        "PGD, straight-through": attacks.PGD(EPS, steps=steps, surrogate="ste"),
        "MI-FGSM": attacks.MIFGSM(EPS, steps=steps),
        "DI-FGSM": attacks.DIFGSM(EPS, steps=steps),
        "APGD": attacks.APGD(EPS, steps=steps),
        "continuation": attacks.Continuation(EPS, steps=steps),
        "Square": attacks.Square(EPS, queries=queries),
    }
    l2 = {"norm": "l2rms"}
    ball = {
        "noise": attacks.RandomNoise(EPS, **l2),
        "FGSM": attacks.FGSM(EPS, **l2),
        "I-FGSM": attacks.IFGSM(EPS, steps=steps, **l2),
        "PGD": attacks.PGD(EPS, steps=steps, **l2),
        "MI-FGSM": attacks.MIFGSM(EPS, steps=steps, **l2),
        "APGD": attacks.APGD(EPS, steps=steps, **l2),
        "continuation": attacks.Continuation(EPS, steps=steps, **l2),
        "FTDA": attacks.FTDA(EPS, steps=steps),
        "MADC": attacks.MADC(EPS, steps=steps),
        "SSAH": attacks.SSAH(EPS, steps=steps),
        "Chroma": attacks.Chroma(EPS, steps=steps),
    }
    other = {
        "PGD on the rate": ("linf", attacks.PGD(EPS, steps=steps), Rate()),
        "PGD on the rate, rms": ("l2rms", attacks.PGD(EPS, steps=steps, **l2), Rate()),
    }
    other["SRDA with Adam, 90°"] = ("l2rms", attacks.SRDA(EPS, angle=90.0, steps=steps, optimiser="adam"), None)
    for angle in (0.0, 45.0, 90.0):
        other[f"SRDA, {angle:g}°"] = ("l2rms", attacks.SRDA(EPS, angle=angle, steps=steps), None)
        other[f"ARDA, {angle:g}°"] = ("l2rms", attacks.ARDA(EPS, angle=angle, steps=steps), None)
    plain = {f"{n} ({b})": (b, a, Distortion()) for b, group in (("linf", sign), ("l2rms", ball)) for n, a in group.items()}
    return plain | other


def crops(count: int, side: int) -> dict[str, torch.Tensor]:
    """Centre crops of every third Kodak image."""
    named = image_sets.load_named_images("kodak")
    names = list(named)[:: max(1, len(named) // count)][:count]
    return {n: images.centre_crop(named[n], side) for n in names}


def measure(a: argparse.Namespace, path: Path) -> pd.DataFrame:
    """Run what is missing; returns all rows."""
    chosen = crops(a.images, a.side)
    x = stack(list(chosen.values()))
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    jobs = []
    for name, quality in CODECS:
        codec = load_codec(name, quality)
        for attack, (budget, settings, objective) in contestants(a.steps, a.queries).items():
            key = {
                "attack": attack,
                "settings": repr(settings),
                "weights_sha256": codec.weights.sha256[:12],
                "program": program_sha256(rows_only=True)[:12],
            }
            same = done
            for column, value in key.items():
                same = same[same[column] == value] if column in same else same[:0]
            if len(same) != len(chosen):
                jobs.append((codec, key, budget, settings, objective))
    for codec, key, budget, settings, objective in tqdm(jobs, desc="attacks"):
        several = [load_codec(codec.name, q) for q in TOGETHER] if isinstance(settings, attacks.ARDA) else codec
        result = settings(several, x, objective)
        rows = metrics.before_after(codec, x, result.x_adv, list(chosen)).assign(
            **key,
            budget=budget,
            gradients=result.gradients * (len(several) if several is not codec else 1),
            judged=result.judged,
            seconds=result.seconds / len(chosen),
        )
        kept = done[~((done["attack"] == key["attack"]) & (done["codec"] == codec.name))] if len(done) else done
        done = pd.concat([kept, rows], ignore_index=True)
        done.to_csv(path, index=False, float_format="%.6g")
    return done


def summary(table: pd.DataFrame) -> str:
    """Markdown: one table a codec, strongest first within each budget."""
    out = []
    for name, part in table.groupby("codec", sort=False):
        label = f"{name} q{part['quality'].iloc[0]}"
        out += [
            f"### {label}",
            "",
            "| attack | PSNR between the outputs (dB) | worst | blow-ups | output moved more than input (dB) "
            "| loss of PSNR to the source (dB) | loss of PSNR to the input (dB) | file × | input (dB) | gradients | s an image |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        by_strength = part.groupby(["budget", "attack"], sort=False)["psnr_recon"].mean().sort_values()
        for budget in ("linf", "l2rms"):
            for attack in by_strength[budget].index:
                rows = part[(part["attack"] == attack) & (part["budget"] == budget)]
                worst = rows["psnr_recon"].min()
                mean = rows.select_dtypes("number").mean()
                cells = (
                    attack,
                    stats.bootstrap(rows["psnr_recon"]),
                    f"{worst:.1f}",
                    f"{int(rows['blow_up'].sum())} of {len(rows)}",
                    f"{mean['delta_amp']:+.1f}",
                    f"{mean['delta_source']:.2f}",
                    f"{mean['delta_own']:.2f}",
                    f"{mean['bpp_ratio']:.2f}",
                    f"{mean['psnr_input']:.1f}",
                    f"{mean['gradients']:.0f}",
                    f"{mean['seconds']:.1f}",
                )
                out.append("| " + " | ".join(map(str, cells)) + " |")
        out.append("")
    return "\n".join([*out, f"{table['seconds'].sum() / 60:.0f} minutes of attacks in all."])


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=int, default=8)
    p.add_argument("--side", type=int, default=256)
    p.add_argument("--steps", type=int, default=30, help="gradient evaluations of each attack")
    p.add_argument("--queries", type=int, default=500, help="of Square")
    p.add_argument("--summary", action="store_true", help="print the tables of what is there, measure nothing")
    a = p.parse_args()
    path = data_dir() / "results" / RESULTS
    print(summary(pd.read_csv(path) if a.summary else measure(a, path)))


if __name__ == "__main__":
    main()
