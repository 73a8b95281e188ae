"""What a study costs: timed here, before it is begun."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from nic_helpers import attacks
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.image_sets import load_images
from nic_helpers.metrics import QUALITIES, before_after
from nic_helpers.settings import get_device
from nic_helpers.sweep.dataset import Dataset
from nic_helpers.sweep.grid import Grid
from nic_helpers.sweep.unit import codec_at, expected_gradients, images_of, versions
from nic_helpers.sweep.work import units_of


def pace(name: str, quality: float, weights: str, pixels: int, measures: Sequence[str] = tuple(QUALITIES)) -> dict[str, float]:
    """Seconds of a gradient evaluation and of coding and measuring, an image of ``pixels``, timed now on this device.

    ``guessed``: 1 where the weights are not at hand, so that random ones of the published size were timed.
    """
    x = load_images("bundled")[0][None]
    scale, guessed = pixels / x[0, 0].numel(), 0.0
    try:
        codec = codec_at(name, quality, weights)
    except (ConnectionError, FileNotFoundError, ValueError):
        codec, guessed = _random(name, int(quality)), 1.0
    attack = attacks.PGD(8 / 255, steps=4, precision="auto")
    took = {"gradient": 0.0}
    if codec.differentiable:
        attack.with_(steps=1)(codec, x)
        began = time.perf_counter()
        attack(codec, x)
        took["gradient"] = (time.perf_counter() - began) / attack.steps * scale
    began = time.perf_counter()
    # random weights spend bits that no trained codec does: their coding time is that of the bundled ones, where there are
    coder = codec_at(name, 3, "bundled") if guessed else codec
    before_after(coder, x, x, coded=(coder.roundtrip(x),) * 2, measures=measures)
    took["coding"] = (time.perf_counter() - began) * scale
    return took | {"guessed": guessed}


def _random(name: str, quality: int) -> NeuralCodec:
    arch = ARCHITECTURES[name]
    model = arch.build(*arch.published_widths[quality])
    return NeuralCodec(name, quality, Weights(model.state_dict(), "random", name, "00" * 32, 0.01), get_device())


def costs(
    study: Grid | Sequence[Grid], folder: str | Path | None = None, same_program: bool = False, elsewhere: Collection[str] = ()
) -> pd.DataFrame:
    """What a study costs on this device: a row a unit, with its gradients, seconds, whether it is done, and whether it was
    another program that did it (which counts as not done for ``same_program``). ``elsewhere``: keys of units whose rows will be
    taken over from a table."""
    units = units_of(study)
    data = Dataset(folder) if folder and Path(folder).is_dir() else None
    done, others = (data.done(), data.by_others(versions())) if data else (set(), set())
    done = (done | set(elsewhere)) - (others if same_program else set())
    paces = {}
    for unit in tqdm(units, desc="timing the codecs", leave=False):
        pixels = images_of(unit.source, unit.crop)[unit.images[0]][0].numel()
        for codec in (*unit.attacked, *unit.measured):
            if (*codec, unit.weights, unit.measures) not in paces:
                paces[*codec, unit.weights, unit.measures] = pace(*codec, unit.weights, pixels, unit.measures)
    rows = []
    for u in units:
        gradients = expected_gradients(u.attack, u.objective) * len(u.images)
        paced = {c: paces[*c, u.weights, u.measures] for c in (*u.attacked, *u.measured)}
        seconds = sum(paced[c]["gradient"] for c in u.attacked) * gradients
        seconds += sum(paced[c]["coding"] for c in u.measured) * len(u.images)
        rows.append(
            {
                "attacked": u.label,
                "attack": u.name,
                "units": 1,
                "images": len(u.images),
                "gradients": gradients,
                "seconds": seconds,
                "done": u.key in done,
                "by_others": u.key in others,
                "seconds_left": 0.0 if u.key in done else seconds,
                "guessed": max(p["guessed"] for p in paced.values()),
            }
        )
    return pd.DataFrame(rows)


def plan(
    study: Grid | Sequence[Grid], folder: str | Path | None, jobs: int, same_program: bool = False, elsewhere: Collection[str] = ()
) -> str:
    """The dry run: units, what is done (``elsewhere``: as in :func:`costs`), and hours, as text."""
    table = costs(study, folder, same_program, elsewhere)
    by_codec = table.groupby("attacked", sort=False).agg(
        units=("units", "sum"),
        done=("done", "sum"),
        gradients=("gradients", "sum"),
        hours=("seconds", "sum"),
        left=("seconds_left", "sum"),
    )
    by_codec[["hours", "left"]] /= 3600
    hours, left = table["seconds"].sum() / 3600, table["seconds_left"].sum() / 3600
    lines = [
        by_codec.to_string(float_format=lambda v: f"{v:.2f}"),
        "",
        f"{len(table)} units, {int(table['done'].sum())} of them done; {table['gradients'].sum():,.0f} gradient evaluations",
        f"{hours:.1f} hours of this device ({get_device()}), {left:.1f} of them left; with {jobs} process"
        f"{'es' * (jobs > 1)} about {left / jobs:.1f} hours from now",
    ]
    if table["by_others"].any():
        lines.append(
            f"{int(table['by_others'].sum())} units were done by another version of this program or of its packages: "
            "with --same-program they are done again"
        )
    if table["guessed"].any():
        lines.append(
            "Timed with random weights of the published size, as the weights themselves are not at hand: "
            + ", ".join(dict.fromkeys(table.loc[table["guessed"] > 0, "attacked"]))
        )
    return "\n".join(lines)
