"""What a sender wins who changes the picture before it is coded, against the seconds that it takes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from nic_helpers import plotting


def gain_against_seconds(mean: pd.DataFrame) -> Figure:
    """``mean``: indexed by picture ("attacked", "clean"), method and steps, with ``seconds`` and ``psnr_own``, the gain in dB."""
    methods = list(dict.fromkeys(mean.index.get_level_values("method")))
    methods = [m for m in methods if m != "none"]
    seconds = mean["seconds"].loc[lambda t: t > 0]
    ticks = [t for t in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if seconds.min() / 2 < t < 2 * seconds.max()]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    for ax, picture in zip(axes, ("attacked", "clean"), strict=True):
        for method, mark, colour in plotting.series(methods):
            line = mean.loc[picture].loc[method]
            ax.plot(line["seconds"], line["psnr_own"], mark + "-", color=colour, ms=8, lw=2, label=method)
            for count, point in line.iterrows():
                place = (point["seconds"], point["psnr_own"])
                ax.annotate(f"{count}", place, (-3, 9), ha="right", fontsize=11, color=colour, textcoords="offset points")
        ax.axhline(0, color="0.3", lw=1.2)
        ax.set(title=f"{picture} pictures", xscale="log")
        ax.set_xlabel("seconds a picture to encode", fontsize=12)
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
        ax.margins(x=0.1, y=0.15)
    axes[0].set_ylabel("gain (dB), to the picture sent", fontsize=12)
    axes[0].legend(fontsize=11)
    return figure
