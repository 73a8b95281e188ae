"""What every notebook starts with: the profile resolved to images, settings and folders, and printed.

run = course.begin("03", profile=profile, seed=seed)
run.x            # the profile's images; run.names, run.caption
run.save(fig, "epsilon_ladder")
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path

import compressai
import pandas as pd
import torch
from torch import Tensor

from nic_helpers import __version__, plotting
from nic_helpers.course.jobs import OTHER_PARAMETERS
from nic_helpers.course.predictions import Predictions
from nic_helpers.image_sets import ImageSet, in_words
from nic_helpers.images import centre_crop
from nic_helpers.settings import PROJECT, get_device

EXAMPLE = "astronaut"  # the bundled image that pictures show


@dataclass(frozen=True)
class Profile:
    """How much a run does. ``crop`` pixels a side (None: whole images), ``limit`` images at most (None: all)."""

    images: str
    weights: str
    crop: int | None
    limit: int | None
    says: str


PROFILES = {
    "quick": Profile("bundled", "bundled", 192, 4, "bundled images and weights, small crops"),
    "standard": Profile("kodak", "bundled", 256, None, "bundled weights on Kodak; attacks on 256×256 crops"),
    "full": Profile("kodak", "zoo", None, None, "the zoo's weights on whole Kodak images"),
}


def build_dir() -> Path:
    """Where a run writes: ``NIC_BUILD_DIR``, or ``build/`` in the project."""
    return Path(os.environ.get("NIC_BUILD_DIR") or PROJECT / "build")


def _folder(name: str) -> Path:
    folder = build_dir() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error}): set NIC_BUILD_DIR to a folder of yours") from error
    return folder


class ParameterError(ValueError):
    """A parameter's value that a notebook cannot work with; the message begins with the parameter's name."""


def parameter(
    name: str,
    value,
    *,
    several: bool = False,
    whole: bool = False,
    least: float = -math.inf,
    most: float = math.inf,
    one_of: Iterable | None = None,
    holds: Iterable = (),
) -> None:
    """Refuse a parameter's value that a notebook cannot work with, before it computes anything, and say what there is.

    A number (``several``: a list of them, at least one, none twice), ``whole`` or not, from ``least`` to ``most``, or
    ``one_of`` those; a list must hold those in ``holds``. ValueError for what is no such thing at all, else
    :class:`ParameterError`.
    """
    values = list(value) if several and isinstance(value, (list, tuple)) else [value]
    if several and (not isinstance(value, (list, tuple)) or not values):
        raise ValueError(f"{name} must be a list, such as [1, 2], got {value!r}")
    if one_of is not None:
        one_of = list(one_of)
        if any(v not in one_of for v in values):
            raise ParameterError(f"{name} must be one of {', '.join(f'{v:g}' for v in one_of)}, got {value!r}")
    kind, says = (Integral, "a whole number") if whole else (Real, "a number")
    for v in values:
        if not isinstance(v, kind) or isinstance(v, bool) or not math.isfinite(v):
            raise ValueError(f"{name} must be {'a list, each of it ' * several}{says}, got {value!r}")
        if not least <= v <= most:
            bounds = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of at least {least:g}"
            raise ParameterError(f"{name} must be {'a list, each of it ' * several}{says} {bounds}, got {value!r}")
    if len(set(values)) < len(values):
        raise ParameterError(f"{name} must not hold a value twice, got {value!r}")
    if missing := [v for v in holds if v not in values]:
        raise ParameterError(f"{name} must hold {', '.join(f'{v:g}' for v in missing)}, got {value!r}")


@dataclass
class Run:
    """A notebook's run: its profile, images by name, seed and device.

    ``example`` [1, 3, H, W] is a bundled image whatever the profile, for pictures: published figures hold no image that
    the project does not ship with its packages.
    """

    notebook: str
    profile_name: str
    profile: Profile
    seed: int
    device: torch.device
    images: dict[str, Tensor]
    source: str
    example: Tensor
    own: Mapping[str, object] = field(default_factory=dict)  # what the notebook asked for at this profile, beside the profile's
    predictions: Predictions = field(default_factory=Predictions, repr=False)

    @property
    def names(self) -> list[str]:
        """The images' names, in order."""
        return list(self.images)

    @property
    def x(self) -> Tensor | list[Tensor]:
        """The images as one batch [B, 3, H, W] if their sizes agree, else as a list."""
        values = list(self.images.values())
        return torch.stack(values) if len({v.shape for v in values}) == 1 else values

    @property
    def caption(self) -> str:
        """What a figure of this run is based on, for its caption."""
        sides = {f"{v.shape[2]}×{v.shape[1]}" for v in self.images.values()}
        size = sides.pop() if len(sides) == 1 else "various sizes"
        return f"{in_words(self.source, len(self.images))}, {size}; {self.profile.weights} weights; profile {self.profile_name}"

    def predict(self, key: str, guess, options: Sequence[str] | None = None, unit: str = "") -> None:
        """Take and lock the reader's prediction ``key``: one of ``options``, or a number in ``unit``; ``...`` is none."""
        self.predictions.predict(key, guess, options, unit)

    def answer(self, key: str, value: str | float, sentence: str, within: float | None = None) -> None:
        """Say what came out beside what was predicted; a number predicted counts as right if it is ``within`` so much."""
        self.predictions.answer(key, value, sentence, within)

    def score(self) -> None:
        """Print how many predictions were right."""
        self.predictions.score()

    def claim(self, sentence: str, holds: bool) -> None:
        """Print a sentence that the run's numbers must bear out; AssertionError where they do not.

        Sentences are written about the quick and the standard run at seed 0, with the notebooks' own parameters. In another run, and
        where a reader is at work on the cells, one that does not hold is printed as such.
        """
        other = self.profile_name == "full" or self.seed or os.environ.get(OTHER_PARAMETERS) or "JPY_SESSION_NAME" in os.environ
        if holds:
            print(f"✓ {sentence}")
        elif other:
            print(f"✗ Not in this run: {sentence}")
        else:
            raise AssertionError(f"the text says, and this run does not bear out: {sentence}")

    def save(self, figure, name: str) -> None:
        """Write a figure as PNG and PDF into the run's figures folder, as ``NN_name``."""
        plotting.save(figure, _folder("figures") / f"{self.notebook}_{name}")

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a tidy table as CSV into the run's results folder, as ``NN_name``, with what it was made by."""
        folder = _folder("results")
        made_by = {
            "profile": self.profile_name,
            "device": str(self.device),
            "nic_helpers": __version__,
            "torch": torch.__version__,
            "compressai": compressai.__version__,
        }
        table.assign(**made_by).to_csv(folder / f"{self.notebook}_{name}.csv", index=False, float_format="%.6g")

    def save_rows(self, table: pd.DataFrame, name: str) -> None:
        """Write a study's rows as Parquet into the run's results folder, as ``NN_name``, numbers in single precision."""
        folder = _folder("results")
        numbers = dict.fromkeys(table.select_dtypes("floating").columns, "float32")
        # bytes of like weight side by side: numbers that no dictionary would shorten take half the room
        table.astype(numbers).to_parquet(
            folder / f"{self.notebook}_{name}.parquet",
            index=False,
            compression="zstd",
            compression_level=19,
            use_byte_stream_split=list(numbers),
            use_dictionary=[c for c in table.columns if c not in numbers],
        )


def profile_of(name: str) -> Profile:
    """The profile of this name; ValueError, saying which there are, if there is none."""
    if name not in list(PROFILES):
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {name!r}")
    return PROFILES[name]


def begin(
    notebook: str,
    profile: str = "quick",
    seed: int = 0,
    whole: bool = False,
    lossless_only: bool = False,
    limit: int | None = None,
    source: str | Path | None = None,
    own: Mapping[str, Mapping[str, object]] | None = None,
) -> Run:
    """Resolve a profile, load its images, set the figures' theme, and print what was resolved.

    ``whole``: whole images even where the profile crops; ``lossless_only``: no image that is stored as JPEG (for
    rate–distortion plots); ``limit``: at most so many images; ``source``: another image set than the profile's: "bundled",
    "kodak", or a folder of your own. ``own``: profile -> settings of the notebook's own, as ``run.own``; of these, ``limit`` is as above
    and ``side`` cuts the images to so many pixels a side around their centre (None: neither).
    """
    wanted = os.environ.get("NIC_PREFIX", sys.prefix)
    if sys.prefix != wanted:
        raise RuntimeError(f"this kernel runs in {sys.prefix}, not in {wanted}: choose the kernel “Python 3” of that environment")
    chosen, device = profile_of(profile), get_device()
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2³² − 1, got {seed!r}")
    plotting.set_theme()
    pd.set_option("display.max_colwidth", 120)
    source = source or chosen.images
    crop = None if whole else chosen.crop
    images = ImageSet(source, crop=crop, lossless_only=lossless_only)
    example = ImageSet("bundled", crop=crop)[EXAMPLE]
    settings = dict((own or {}).get(profile, {}))
    most = min(n for n in (limit, settings.pop("limit", None), chosen.limit, len(images)) if n is not None)
    read, side = images.read(most), settings.pop("side", None)
    read = {name: centre_crop(v, side) for name, v in read.items()} if side else read
    run = Run(notebook, profile, chosen, seed, device, read, source, example[None], settings)
    print(f"profile  {profile}: {chosen.says}" + ("; here other images" if source != chosen.images else ""))
    print(f"images   {run.caption.split(';')[0]}: {', '.join(n.removesuffix('.png') for n in run.names)}")
    print(f"weights  {chosen.weights}    seed  {seed}")
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"device   {device}{gpu}")
    print(
        f"versions nic_helpers {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"compressai {compressai.__version__}"
    )
    print(f"python   {Path(sys.prefix).name}")
    return run
