"""Are the attacks on the picture at their limit? Strength against steps, plain and by continuation in ε, on the headline codecs.

NIC_KODAK_DIR=… python -m nic_helpers.sweep strength            # makes the rows, resumable
python benchmarks/strength.py [--write]                         # prints the tables; writes the figure and docs/strength.md

Beside it what an independent review of the project found with attacks of its own, on the same crops: to be met or beaten.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from nic_helpers import plotting, stats
from nic_helpers.course import robust, studies
from nic_helpers.course.boards import short
from nic_helpers.course.grids import LIMIT, STEPS
from nic_helpers.settings import PROJECT, data_dir
from nic_helpers.sweep.dataset import Dataset

ROWS = data_dir() / "results" / "strength.parquet"
SEQUENTIAL = data_dir() / "results" / "sequential.csv"
PAGE = PROJECT / "docs" / "strength.md"
FIGURE = PROJECT / "figures" / "strength"
KINDS = {("l2rms", 8): "ball, RMS 8/255", ("linf", 8): "box, 8/255", ("linf", 16): "box, 16/255"}
#: The review's strongest on single images or means of images (dB between the outputs), 60 to 300 steps:
#: (codec, quality, norm, ε) -> (images, dB).
REVIEW = {
    ("bmshj2018-hyperprior", 6, "l2rms", 8): (("kodim04",), 15.17),
    ("bmshj2018-hyperprior", 6, "linf", 8): (("kodim04", "kodim07", "kodim10", "kodim13"), 25.35),
    ("bmshj2018-hyperprior", 6, "linf", 16): (("kodim04",), 12.68),
    ("mbt2018", 6, "l2rms", 8): (("kodim04",), 16.01),
    ("mbt2018", 6, "linf", 16): (("kodim04",), 13.65),
    ("bmshj2018-factorized", 6, "l2rms", 8): (("kodim13",), 17.59),
    ("bmshj2018-factorized", 6, "linf", 16): (("kodim04",), 14.31),
    ("bmshj2018-hyperprior", 3, "l2rms", 8): (("kodim04",), 19.17),
    ("bmshj2018-hyperprior", 3, "linf", 16): (("kodim04",), 22.57),
    ("bmshj2018-hyperprior", 1, "l2rms", 8): (("kodim04",), 23.42),
    ("bmshj2018-hyperprior", 1, "linf", 16): (("kodim04",), 22.80),
    ("cheng2020-anchor", 3, "l2rms", 8): (("kodim04",), 23.66),
    ("cheng2020-anchor", 3, "linf", 16): (("kodim04",), 22.90),
    ("cheng2020-anchor", 6, "l2rms", 8): (("kodim04",), 23.14),
    ("cheng2020-anchor", 6, "linf", 16): (("kodim04",), 20.91),
}


def rows(folder: Path | None) -> pd.DataFrame:
    """The study's rows, from a sweep's folder or as committed; with ``kind`` ("PGD", "continuation"), ``steps`` and ``codec q``."""
    table = Dataset(folder).read() if folder else pd.read_parquet(ROWS)
    table[["kind", "steps"]] = table["attack"].str.rsplit(" ", n=1, expand=True)
    table["image"] = table["image"].str.removesuffix(".png")
    return table.astype({"steps": int, "quality": int, "eps_255": int})


def by_steps(table: pd.DataFrame) -> pd.DataFrame:
    """Mean dB between the outputs over the images: a row a codec, budget and kind, a column a number of steps."""
    keys = ["codec", "quality", "norm", "eps_255", "kind"]
    return table.pivot_table("psnr_recon", keys, "steps", sort=False).sort_index(axis=1).round(2)


def beside_review(table: pd.DataFrame) -> pd.DataFrame:
    """Ours, the strongest of all, beside the review's, on the same images."""
    found = []
    for (codec, quality, norm, eps), (images, theirs) in REVIEW.items():
        same = table[
            (table["codec"] == codec)
            & (table["quality"] == quality)
            & (table["norm"] == norm)
            & (table["eps_255"] == eps)
            & table["image"].isin(images)
        ]
        if same["image"].nunique() == len(images):
            ours = same.groupby("image")["psnr_recon"].min().mean()
            found.append(
                {
                    "codec": f"{codec} q{quality}",
                    "budget": KINDS[norm, eps],
                    "images": ", ".join(images),
                    "review (dB)": theirs,
                    "ours (dB)": round(ours, 2),
                    "met": ours <= theirs,
                }
            )
    return pd.DataFrame(found)


def figure(table: pd.DataFrame) -> plt.Figure:
    """A panel a budget: dB between the outputs against steps, a colour and marker a codec, continuation solid."""
    plotting.set_theme()
    fig, axes = plt.subplots(1, len(KINDS), figsize=(13, 4.6), sharey=True)
    for ax, ((norm, eps), title) in zip(axes, KINDS.items(), strict=True):
        part = table[(table["norm"] == norm) & (table["eps_255"] == eps)]
        for (codec, quality, kind), curve in part.groupby(["codec", "quality", "kind"], sort=False):
            means = curve.groupby("steps")["psnr_recon"].mean()
            label = short(codec, quality) if kind == "continuation" else None
            look = plotting.style(codec) | {"alpha": {6: 1.0, 3: 0.65, 1: 0.4}[quality]}
            ax.plot(means.index, means, "-" if kind == "continuation" else ":", label=label, **look)
        ax.axhline(15, color="0.4", lw=1, ls="--")
        ax.set(title=title, xscale="log", xlabel="gradient evaluations", xticks=STEPS)
        ax.set_xticklabels([str(s) for s in STEPS])
        ax.minorticks_off()
    axes[0].set_ylabel("PSNR between the outputs (dB)")
    axes[1].text(10, 15.1, "a blow-up: below 15 dB", fontsize=9, color="0.35", va="bottom")
    handles = {h.get_label(): h for ax in axes for h in ax.get_lines() if not h.get_label().startswith("_")}
    fig.legend([handles[n] for n in sorted(handles)], sorted(handles), loc="outside right upper", fontsize=8)
    plotting.caption(
        fig,
        f"{table['image'].nunique()} Kodak crops of 256². Solid: continuation in ε, half of the steps in 2ε. "
        "Dotted: PGD. Lower is stronger.",
    )
    return fig


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What the last threefolds of steps still brought by continuation (dB, with the interval over the images): a row a codec and budget.

    Codec by codec: where one gains and another loses, as an optimiser that is not steady does, a common mean would hide both.
    """
    found = []
    part = table[table["kind"] == "continuation"]
    for (codec, quality, norm, eps), some in part.groupby(["codec", "quality", "norm", "eps_255"], sort=False):
        wide = some.pivot(index="image", columns="steps", values="psnr_recon")
        row = {"codec": short(codec, quality), "budget": KINDS[norm, eps]}
        for fewer, more in ((30, 100), (100, 300)):
            both = wide.reindex(columns=[fewer, more]).dropna()
            row[f"{fewer} to {more}"] = stats.bootstrap((both[fewer] - both[more]).to_numpy()) if len(both) else float("nan")
        found.append(row)
    order = {title: k for k, title in enumerate(KINDS.values())}
    by = pd.DataFrame(found).sort_values("codec")
    return by.sort_values("budget", key=lambda v: v.map(order), kind="stable").reset_index(drop=True)


def left_over(table: pd.DataFrame) -> stats.Interval:
    """The largest mean over a codec's images by which the best of this study went beyond the robustness study's own attack (dB)."""
    study = robust.committed().astype({"quality": int, "eps_255": int})
    study["image"] = study["image"].str.removesuffix(".png")
    keys = ["codec", "quality", "norm", "eps_255", "image"]
    limit = study[study["attack"].isin([a for names in LIMIT.values() for a in names])]
    beyond = (limit.groupby(keys)["psnr_recon"].min() - table.groupby(keys)["psnr_recon"].min()).dropna()
    found = [stats.bootstrap(part.to_numpy()) for _, part in beyond.groupby(level=keys[:-1])]
    return max(found, key=lambda gap: gap.mean)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    head = "| " + " | ".join(map(str, table.columns)) + " |\n|" + " --- |" * len(table.columns)
    body = ("| " + " | ".join("" if pd.isna(v) else str(v) for v in row) + " |" for row in table.itertuples(index=False))
    return "\n".join([head, *body])


def _missing(table: pd.DataFrame) -> str:
    """A sentence about settings of the study that have no rows yet."""
    grids = studies.grids_of("strength", "standard")
    planned = sum(sum(map(len, g.codecs.values())) * len(g.attacks) * len(g.budgets) for g in grids)
    done = table.groupby(["attacked", "norm", "eps_255", "attack"]).ngroups
    gap = planned - done
    unplanned = "An empty cell at 300 steps: only the hyperprior at quality 6 and cheng2020-anchor at quality 3 took so many."
    return f"\n{unplanned}\n" + (f"\n{gap} of the study's {planned} settings have no rows yet.\n" if gap else "")


def real_decoder() -> str:
    """What an attack gains from a context model's real decoder in its loop (benchmarks/sequential.py): sentences."""
    table, lines, found = pd.read_csv(SEQUENTIAL), [], []
    for (norm, eps), part in table.groupby(["norm", "eps_255"], sort=False):
        wide = part.pivot_table("psnr_own", ["codec", "quality", "image"], "kind", sort=False)
        for other in ("decoder in the loop", "parallel form, straight-through"):
            gained = (wide["parallel form"] - wide[other]).groupby("image", sort=False)
            found.append(stats.bootstrap([v.to_numpy() for _, v in gained]))
            lines.append(f"- {KINDS[norm, eps]}, {other}: {found[-1]} dB.")
    clean, attacked = table["forms_apart_clean"].min(), table["forms_apart_attacked"].min()
    codecs = ", ".join(f"{name} q{quality}" for name, quality in dict.fromkeys(zip(table["codec"], table["quality"], strict=True)))
    steps = table["steps"].iat[0]
    return f"""Codecs with a context model rebuild one latent after the other. Attacks follow the form that does all at once. On
clean pictures the PSNR between the two forms' outputs is at least {clean:.1f} dB, on attacked ones {attacked:.1f} dB.
PGD with {steps} steps, measured on the real decoder's output, beside the same attack with the real decoder's picture in its loop
(gradients stay those of the parallel form), and with straight-through rounding alone, which that one has, too
({codecs}; {table["image"].nunique()} crops). Above zero it moves the outputs further apart than the ordinary
attack does:

{chr(10).join(lines)}

{"Some interval lies" if any(g.low > 0 for g in found) else "No interval lies"} above zero; with so few crops they
are wide. The two lines of a budget have one surrogate, so their difference is what the decoder in the loop brings."""


def page(table: pd.DataFrame) -> str:
    """docs/strength.md."""
    steps, review = by_steps(table).reset_index(), beside_review(table)
    return f"""# Are the attacks at their limit?

Generated by `python benchmarks/strength.py --write` from `data/results/strength.parquet`; do not edit by hand.

![Strength against steps](../figures/strength.png)

PSNR between the outputs of clean and attacked image (dB, mean of {table["image"].nunique()} Kodak crops of 256²; lower is
stronger) after so many gradient evaluations of each attack. "Continuation" spends half of them in twice the ε.

{markdown(steps)}
{_missing(table)}
## What more steps still bring

By continuation, in dB (below zero: the longer run found less, so the optimiser is not steady there):

{markdown(gains(table))}

So a stronger attack finds more, and the robustness study's numbers (continuation with 60 steps) are what an attacker reaches
*at least*: on the same crops the best of this page goes beyond them by up to {left_over(table)} dB on a codec's mean.
What was not tried: more than one seed here, starts other than random ones, second-order methods, attacks on the latent
instead of the picture.

## With the real decoder in the loop

{real_decoder()}

## Beside an independent review

The strongest that a review of this project found with attacks of its own (60 to 300 steps), on the same images. It is met in
{int(review["met"].sum())} of {len(review)} cases.

{markdown(review)}
"""


def main() -> None:
    """Print, and write."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--folder", type=Path, help="a sweep's folder; default: the committed rows")
    p.add_argument("--write", action="store_true", help="the rows, the figure and docs/strength.md")
    a = p.parse_args()
    table = rows(a.folder)
    print(by_steps(table).to_string())
    print(gains(table).to_string(index=False), beside_review(table).to_string(index=False), left_over(table), sep="\n")
    if a.write:
        if a.folder:
            Dataset(a.folder).read().to_parquet(ROWS, index=False, compression="zstd")
        plotting.save(figure(table), FIGURE)
        PAGE.write_text(page(table))


if __name__ == "__main__":
    main()
