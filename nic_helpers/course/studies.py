"""The course's own studies as grids: who is attacked, how, on what (notebooks 08, 09, 11 and 12).

python -m nic_helpers.sweep robustness --profile standard --dry-run
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from nic_helpers import attacks
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundled_qualities
from nic_helpers.course import defended, trained
from nic_helpers.course.begin import PROFILES, build_dir
from nic_helpers.objectives import DIRECTIONS, Rate
from nic_helpers.settings import data_dir, get_device, sweep_seconds
from nic_helpers.sweep import work as sweep
from nic_helpers.sweep.dataset import SweepError
from nic_helpers.sweep.executors import cores
from nic_helpers.sweep.grid import Contestant, Grid

NAMES = ("robustness", "transfer", "strength", "start", "defences", "trained")
ARCHS = (
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
)
CLASSICAL_TARGETS = {
    "jpeg": (30,),
    "jpeg2000": (48,),
    "webp": (40,),
    "avif": (50,),
    "jpegxl": (3,),
    "hevc": (34,),
    "vvc": (36,),
}
EPS = 8 / 255
#: Attacks of a study climb in bfloat16 where the hardware computes with it: as strong, and 1.6 to 2 times as fast.
FAST = {"precision": "auto"}


def _controls() -> dict[str, attacks.Attack]:
    """Without the codec's gradient, or against it: what each attack must beat."""
    return {
        "sign noise": attacks.RandomNoise(EPS, kind="sign"),
        "coarse noise": attacks.RandomNoise(EPS, kind="coarse"),
        "descend": attacks.Descend(EPS, like=attacks.FGSM(EPS)),
    }


def _limit(steps: int) -> dict[str, attacks.Attack]:
    """The strongest attacks on the picture, in the box and in the ball."""
    return {
        "APGD": attacks.APGD(EPS, steps=steps // 2, **FAST),
        "continuation": attacks.Continuation(EPS, steps=steps, **FAST),
        "continuation, ball": attacks.Continuation(EPS, steps=steps, norm="l2rms", **FAST),
    }


def _rate(steps: int) -> dict[str, Contestant]:
    """Attacks on the file, in the box and in the ball, through each surrogate in turn."""
    return {
        "PGD rate": Contestant(attacks.PGD(EPS, steps=steps, **FAST), Rate()),
        "SRDA rate": Contestant(attacks.SRDA(EPS, angle=DIRECTIONS["rate"], steps=steps, **FAST)),
    }


def _literature(steps: int) -> dict[str, attacks.Attack]:
    """The one-step attack and the iterated ones that step along the gradient's sign."""
    return {
        "FGSM": attacks.FGSM(EPS),
        "PGD": attacks.PGD(EPS, steps=steps, **FAST),
        "I-FGSM": attacks.IFGSM(EPS, steps=steps, **FAST),
        "MI-FGSM": attacks.MIFGSM(EPS, steps=steps, **FAST),
    }


def _directions(steps: int, ftda: int) -> dict[str, Contestant]:
    """The other attacks that bound the root mean square: SRDA's other directions, ARDA on all qualities, FTDA."""
    srda = {
        f"SRDA {name}": Contestant(attacks.SRDA(EPS, angle=angle, steps=steps, **FAST))
        for name, angle in DIRECTIONS.items()
        if name != "rate"
    }
    soft = {"steps": steps, "temperature": 0.01, **FAST}  # one that weighs the qualities: see notebook 06
    arda = {
        f"ARDA {name}": Contestant(attacks.ARDA(EPS, angle=DIRECTIONS[name], **soft), together=True)
        for name in ("rate", "both", "distortion")
    }
    return srda | arda | {"FTDA": Contestant(attacks.FTDA(EPS, steps=ftda, **FAST))}


def grids_of(study: str, profile: str, seed: int = 0) -> tuple[Grid, ...]:
    """A study's grids at a profile, the most telling first: what is done when time runs out is worth having."""
    if study not in NAMES or profile not in PROFILES:
        raise ValueError(f"no study {study!r} at profile {profile!r}: there are {', '.join(NAMES)} at {', '.join(PROFILES)}")
    grids = {"robustness": _robustness, "transfer": _transfer, "strength": _strength, "start": _start}
    grids |= {"defences": defended.grids, "trained": trained.grids}
    return grids[study](profile, (seed,))


def _robustness(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    if profile == "quick":  # a miniature: two codecs, two images, every kind of attack
        common = {
            "codecs": {"bmshj2018-hyperprior": (1, 6), "mbt2018": (1, 6)},
            "crop": 64,
            "limit": 2,
            "budgets": (EPS,),
        }
        every = _controls() | _literature(4) | _limit(8) | _rate(6) | _directions(6, 8)
        chosen = (
            "sign noise",
            "FGSM",
            "PGD",
            "APGD",
            "continuation",
            "SRDA rate",
            "SRDA distortion",
            "ARDA rate",
            "FTDA",
        )
        return (Grid(attacks={k: every[k] for k in chosen}, **common),)
    if profile == "standard":
        return _standard(seeds[0])
    ladder = tuple(k / 255 for k in (1, 2, 4, 8, 16))
    common = {
        "codecs": {a: tuple(q for q in ARCHITECTURES[a].qualities if q <= 6) for a in ARCHS},
        "weights": "zoo",
        "images": "kodak",
        "budgets": ladder,
        "shard": 4,
        "seeds": (*seeds, seeds[0] + 1),
    }
    return (
        Grid(attacks=_controls() | _literature(100) | _limit(300) | _rate(100), **common),
        Grid(attacks=_directions(100, 1001), **common),
    )


def _standard(seed: int) -> tuple[Grid, ...]:
    """About twelve hours of one CPU core, in the order in which one would miss them: two budgets at which pictures break or
    nearly do, the attacks at their limit, eight images; then sixteen on the file and in the ball of 8/255; whole images, a second
    seed and the smallest budget; sixteen in the box; the literature's attacks. What a night has no time for, the full profile does."""
    crops = {"codecs": dict.fromkeys(ARCHS, (1, 3, 6)), "images": "kodak", "crop": 256}
    first, second = ({"first": k, "every": 3, **crops} for k in (0, 1))  # eight images each
    four = {**first, "limit": 4, "shard": 4}
    whole = {"codecs": dict.fromkeys(WHOLE, (3, 6)), "images": "kodak", "every": 6, "shard": 1, "verify": 0}
    head = _controls() | {"FGSM": _literature(1)["FGSM"]} | _limit(60)
    box = {k: head[k] for k in LIMIT["box"]}
    rest = {k: v for k, v in _literature(30).items() if k != "FGSM"} | _directions(30, 100)
    main, large, again = ({"seeds": (seed + n,), "budgets": (k / 255,)} for n, k in ((0, 8), (0, 16), (1, 8)))
    return (
        *(Grid(attacks=head, **first, **at) for at in (main, large)),
        *(Grid(attacks=_rate(20), **first, **at) for at in (main, large)),
        Grid(attacks=_rate(20), **second, **main),
        Grid(attacks={k: v for k, v in head.items() if k not in box}, **second, **main),
        Grid(attacks={k: (head | _rate(20))[k] for k in ("continuation, ball", "PGD rate")}, **whole, **main),
        Grid(attacks={k: v for k, v in head.items() if "continuation" in k}, **four, **again),
        Grid(attacks=head | _rate(20), seeds=(seed,), budgets=(2 / 255,), **four),
        Grid(attacks=box, **second, **main),
        Grid(attacks=rest, **four, **main),
        Grid(attacks=_rate(20), **four, **again),
    )


#: One codec of each kind of transforms and entropy model: those that whole images are attacked on.
WHOLE = ("bmshj2018-hyperprior", "mbt2018", "cheng2020-anchor")
#: The codecs whose strength against steps is shown, and the steps.
HEADLINE = {
    "bmshj2018-hyperprior": (6, 3, 1),
    "mbt2018": (6,),
    "bmshj2018-factorized": (6,),
    "cheng2020-anchor": (3, 6),
}
STEPS = (10, 30, 100, 300)


def _strength(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """How strong attacks on the picture are after so many steps: is more to be found?"""
    steps = STEPS if profile != "quick" else (4, 8)
    common = {"images": "kodak", "crop": 256, "first": 3, "every": 3, "limit": 4, "seeds": seeds, "shard": 4}
    common |= {"quick": {"images": "bundled", "crop": 64, "limit": 1, "first": 0}, "full": {"limit": None}}.get(profile, {})
    weights = "zoo" if profile == "full" else "bundled"
    codecs = HEADLINE if profile != "quick" else {"bmshj2018-hyperprior": (6,)}

    def grid(norm: str, levels: int, many: tuple[int, ...], which: dict) -> Grid:
        chosen = {}
        for n in many:
            chosen[f"PGD {n}"] = attacks.PGD(EPS, steps=n, norm=norm, **FAST)
            chosen[f"continuation {n}"] = attacks.Continuation(EPS, steps=n, norm=norm, **FAST)
        return Grid(codecs=which, attacks=chosen, budgets=(levels / 255,), weights=weights, **common)

    kinds = (("l2rms", 8), ("linf", 16), ("linf", 8))
    few = {k: v[:1] for k, v in codecs.items() if k in ("bmshj2018-hyperprior", "cheng2020-anchor")}
    return (*(grid(*kind, steps[:-1], codecs) for kind in kinds), *(grid(*kind, steps[-1:], few) for kind in kinds))


#: Whose start is compared: the bundled hyperpriors began from principal components, the others from random weights.
STARTS = ("bundled", "random-start", "random-start-2")


def _start(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """The hyperprior from principal components and from random weights, as far as there are such weights, at the attacks' limit."""
    arch = "bmshj2018-hyperprior"
    size = {"quick": {"images": "bundled", "crop": 64, "limit": 1}}.get(profile, {"images": "kodak", "crop": 256, "every": 2})
    steps, levels = ((6, 4), (8,)) if profile == "quick" else ((60, 20), (8, 16, 4, 2))
    chosen = {k: v for k, v in _limit(steps[0]).items() if k != "APGD"} | _rate(steps[1])
    chosen |= {"sign noise": _controls()["sign noise"]}
    which = {q: [w for w in STARTS if q in bundled_qualities(arch, w)] for q in (3, 6)}
    if profile == "full":
        size, seeds = {"images": "kodak", "crop": 256}, (*seeds, seeds[0] + 1)
    return tuple(
        Grid(codecs={arch: (q,)}, weights=which[q], attacks=chosen, budgets=(level / 255,), seeds=seeds, **size)
        for level in levels
        for q in which
    )


def _transfer(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    how = {"PGD": attacks.PGD(EPS, steps=10, **FAST), "DI-FGSM": attacks.DIFGSM(EPS, steps=10, **FAST)}
    like = {f"noise like {name}": attacks.SpectralNoise(EPS, like=attack) for name, attack in how.items()}
    alike = {"noise like PGD": like["noise like PGD"]}
    noise = {f"{kind} noise": attacks.RandomNoise(EPS, kind=kind) for kind in ("sign", "coarse")}
    if profile == "quick":
        codecs = {"bmshj2018-hyperprior": (1, 6), "cheng2020-anchor": (1,)}
        common = {"crop": 64, "limit": 2, "seeds": seeds, "targets": codecs | {"jpeg": (30,), "vvc": (36,)}}
        together = {"three at once": [(n, q) for n, qualities in codecs.items() for q in qualities]}
        return (
            Grid(codecs=codecs, attacks={"PGD": how["PGD"].with_(steps=4)}, **common),
            Grid(codecs={}, ensembles=together, attacks={"PGD": how["PGD"].with_(steps=4)}, **common),
        )
    weights = "bundled" if profile == "standard" else "zoo"
    codecs = dict.fromkeys(ARCHS, (1, 3, 6))
    common = {"images": "kodak", "weights": weights, "seeds": seeds}
    common |= {"crop": 256, "every": 3} if profile == "standard" else {"shard": 4}
    everyone = {"targets": codecs | CLASSICAL_TARGETS, **common}
    # one of each kind of entropy model and transform; the other three at that quality are the targets nobody attacked
    together = {
        "hyperprior, mbt2018 and cheng2020-anchor 3": [
            ("bmshj2018-hyperprior", 3),
            ("mbt2018", 3),
            ("cheng2020-anchor", 3),
        ]
    }
    first = (
        Grid(codecs=codecs, attacks={"PGD": how["PGD"]}, **everyone),
        Grid(codecs={"bmshj2018-hyperprior": (3,)}, attacks=noise, **everyone),
        Grid(codecs=codecs, attacks=alike, **everyone),
        Grid(codecs={}, ensembles=together, attacks=how, **everyone),
        Grid(codecs=dict.fromkeys(ARCHS, (3,)), attacks={"DI-FGSM": how["DI-FGSM"]}, **everyone),
        Grid(codecs={}, ensembles=together, attacks=like, **everyone),
        Grid(codecs=dict.fromkeys(ARCHS, (3,)), attacks=like, **everyone),
    )
    if profile != "standard":
        return first
    # the other bundled codecs: attacked and measured on everyone, and measured under everyone's attacks
    late = {"bmshj2018-hyperprior": (2, 4, 5), "bmshj2018-hyperprior-vbr": (1, 2, 3, 4, 5, 6)}
    to_all = {"targets": _joined(codecs, late) | CLASSICAL_TARGETS, **common}
    to_late = {"targets": late, **common}
    all_grids = (
        *first,
        Grid(codecs=late, attacks={"PGD": how["PGD"]}, **to_all),
        Grid(codecs=codecs, attacks={"PGD": how["PGD"]}, **to_late),
        Grid(codecs={"bmshj2018-hyperprior": (3,)}, attacks=noise, **to_late),
        Grid(codecs=late, attacks=alike, **to_all),
        Grid(codecs=codecs, attacks=alike, **to_late),
    )
    return tuple(replace(g, first=k) for k in (0, 1) for g in all_grids)  # eight images, then eight more


def _joined(a: dict[str, tuple[int, ...]], b: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Two tables of qualities as one, each codec's in order."""
    return {n: tuple(sorted({*a.get(n, ()), *b.get(n, ())})) for n in {**a, **b}}


def folder(study: str, profile: str) -> Path:
    """Where a study's rows are kept while it runs."""
    return build_dir() / "sweep" / f"{study}-{profile}"


def rows(study: str, profile: str, seed: int = 0) -> pd.DataFrame:
    """A study's rows: what is missing is done now (for NIC_SWEEP_HOURS at most), and all there are returned."""
    jobs = 1 if profile == "quick" or get_device().type == "cuda" else cores()
    found = sweep.run(grids_of(study, profile, seed), folder(study, profile), jobs=jobs, seconds=sweep_seconds())
    if found.empty:
        raise SweepError(
            f"no unit of the study {study!r} is done, so there is nothing to show: raise NIC_SWEEP_HOURS, or unset it "
            f"(it gives {sweep_seconds():g} seconds); what failed is in {folder(study, profile) / 'failed'}"
        )
    return found


#: The attacks that look for the limit, by what they bound: each sample, or the root mean square; and those on the file.
LIMIT = {"box": ["APGD", "continuation"], "ball": ["continuation, ball"]}
RATE = ["PGD rate", "SRDA rate"]


def levels(profile: str) -> list[float]:
    """The budgets, in 8-bit levels, of the robustness study's rows that notebook 08 shows at a profile."""
    if profile == "quick":
        rows = begun("robustness")
        rows = rows[rows["attack"].isin([*LIMIT["box"], *LIMIT["ball"], *RATE])]
        met = rows.drop_duplicates(["eps_255", "attack", "attacked"]).groupby("eps_255").size()
        return met.index[met == met.max()].tolist()
    return sorted({round(255 * eps, 6) for g in grids_of("robustness", profile) for eps in g.budgets})


def defended_levels(profile: str) -> list[float]:
    """The budgets, in 8-bit levels, at which notebook 11 shows defences: those of the committed rows, or all of the study's."""
    if profile != "quick":
        return [4, 8, 16]
    rows = published("11", "defences")
    levels = (set(rows[rows["attack"] == f"{aim}, adaptive"]["eps_255"]) for aim in ("picture", "file"))
    return sorted(set.intersection(*levels))


def trained_levels(profile: str) -> list[float]:
    """The budgets, in 8-bit levels, at which notebook 12 shows trained codecs: those with rows of all weights, or all."""
    if profile != "quick":
        return [8, 16]
    sets = published("12", "trained").groupby("eps_255")["weights"].nunique()
    return sets.index[sets == sets.max()].tolist()


def published(notebook: str, name: str) -> pd.DataFrame:
    """The committed rows, or table, of the last standard run; FileNotFoundError, saying how they are made, if there are none."""
    path = data_dir() / "results" / f"{notebook}_{name}.parquet"
    table = path.with_suffix(".csv")
    if table.is_file():
        return pd.read_csv(table)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: restore it with git checkout, or make it with ./run_all.sh --only "
            f"{notebook} --profile standard --publish"
        )
    return pd.read_parquet(path)


def begun(study: str) -> pd.DataFrame:
    """The committed rows of a study that is under way: as far as it has come. FileNotFoundError if there are none."""
    path = data_dir() / "results" / "begun" / f"{study}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: restore it with git checkout")
    return pd.read_parquet(path)
