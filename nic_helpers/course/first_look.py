"""First pictures: of the course, two photographs that look alike with their files, and one in pieces; of the study, two bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers import attacks, metrics, plotting
from nic_helpers.course.widgets import Frame

CLEAN, ATTACKED = "#0072B2", "#D55E00"


def two_files(pictures: Sequence[Tensor], decoded: Sequence[Tensor], sizes: Sequence[int]) -> Figure:
    """Source and attacked source [3, H, W] above, what is decoded below, and beside them their files (bytes) as bars."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 6.6), width_ratios=(1, 1, 1.05))
    names = ("photograph A", "photograph B")
    for column, name in enumerate(names):
        plotting.picture(axes[0, column], pictures[column], name)
        plotting.picture(axes[1, column], decoded[column], f"decoded from {name[-1]}'s file")
    for ax in axes[:, :2].flat:
        ax.title.set_fontsize(13)
    for ax in axes[:, 2]:
        ax.remove()
    bars = figure.add_subplot(axes[0, 2].get_gridspec()[:, 2])
    shown = bars.bar(["A", "B"], [s / 1000 for s in sizes], color=(CLEAN, ATTACKED), width=0.6)
    bars.bar_label(shown, [f"{s / 1000:.1f} kB" for s in sizes], fontsize=13, padding=3)
    bars.set_ylabel("size of the file (kB)", fontsize=12)
    bars.set_title(f"B takes ×{sizes[1] / sizes[0]:.1f} the bytes", fontsize=14)
    bars.tick_params(axis="x", labelsize=14, length=0)
    bars.grid(axis="x", visible=False)
    bars.margins(y=0.12)
    return figure


def in_pieces(pictures: Sequence[Tensor], titles: Sequence[str]) -> Figure:
    """Pictures [3, H, W] in a row: what goes in, what comes out of it, and the same for the attacked one."""
    figure = plotting.picture_grid([list(pictures)], [list(titles)], width=3.1)
    for ax in figure.axes:
        ax.title.set_fontsize(11)
    return figure


def attacked(
    x: Tensor, aims: Mapping[str, tuple], levels: Sequence[int], steps: int, seed: int
) -> tuple[dict[tuple[str, int], pd.Series], dict[tuple[str, str], Frame]]:
    """Each aim (name -> codec, objective) by PGD at each budget in levels of 255: its row of numbers, and its frame for the slider.

    ``x`` [1, 3, H, W]; the gradient passes the rounding as if there were none.
    """
    rows, frames = {}, {}
    for aim, (codec, objective) in aims.items():
        for level in levels:
            v = attacks.PGD(level / 255, steps=steps, seed=seed, surrogate="identity")(codec, x, objective).x_adv
            row = rows[aim, level] = metrics.before_after(codec, x, v).iloc[0]
            text = f"{codec.label}: file ×{row.bpp_ratio:.2f}, decoded {row.psnr_source:.1f} dB from the source"
            frames[aim, f"{level}/255"] = Frame({"source": x[0], "attacked": v[0], "decoded": codec.reconstruct(v)[0]}, text)
    return rows, frames


def two_bounds(codecs: Mapping, image: Tensor, level: int, steps: int, seed: int) -> tuple[pd.DataFrame, dict]:
    """One picture [1, 3, H, W] under the strongest attack in the box and in the ball of ``level``/255, on each codec by name: PSNR of the
    ``input`` and between the ``outputs`` (dB) by codec and bound, and frames for a slider.
    """
    seen, frames = {}, {}
    for name, codec in codecs.items():
        for bound, norm in (("box", "linf"), ("ball", "l2rms")):
            attack = attacks.Continuation(level / 255, steps=steps, norm=norm, seed=seed)
            x_adv = attack(codec, image).x_adv
            out = codec.reconstruct(x_adv)
            given, apart = (metrics.psnr(a, b).item() for a, b in ((image, x_adv), (codec.reconstruct(image), out)))
            pictures = {"source": image[0], "attacked": x_adv[0], "decoded": out[0]}
            frames[name, bound] = Frame(pictures, f"PSNR of the input {given:.1f} dB, between the outputs {apart:.1f} dB")
            seen[name, bound] = {"input": given, "outputs": apart}
    return pd.DataFrame(seen).T, frames
