"""What more gradients buy over one step, image by image; and how an attack grows with its steps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers import plotting


def over_one_step(gains: dict[tuple[str, str], pd.Series], cost: int) -> Figure:
    """``gains``: (codec, attack) -> dB per image that the attack with ``cost`` gradients beats one FGSM step by; above 0 it wins."""
    codecs = list(dict.fromkeys(codec for codec, _ in gains))
    figure, axes = plt.subplots(1, len(codecs), figsize=(4.6 * len(codecs), 4.2), sharey=True, squeeze=False)
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
