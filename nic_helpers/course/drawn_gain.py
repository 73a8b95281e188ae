"""What more gradients buy over one step, image by image; and how an attack grows with its steps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers import plotting, stats


def gains(rows: pd.DataFrame, over: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """(codec, attack) -> dB per image by which its outputs are further apart than in the rows ``over``, one for each codec and image."""
    one = over.set_index(["codec_label", "image"])["psnr_recon"]
    by_image = rows.set_index("image").groupby(["codec_label", "attack"], sort=False)["psnr_recon"]
    return {key: one[key[0]].loc[after.index] - after for key, after in by_image}


def leads(pgd: pd.DataFrame, rows: pd.DataFrame, label: str, cost: int) -> dict[str, stats.Interval]:
    """By how many dB, paired by image, PGD's rows beat FGSM's best of n at that cost on a codec, and APGD beats them."""
    of = rows[(rows["codec_label"] == label) & (rows["cost"] == cost)].set_index(["attack", "image"])["psnr_recon"]
    mine = pgd.set_index("image")["psnr_recon"]
    fgsm, apgd = (of[name].loc[mine.index] for name in ("FGSM, best of n", "APGD"))
    return {
        "PGD beats FGSM, best of n, by (dB)": stats.paired_bootstrap(mine, fgsm),
        "APGD beats that PGD by (dB)": stats.paired_bootstrap(apgd, mine),
    }


def by_step_size(rows: pd.DataFrame, beside: pd.DataFrame, steps: int) -> Figure:
    """Strength by step size, a line an attack; ``beside``: rows with ``cost`` 1, with FGSM's (dashed), and 0, the noise (dotted).

    Where a picture has not moved the outputs are alike: such a point is an arrow at the upper edge.
    """
    figure, ax = plt.subplots(figsize=(7, 4.4))
    noise = beside.loc[beside["cost"] == 0, "psnr_recon"].mean()
    each = {name: part.groupby("alpha", sort=False)["psnr_recon"].mean() for name, part in rows.groupby("attack", sort=False)}
    edge = max([noise, *(m for means in each.values() for m in means if m < 60)]) + 3
    for (name, means), look, at in zip(each.items(), ("o-", "s-", "D--"), (-0.06, 0, 0.06), strict=True):
        places = np.arange(len(means))
        (line,) = ax.plot(places, means.clip(upper=edge + 20), look, label=f"{name}, {steps} steps")
        out = means.to_numpy() > edge
        ax.plot(places[out] + at, np.full(out.sum(), edge - 0.5), "^", color=line.get_color(), ms=9, clip_on=False)
    fgsm = beside[(beside["cost"] == 1) & beside["attack"].str.startswith("FGSM")]
    ax.axhline(fgsm["psnr_recon"].mean(), color="black", ls="--", lw=1, label="FGSM, one step")
    ax.axhline(noise, color="grey", ls=":", label="sign noise")
    ax.set_xticks(range(len(means)), means.index)
    ax.set(xlabel="step α", ylabel="PSNR between the outputs (dB)\nlower: stronger", ylim=(None, edge))
    ax.legend(loc="upper right")
    return figure


def over_one_step(gains: dict[tuple[str, str], pd.Series], cost: int) -> Figure:
    """``gains``: (codec, attack) -> dB per image that the attack with ``cost`` gradients beats one FGSM step by; above 0 it wins."""
    codecs = list(dict.fromkeys(codec for codec, _ in gains))
    figure, axes = plt.subplots(1, len(codecs), figsize=(4.6 * len(codecs), 4.2), sharex=True, sharey=True, squeeze=False)
    for ax, codec in zip(axes[0], codecs, strict=True):
        mine = {attack: gain for (c, attack), gain in gains.items() if c == codec}
        for row, (gain, colour) in enumerate(zip(mine.values(), plotting.colours(len(mine)), strict=True)):
            ax.plot(gain, [row] * len(gain), "o", color=colour, alpha=0.45, ms=6)
            ax.plot(gain.mean(), row, "|", color=colour, ms=26, mew=3)
        ax.axvline(0, color="0.3", lw=1.2)
        ax.set_yticks(range(len(mine)), list(mine))
        ax.set(title=codec, xlabel="dB further apart than by one FGSM step")
    axes[0, 0].invert_yaxis()
    figure.suptitle(f"{cost} gradients against one: dots are images, bars their mean", fontsize=13)
    return figure


def with_steps(apart: dict[str, float], fgsm: float) -> Figure:
    """``apart``: PSNR between the outputs (dB) by attack, in order; ``fgsm``: that of one step."""
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    bars = ax.barh(list(apart), list(apart.values()), color="#0072B2", height=0.6)
    ax.bar_label(bars, fmt="%.1f", label_type="center", color="white")
    ax.axvline(fgsm, color="0.3", ls="--", lw=1.5, label="FGSM, one step")
    ax.invert_yaxis()
    ax.set_xlabel("PSNR between the outputs (dB), shorter: stronger")
    ax.legend(loc="lower right")
    return figure
