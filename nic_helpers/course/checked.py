"""The robustness study's checks of itself (notebook 08): its attack from another seed, and whole images beside their crops."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

from nic_helpers import plotting
from nic_helpers.course import studies
from nic_helpers.course.boards import short

KEY = ["codec", "quality"]
BALL, FILE = "continuation, ball", "PGD rate"


def committed() -> pd.DataFrame:
    """All committed rows, whole images and other seeds among them."""
    return studies.published("08", "robustness")


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that the study's tables are made of: crops at its first seed.

    ``rows`` with ``whole``: the image was not cropped, in a study of crops.
    """
    return rows[~rows["whole"] & (rows["seed"] == rows["seed"].min())]


def seeds(rows: pd.DataFrame, level: float = 8) -> pd.DataFrame:
    """PSNR between the outputs (dB) for each codec, quality and image that the ball's attack met from two seeds: columns 0 and 1."""
    part = rows[~rows["whole"] & (rows["attack"] == BALL) & (rows["eps_255"] == level)]
    return part.pivot(index=[*KEY, "image"], columns="seed", values="psnr_recon").dropna().set_axis([0, 1], axis=1)


def sizes(rows: pd.DataFrame, level: float = 8) -> pd.DataFrame:
    """Means over the images that are there as crop and whole, for each codec and quality: columns (``outputs apart`` in dB in the ball,
    ``file growth`` or ``clean file`` in bits per pixel) × (``crop``, ``whole``)."""
    part = rows[(rows["seed"] == rows["seed"].min()) & (rows["eps_255"] == level)]
    part = part.assign(size=part["whole"].map({False: "crop", True: "whole"}))
    found = {}
    asked = {"outputs apart": (BALL, "psnr_recon"), "file growth": (FILE, "bpp_ratio"), "clean file": (FILE, "bpp_clean")}
    for name, (attack, value) in asked.items():
        both = part[part["attack"] == attack].pivot(index=[*KEY, "image"], columns="size", values=value).dropna()
        found[name] = both.astype(float).groupby(KEY).mean()  # committed rows are in single precision
    return pd.concat(found, axis=1)


def draw(pairs: pd.DataFrame, means: pd.DataFrame) -> plt.Figure:
    """Left a dot an image, from two seeds (:func:`seeds`); right a mark a codec and quality, crop and whole (:func:`sizes`)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5))
    for (codec, quality), part in pairs.groupby(KEY, sort=False):
        label = short(codec) if quality == pairs.index.get_level_values("quality").max() else None
        left.plot(part[0], part[1], ls="", ms=7, alpha=0.7, label=label, **plotting.style(codec))
    for (codec, quality), of in means["outputs apart"].iterrows():
        right.plot(of["crop"], of["whole"], ls="", ms=12, **plotting.style(codec))
        right.annotate(f"q{quality:g}", (of["crop"], of["whole"]), (8, -4), textcoords="offset points", fontsize=11)
    for ax, (one, other) in ((left, ("from one seed", "from another")), (right, ("crop of 256×256", "whole image"))):
        ends = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
        ax.plot(ends, ends, color="grey", lw=1, zorder=0)
        ax.set(xlabel=f"outputs apart (dB), {one}", ylabel=f"outputs apart (dB), {other}", aspect="equal")
    left.legend(fontsize=9)
    return figure
