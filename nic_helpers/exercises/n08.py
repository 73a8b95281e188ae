"""Exercises of notebook 08: the robustness study."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nic_helpers import stats
from nic_helpers.exercises.base import Number, Write


# ------------------------------------------------------------------------------------------------------------------- 08.1
def box_against_ball(box: pd.DataFrame, ball: pd.DataFrame) -> float:
    def apart(rows: pd.DataFrame) -> float:
        mine = rows[(rows["codec"] == "bmshj2018-hyperprior") & (rows["quality"] == 6)]
        return float(mine["psnr_recon"].mean())

    return apart(box) - apart(ball)


def two_tables() -> dict:
    """Two images, one codec at two qualities."""
    lines = [("a", 1, 26.0), ("b", 1, 25.0), ("a", 6, 27.0), ("b", 6, 28.0)]
    box = pd.DataFrame(lines, columns=["image", "quality", "psnr_recon"]).assign(codec="bmshj2018-hyperprior")
    return {"box": box, "ball": box.assign(psnr_recon=box["psnr_recon"] - [1.0, 1.0, 9.0, 10.0])}


# ------------------------------------------------------------------------------------------------------------------- 08.2
def my_ranking(scores: pd.DataFrame, draws: int = 1000) -> tuple[list, float]:
    order = list(scores.mean().sort_values().index)
    rng = np.random.default_rng(0)
    values = scores[order].to_numpy()
    firsts = 0
    for _ in range(draws):
        drawn = rng.integers(0, len(values), len(values))  # the same images for every codec
        firsts += values[drawn].mean(axis=0).argmin() == 0
    return order, firsts / draws


def the_wrong_way_round(scores: pd.DataFrame, draws: int = 1000) -> tuple[list, float]:
    order, share = my_ranking(-scores, draws)
    return order, share


def images_drawn_for_each_codec(scores: pd.DataFrame, draws: int = 1000) -> tuple[list, float]:
    order = list(scores.mean().sort_values().index)
    rng = np.random.default_rng(0)
    values = scores[order].to_numpy()
    drawn = rng.integers(0, len(values), (draws, *values.shape))
    means = np.take_along_axis(np.broadcast_to(values, drawn.shape), drawn, axis=1).mean(axis=1)
    return order, float((means.argmin(axis=1) == 0).mean())


def no_draws_at_all(scores: pd.DataFrame, draws: int = 1000) -> tuple[list, float]:
    order = list(scores.mean().sort_values().index)
    return order, float((scores.idxmin(axis=1) == order[0]).mean())


def judge_ranking(answer, scores: pd.DataFrame) -> str | None:
    found = answer(scores)
    if not isinstance(found, tuple) or len(found) != 2:
        return "give back two things: the order, a list of the columns, and the share, a number"
    order, share = list(found[0]), float(found[1])
    if set(order) != set(scores.columns):
        return f"the order must hold each of the {scores.shape[1]} columns once, and holds {len(order)} entries"
    mean = scores.mean()
    if (np.diff([mean[c] for c in order]) < 0).any():
        return f"your first has a mean damage of {mean[order[0]]:.2f}, and the smallest is {mean.min():.2f}: least damage first"
    hard = np.linspace(-5, 5, 8)  # hard and easy images; A is ahead of B on each of them, by little
    paired = pd.DataFrame({"A": hard, "B": hard + 0.1})
    sure = float(answer(paired)[1])
    if sure < 0.99:
        return (
            f"on a table where A is ahead of B on every image your share is {sure:.2f}, and must be 1: "
            "draw the images once for all codecs, a hard image is hard for all"
        )
    values = scores[order].to_numpy()
    rng = np.random.default_rng(1)
    drawn = values[rng.integers(0, len(values), (4000, len(values)))].mean(axis=1)
    right = float((drawn.argmin(axis=1) == 0).mean())
    tossed = pd.DataFrame({"A": [0.0, 0.0, 0.0, 0.0, 4.0], "B": [1.0] * 5})  # A is ahead on four of five images
    coin = float(answer(tossed)[1])
    if abs(share - right) > 0.06 or not 0.6 < coin < 0.78:
        return f"your first stays first in {share:.2f} of the draws, and drawing the images anew with replacement gives {right:.2f}"
    return None


def eight_images() -> dict:
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 2, (8, 1))
    means = np.array([5.0, 5.2, 6.0, 7.5])
    values = means + hard + rng.normal(0, 0.5, (8, 4))
    return {"scores": pd.DataFrame(values, columns=["one", "two", "three", "four"])}


# ------------------------------------------------------------------------------------------------------------------- 08.3
def finest_moves_further(ball: pd.DataFrame) -> dict[str, bool]:
    """For each codec: does the interval of (coarsest − finest), paired by image, lie above zero?"""
    found = {}
    for codec, part in ball.groupby("codec"):
        wide = part.pivot_table(index="image", columns="quality", values="psnr_recon")
        found[codec] = stats.bootstrap((wide[wide.columns.min()] - wide[wide.columns.max()]).dropna().to_numpy()).low > 0
    return found


def judge_claim(answer: str, ball: pd.DataFrame) -> str | None:
    said = answer.strip().upper()
    if said not in ("A", "B"):
        return 'type "A" or "B"'
    further = finest_moves_further(ball)
    residual = [yes for codec, yes in further.items() if codec.startswith("cheng")]
    right = "A" if all(further.values()) else "B"
    if right == "B" and (any(residual) or not all(yes for c, yes in further.items() if not c.startswith("cheng"))):
        return "these rows support neither of the two claims; look at the intervals of each codec"
    if said == right:
        return None
    unsure = [codec for codec, yes in further.items() if not yes]
    if said == "A":
        return f"claim A says “every”, and for {', '.join(unsure)} the interval of the paired difference does not lie above zero"
    return "the interval lies above zero for every codec, so the stronger claim A is supported"


def six_codecs() -> dict:
    rng = np.random.default_rng(5)
    lines = []
    for codec, falls in (("mbt2018", 5.0), ("bmshj2018-hyperprior", 7.0), ("cheng2020-anchor", -0.3)):
        for k in range(8):
            coarse = 22 + rng.normal(0, 0.5)
            lines += [(codec, 1, k, coarse), (codec, 6, k, coarse - falls + rng.normal(0, 0.2))]
    return {"ball": pd.DataFrame(lines, columns=["codec", "quality", "image", "psnr_recon"])}


EXERCISES = [
    Number(
        "08.1",
        box_against_ball,
        tolerance=0.05,
        hints=(
            "Both tables have one row for each codec, quality and image.",
            "Keep the rows of one codec and one quality, and take the mean of psnr_recon; do it for both tables.",
            "box[(box['codec'] == 'bmshj2018-hyperprior') & (box['quality'] == 6)]['psnr_recon'].mean()",
        ),
        example=two_tables,
    ),
    Write(
        "08.2",
        my_ranking,
        judge=judge_ranking,
        hints=(
            "scores has a row for each image and a column for each codec. A small score is good.",
            "scores.mean().sort_values() gives the order. For the share, draw the row numbers anew, with replacement.",
            "rng.integers(0, len(scores), len(scores)) draws rows; use the same rows for all columns, and look who has "
            "the smallest mean.",
        ),
        wrong={
            "the wrong way round": the_wrong_way_round,
            "draws the images for each codec by itself": images_drawn_for_each_codec,
            "counts images and draws nothing": no_draws_at_all,
        },
        example=eight_images,
    ),
    Write(
        "08.3",
        "B",
        judge=judge_claim,
        hints=(
            "“Every” needs only one counterexample. Look at the right-hand side of the figure with the rates.",
            "Take one codec: for each image, its coarsest quality minus its finest. Is that above zero for sure?",
            "stats.bootstrap(differences) gives the interval; do it for cheng2020-anchor.",
        ),
        wrong={"too strong a claim": "A", "neither letter": "both"},
        example=six_codecs,
    ),
]
