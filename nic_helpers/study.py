"""The course's own studies as grids: who is attacked, how, on what (notebooks 08 and 09).

python -m nic_helpers.sweep robustness --profile standard --dry-run
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nic_helpers import attacks, sweep
from nic_helpers.course import PROFILES, build_dir
from nic_helpers.executors import cores
from nic_helpers.grid import Contestant, Grid
from nic_helpers.models import ARCHITECTURES
from nic_helpers.objectives import DIRECTIONS
from nic_helpers.settings import data_dir, get_device, sweep_seconds

NAMES = ("robustness", "transfer")
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


def _sign(steps: int) -> dict[str, attacks.Attack]:
    """Noise, and the attacks that bound every sample."""
    return {
        "uniform noise": attacks.RandomNoise(EPS),
        "sign noise": attacks.RandomNoise(EPS, kind="sign"),
        "FGSM": attacks.FGSM(EPS),
        "PGD": attacks.PGD(EPS, steps=steps),
        "APGD": attacks.APGD(EPS, steps=steps),
        "I-FGSM": attacks.IFGSM(EPS, steps=steps),
        "MI-FGSM": attacks.MIFGSM(EPS, steps=steps),
    }


def _ball(steps: int, ftda: int) -> dict[str, Contestant]:
    """The attacks that bound the root mean square, and aim at rate and distortion."""
    srda = {
        f"SRDA {name}": Contestant(attacks.SRDA(EPS, angle=angle, steps=steps)) for name, angle in DIRECTIONS.items()
    }
    soft = {"steps": steps, "temperature": 0.01}  # one that weighs the qualities: see notebook 06
    arda = {
        f"ARDA {name}": Contestant(attacks.ARDA(EPS, angle=DIRECTIONS[name], **soft), together=True)
        for name in ("rate", "both", "distortion")
    }
    return srda | arda | {"FTDA": Contestant(attacks.FTDA(EPS, steps=ftda))}


def grids_of(study: str, profile: str, seed: int = 0) -> tuple[Grid, ...]:
    """A study's grids at a profile, the most telling first: what is done when time runs out is worth having."""
    if study not in NAMES or profile not in PROFILES:
        raise ValueError(
            f"no study {study!r} at profile {profile!r}: there are {', '.join(NAMES)} at {', '.join(PROFILES)}"
        )
    return {"robustness": _robustness, "transfer": _transfer}[study](profile, (seed,))


def _robustness(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    if profile == "quick":  # a miniature: two codecs, two images, every kind of attack
        common = {
            "codecs": {"bmshj2018-hyperprior": (1, 6), "mbt2018": (1, 6)},
            "crop": 64,
            "limit": 2,
            "budgets": (EPS,),
        }
        some = {k: v for k, v in _sign(4).items() if k in ("sign noise", "FGSM", "PGD", "APGD")}
        ball = {k: v for k, v in _ball(6, 8).items() if k in ("SRDA rate", "SRDA distortion", "ARDA rate", "FTDA")}
        return (Grid(attacks=some | ball, **common),)
    if profile == "standard":
        return _standard(seeds)
    ladder = tuple(k / 255 for k in (1, 2, 4, 8, 16))
    common = {"codecs": {a: tuple(q for q in ARCHITECTURES[a].qualities if q <= 6) for a in ARCHS}, "weights": "zoo",
              "images": "kodak", "budgets": ladder, "shard": 4, "seeds": seeds}  # fmt: skip
    return (Grid(attacks=_sign(100), **common), Grid(attacks=_ball(100, 1001), **common))


def _standard(seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    """Fitted to six hours of one CPU core. Sign attacks on every image, the others on a third; in the order in which one
    would miss them: the larger budget, few images, and one attack of each kind come first."""
    sign, ball = _sign(10), _ball(30, 100)
    first = {k: sign.pop(k) for k in ("sign noise", "FGSM", "PGD", "APGD")}
    joint = {k: ball.pop(k) for k in ("SRDA rate", "SRDA distortion")}

    def grids(eps: float) -> list[Grid]:
        common = {
            "codecs": dict.fromkeys(ARCHS, (1, 3, 6)),
            "budgets": (eps,),
            "images": "kodak",
            "crop": 256,
            "seeds": seeds,
        }
        thirds = [{"first": k, "every": 3, **common} for k in range(3)]
        sixths = [{"first": k, "every": 6, **common} for k in (0, 3)]  # which make the first third
        return [Grid(attacks=first, **thirds[0]), Grid(attacks=joint, **sixths[0]), Grid(attacks=sign, **thirds[0]),
                Grid(attacks=ball, **sixths[0]), *(Grid(attacks=first | sign, **third) for third in thirds[1:]),
                Grid(attacks=joint | ball, **sixths[1])]  # fmt: skip

    return (*grids(EPS), *grids(2 / 255))


def _transfer(profile: str, seeds: tuple[int, ...]) -> tuple[Grid, ...]:
    how = {"PGD": attacks.PGD(EPS, steps=10), "DI-FGSM": attacks.DIFGSM(EPS, steps=10)}
    like = {f"noise like {name}": attacks.SpectralNoise(EPS, like=attack) for name, attack in how.items()}
    alike = {"noise like PGD": like["noise like PGD"]}
    noise = {f"{kind} noise": attacks.RandomNoise(EPS, kind=kind) for kind in ("sign", "coarse")}
    if profile == "quick":
        codecs = {"bmshj2018-hyperprior": (1, 6), "cheng2020-anchor": (1,)}
        common = {"crop": 64, "limit": 2, "seeds": seeds, "targets": codecs | {"jpeg": (30,), "vvc": (36,)}}
        together = {"three together": [(n, q) for n, qualities in codecs.items() for q in qualities]}
        return (Grid(codecs=codecs, attacks={"PGD": how["PGD"].with_(steps=4)}, **common),
                Grid(codecs={}, ensembles=together, attacks={"PGD": how["PGD"].with_(steps=4)}, **common))  # fmt: skip
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
    first = (Grid(codecs=codecs, attacks={"PGD": how["PGD"]}, **everyone),
             Grid(codecs={"bmshj2018-hyperprior": (3,)}, attacks=noise, **everyone),
             Grid(codecs=codecs, attacks=alike, **everyone),
             Grid(codecs={}, ensembles=together, attacks=how, **everyone),
             Grid(codecs=dict.fromkeys(ARCHS, (3,)), attacks={"DI-FGSM": how["DI-FGSM"]}, **everyone),
             Grid(codecs={}, ensembles=together, attacks=like, **everyone),
             Grid(codecs=dict.fromkeys(ARCHS, (3,)), attacks=like, **everyone))  # fmt: skip
    if profile != "standard":
        return first
    # the other bundled codecs: attacked and measured on everyone, and measured under everyone's attacks
    late = {"bmshj2018-hyperprior": (2, 4, 5), "bmshj2018-hyperprior-vbr": (1, 2, 3, 4, 5, 6)}
    to_all = {"targets": _joined(codecs, late) | CLASSICAL_TARGETS, **common}
    to_late = {"targets": late, **common}
    return (*first, Grid(codecs=late, attacks={"PGD": how["PGD"]}, **to_all),
            Grid(codecs=codecs, attacks={"PGD": how["PGD"]}, **to_late),
            Grid(codecs={"bmshj2018-hyperprior": (3,)}, attacks=noise, **to_late),
            Grid(codecs=late, attacks=alike, **to_all), Grid(codecs=codecs, attacks=alike, **to_late))  # fmt: skip


def _joined(a: dict[str, tuple[int, ...]], b: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Two tables of qualities as one, each codec's in order."""
    return {n: tuple(sorted({*a.get(n, ()), *b.get(n, ())})) for n in {**a, **b}}


def folder(study: str, profile: str) -> Path:
    """Where a study's rows are kept while it runs."""
    return build_dir() / "sweep" / f"{study}-{profile}"


def rows(study: str, profile: str, seed: int = 0) -> pd.DataFrame:
    """A study's rows: what is missing is done now (for NIC_SWEEP_HOURS at most), and all there are returned."""
    jobs = 1 if profile == "quick" or get_device().type == "cuda" else cores()
    return sweep.run(grids_of(study, profile, seed), folder(study, profile), jobs=jobs, seconds=sweep_seconds())


def published(notebook: str, name: str) -> pd.DataFrame:
    """The committed rows of the last standard run; FileNotFoundError, saying how they are made, if there are none."""
    path = data_dir() / "results" / f"{notebook}_{name}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: restore it with git checkout, or make it with ./run_all.sh --only "
                                f"{notebook} --profile standard --publish")  # fmt: skip
    return pd.read_parquet(path)
