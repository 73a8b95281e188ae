"""The study of adversarial training as grids: codecs before and after it, under attacks that it saw and did not see (notebook 12)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from nic_helpers import attacks, stats
from nic_helpers.codecs.weights import bundled_qualities
from nic_helpers.course import reference
from nic_helpers.objectives import DIRECTIONS, Rate
from nic_helpers.sweep.grid import Contestant, Grid

#: Weights by what they were trained on, the most telling first: name in this repository -> words for a legend.
WEIGHTS = {
    "bundled": "as it was",
    "robust": "rate and distortion",
    "robust-rate": "rate alone",
    "robust-distortion": "distortion alone",
    "trained-on": "clean pictures alone",
    "random-start": "random start, as it was",
    "robust-random-start": "random start, rate and distortion",
    "robust-ftda": "FTDA",
    "robust-gradient": "the gradient's norm",
}
#: Attack -> whether training saw its like: the kind of objective it raises, by a few steps along the gradient.
SEEN = {
    "SRDA rate": True,
    "SRDA both": True,
    "SRDA distortion": True,
    "PGD rate": True,
    "FGSM": False,
    "APGD": False,
    "continuation": False,
    "continuation, ball": False,
    "MADC": False,
    "FTDA": False,
    "Square": False,
}
STEPS = (1, 3, 10, 30, 100)  # of the attack that shows whether more steps find more


def contestants(steps: int, queries: int) -> dict[str, Contestant]:
    """The attacks at so many gradients, and the black-box one at so many queries."""
    eps, fast = 8 / 255, {"precision": "auto"}
    srda = {
        f"SRDA {name}": attacks.SRDA(eps, angle=DIRECTIONS[name], steps=steps, **fast) for name in ("rate", "both", "distortion")
    }
    others = {
        "FGSM": attacks.FGSM(eps),
        "APGD": attacks.APGD(eps, steps=max(2, steps // 2), **fast),
        "continuation": attacks.Continuation(eps, steps=max(2, steps), **fast),
        "continuation, ball": attacks.Continuation(eps, steps=max(2, steps), norm="l2rms", **fast),
        "MADC": attacks.MADC(eps, steps=steps, **fast),
        "FTDA": attacks.FTDA(eps, steps=steps, **fast),
        "Square": attacks.Square(eps, queries=queries),
        "sign noise": attacks.RandomNoise(eps, kind="sign"),
    }
    found = {name: Contestant(attack) for name, attack in (srda | others).items()}
    return found | {"PGD rate": Contestant(attacks.PGD(eps, steps=max(1, steps // 3), **fast), Rate())}


def grids(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """Codecs before and after, the hyperprior at quality 3 from every set of weights first."""
    arch = "bmshj2018-hyperprior"
    if profile == "quick":
        size = {"images": "bundled", "crop": 64, "limit": 1}
        few = {k: v for k, v in contestants(4, 10).items() if k in ("continuation", "PGD rate")}
        return (Grid(codecs={arch: (3,)}, weights=("bundled", "robust"), attacks=few, budgets=(8 / 255,), seeds=seeds, **size),)
    size = {"images": "kodak", "crop": 256, "first": 2, "every": 3 if profile == "standard" else 1, "shard": 4}
    every = contestants(30, 300) if profile == "standard" else contestants(100, 3000)
    longer = {f"PGD {n}": Contestant(attacks.PGD(8 / 255, steps=n, norm="l2rms", precision="auto")) for n in STEPS}

    def grid(codecs: Mapping, weights: str, chosen: dict, level: float, **more) -> Grid:
        return Grid(codecs=codecs, weights=weights, attacks=chosen, budgets=(level / 255,), seeds=seeds, **(size | more))

    at_3 = available(arch, 3)
    main = [grid({arch: (3,)}, w, every, 8) for w in at_3]
    main += [grid({arch: (3,)}, w, longer, 8, limit=4) for w in at_3]
    others = [
        (n, tuple(q for q in qs if q in bundled_qualities(n, "robust"))) for n, qs in ((arch, (6, 1)), ("cheng2020-anchor", (3,)))
    ]
    more = {level: [grid({n: qs}, w, every, level) for n, qs in others for w in ("bundled", "robust") if qs] for level in (8, 16)}
    main += more[8] + [grid({arch: (3,)}, w, every, 16) for w in at_3] + more[16]
    return tuple(main)


def available(arch: str, quality: int) -> list[str]:
    """The sets of weights that this repository has for a codec, in the order of ``WEIGHTS``."""
    return [w for w in WEIGHTS if quality in bundled_qualities(arch, w)]


def last_stage(codec) -> dict:
    """The last training run of a codec's weights, as their card says: ``steps``, ``minutes``, ``against`` …"""
    return json.loads(codec.weights.card["stages"])[-1]


def aims(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The attacks of these rows that aim at the picture, and those that aim at the file; one that aims at both is in both."""
    names = rows["attack"].unique()
    return [a for a in names if "rate" not in a], [a for a in names if "rate" in a or a == "SRDA both"]


def least(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The own PSNR (``psnr_own``) under the attack of ``names`` that does most, by image and weights."""
    return rows[rows["attack"].isin(names)].groupby(["image", "weights"])["psnr_own"].min().unstack()


def lower(rows: pd.DataFrame, value: str, names: Sequence[str], weights: str, than: str = "bundled") -> stats.Interval:
    """By how much less ``value`` is with these weights than with others, paired over images, each under the attack of ``names`` that
    does most to it."""
    worst = rows[rows["attack"].isin(names)].groupby(["weights", "image"])[value].max().unstack(0)
    return stats.bootstrap(worst[than] - worst[weights])


def beside_published(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean rise of rate (relative) and distortion (of 0 to 255) under SRDA, before and after training, and what is left of it: Wu et
    al.'s Tables II and V, and ours from the rows of the weights "bundled" and "robust"."""
    theirs = reference.published_attacks("2405.07717")
    theirs = theirs[theirs["codec"] == "Balle2018"]
    srda = rows[rows["attack"].str.startswith("SRDA")].groupby("weights")
    columns = {"rise of the rate": ("dR_mean", "delta_r_rel"), "rise of the distortion": ("dD_mean", "delta_d")}
    found = {}
    for said, (quantity, column) in columns.items():
        published = theirs[theirs["quantity"] == quantity].set_index("source")["attacked"]
        both = {
            "theirs, Balle2018": [published[published.index.str.endswith(f"Table {n}")].item() for n in ("II", "V")],
            "ours": srda[column].mean()[["bundled", "robust"]].tolist(),
        }
        for who, (before, after) in both.items():
            found |= {(who, "before", said): before, (who, "after", said): after, (who, "left of it", said): after / before}
    return pd.Series(found).unstack(sort=False)
