"""The one full-size, fully trained codec's rows, JPEG AI's, beside two small codecs' (notebooks 03, 04 and 08)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd

from nic_helpers import plotting
from nic_helpers.course import studies
from nic_helpers.course.boards import short

_CASES = {"sign noise": "noise", "FGSM": "one step", "continuation": "box", "continuation, ball": "ball"}


def rows() -> pd.DataFrame:
    """The committed rows, with short names of the codecs, and in one word and a number (``case``) what was done at which ε in levels."""
    found = studies.published("08", "jpegai")
    return found.assign(
        case=found["attack"].map(_CASES) + " " + found["eps_255"].map("{:g}".format),
        codec=found["codec"].replace("jpegai-vm33", "JPEG AI").map(short),
    )


def apart(found: pd.DataFrame, cases: Sequence[str]) -> pd.DataFrame:
    """Mean PSNR between the outputs (dB) by case, in the given order, and codec. KeyError for a case without rows."""
    return found.pivot_table("psnr_recon", "case", "codec").loc[list(cases)]


def draw(means: pd.DataFrame) -> plt.Figure:
    """``means``: PSNR between the outputs (dB) by case (rows, the mildest first) and codec, two or three columns. Left: more broken."""
    figure, ax = plt.subplots(figsize=(7.6, 1.6 + 0.55 * len(means)))
    for row, values in enumerate(means.to_numpy()):
        ax.plot([values.min(), values.max()], [row] * 2, "-", color="0.7", lw=3, zorder=1)
    for codec in means:
        look = plotting.style(codec) if codec != "JPEG AI" else {"color": "black", "marker": "*"}
        ax.plot(means[codec], range(len(means)), ls="", ms=12, label=codec, **look)
    ax.set_yticks(range(len(means)), means.index, fontsize=13)
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.set_xlabel("PSNR between the outputs (dB); left: more broken", fontsize=13)
    ax.legend(fontsize=12, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3, frameon=False)
    return figure


def caption(found: pd.DataFrame) -> str:
    """What the rows stand on."""
    return f"means over {found['image'].nunique()} Kodak crops of 256×256; ε in levels of 255"
