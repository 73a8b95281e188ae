"""The course's own studies as grids: who is attacked, how, on what (notebooks 08, 09, 11 and 12; their rows: studies.py).

python -m nic_helpers.sweep robustness --profile standard --dry-run
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nic_helpers import attacks
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundled_qualities
from nic_helpers.course import defended, trained
from nic_helpers.course.begin import PROFILES
from nic_helpers.objectives import DIRECTIONS, Rate
from nic_helpers.sweep.grid import Contestant, Grid

NAMES = ("robustness", "eight", "transfer", "strength", "start", "defences", "trained")
ARCHS = (
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
)
#: The architectures that came later: in studies of their own, or in grids of their own, so that no row of the six is made again.
LATER = ("zou2022-wacnn", "zou2022-stf", "liu2023", "song2021", "cai2022")
CLASSICAL_TARGETS = {
    "jpeg": (30,),
    "jpeg2000": (48,),
    "webp": (40,),
    "avif": (50,),
    "jpegxl": (3,),
    "hevc": (34,),
    "vvc": (36,),
}
#: The attacks that look for the limit, by what they bound: each sample, or the root mean square; and those on the file.
LIMIT = {"box": ["APGD", "continuation"], "ball": ["continuation, ball"]}
RATE = ["PGD rate", "SRDA rate"]
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
    grids = {"robustness": _robustness, "eight": _eight, "transfer": _transfer, "strength": _strength, "start": _start}
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


def later() -> dict[str, tuple[int, ...]]:
    """The later architectures with those of the qualities 1, 3 and 6 that there are weights for."""
    have = {name: tuple(q for q in (1, 3, 6) if q in bundled_qualities(name)) for name in LATER}
    return {name: qualities for name, qualities in have.items() if qualities}


def _eight(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """The later architectures, and the variable-rate hyperprior, under what the six have met at 8/255 in the robustness study."""
    if profile == "quick":
        chosen = {"continuation, ball": _limit(4)["continuation, ball"], "PGD rate": _rate(3)["PGD rate"]}
        return (Grid(codecs={"zou2022-wacnn": (1, 6)}, attacks=chosen, seeds=seeds, crop=64, limit=1),)
    every = {"bmshj2018-hyperprior-vbr": (1, 3, 6)} | later()
    common = {"images": "kodak", "seeds": seeds}
    steps, ftda, four = (300, 100, 100), 1001, common
    if profile == "standard":
        common |= {"every": 3, "crop": 256}
        steps, ftda, four = (60, 20, 30), 100, common | {"limit": 4, "shard": 4}
    head = {k: v for k, v in _limit(steps[0]).items() if k != "APGD"} | _rate(steps[1])
    head |= {"sign noise": _controls()["sign noise"], "FGSM": _literature(1)["FGSM"]}
    alone = {k: v for k, v in _directions(steps[2], ftda).items() if not k.startswith("ARDA")}
    together = {k: v for k, v in _directions(steps[2], ftda).items() if k.startswith("ARDA")}
    return (
        *(Grid(codecs={n: q}, attacks=head, **common) for n, q in every.items()),
        *(Grid(codecs={n: q}, attacks=together, **four) for n, q in every.items() if len(q) == 3),
        *(Grid(codecs={n: q}, attacks=alone, **four) for n, q in every.items()),
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
    # the notebook reads PSNR; so many targets' SSIM and MS-SSIM would take three quarters of the time
    common = {"images": "kodak", "weights": weights, "seeds": seeds, "measures": ("psnr",)}
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
    newest = tuple(_transfer_of_later(codecs, common | {"weights": "bundled"}, how["PGD"]))  # there are no others of these
    if profile != "standard":
        return (*first, *newest)
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
    return tuple(replace(g, first=k) for k in (0, 1) for g in (*all_grids, *newest))


def _transfer_of_later(codecs: dict, common: dict, pgd: attacks.PGD) -> Iterator[Grid]:
    """The later architectures, one by one, attacked and measured on everyone, and measured under everyone's attacks: all at quality 3,
    one of them at others, too, so that weights that come later add to the study and change nothing of it."""
    both = {"PGD": pgd, "noise like PGD": attacks.SpectralNoise(EPS, like=pgd)}
    noise = {f"{kind} noise": attacks.RandomNoise(EPS, kind=kind) for kind in ("sign", "coarse")}
    travellers = {n: q if n == "zou2022-wacnn" else (3,) for n, q in later().items() if 3 in q}
    for name, qualities in travellers.items():
        one = {name: qualities}
        others = {n: q for n, q in travellers.items() if n != name}
        yield Grid(codecs=one, attacks=both, targets=codecs | one | CLASSICAL_TARGETS, **common)
        yield Grid(codecs={"bmshj2018-hyperprior": (3,)}, attacks=noise, targets=one, **common)
        yield Grid(codecs=codecs, attacks=both, targets=one, **common)
        for n, q in others.items():
            yield Grid(codecs=one, attacks=both, targets={n: q}, **common)


def _joined(a: dict[str, tuple[int, ...]], b: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Two tables of qualities as one, each codec's in order."""
    return {n: tuple(sorted({*a.get(n, ()), *b.get(n, ())})) for n in {**a, **b}}
