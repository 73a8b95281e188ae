"""The architectures that came later, beside the six of the robustness study (notebooks 08 and 10), and what Wu et al. found of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from nic_helpers import plotting, stats
from nic_helpers.course import reference, robust, studies
from nic_helpers.course.boards import short
from nic_helpers.course.grids import ARCHS, LATER

EPS_LEVEL = 8
VBR = "bmshj2018-hyperprior-vbr"
#: What the attack at its limit does in the ball, and to the file: attack names, column, what it is called, and whether less is worse.
PANELS = {
    "picture": (["continuation, ball"], "psnr_recon", "PSNR between the outputs (dB)", True),
    "file": (["PGD rate", "SRDA rate"], "bpp_ratio", "file, attacked / clean", False),
}


def committed() -> pd.DataFrame:
    """The committed rows at 8/255 of the six, of the later ones and of the variable-rate hyperprior: crops, first seed."""
    six = robust.committed()
    return pd.concat([six[six["eps_255"] == EPS_LEVEL], studies.begun("eight")], ignore_index=True)


def worst(rows: pd.DataFrame, panel: str, quality: float = 3) -> pd.DataFrame:
    """Images × codecs: the worst that the panel's attacks did at a quality, on the images that every codec there has met."""
    attacks, column, _, less = PANELS[panel]
    part = robust.shared(rows[rows["quality"] == quality], attacks)
    found = part.groupby(["image", "codec"])[column].agg("min" if less else "max").unstack()
    return found[[c for c in (*ARCHS, VBR, *LATER) if c in found]]


def draw(
    rows: pd.DataFrame,
    panels: Sequence[str] = tuple(PANELS),
    groups: Mapping[str, Sequence[str]] | None = None,
    quality: float = 3,
) -> plt.Figure:
    """:func:`worst` of the panels: a line a codec, a faint dot an image, the mean with its 95 % interval.

    ``groups``: what is written at the right of some codecs -> these, in the order of the lines; without, the six stand above a line.
    """
    every = list(worst(rows, panels[0], quality))
    groups = groups or {"": [c for c in every if c in ARCHS], "later": [c for c in every if c not in ARCHS]}
    order = [c for names in groups.values() for c in names]
    figure, axes = plt.subplots(1, len(panels), figsize=(2 + 5.3 * len(panels), 5), sharey=True, squeeze=False)
    for ax, panel in zip(axes[0], panels, strict=True):
        table, (_, _, label, less) = worst(rows, panel, quality), PANELS[panel]
        for y, codec in enumerate(order):
            values, look = table[codec], plotting.style(codec) | {"ls": "", "ms": 10}
            found = stats.bootstrap(values.to_numpy())
            reach = [[found.mean - found.low], [found.high - found.mean]]
            ax.plot(values, [-y] * len(values), ls="", marker="o", ms=5, alpha=0.25, color=look["color"])
            ax.errorbar(found.mean, -y, xerr=reach, capsize=4, **look)
        ax.set_yticks([-y for y in range(len(order))], [short(c) for c in order])
        ax.set_xlabel(f"{label}: {'left' if less else 'right'} is worse")
        if not less:
            ax.set_xscale("log")
            ax.set_xticks((1, 2, 4, 8, 16, 32), [f"×{v}" for v in (1, 2, 4, 8, 16, 32)])
            ax.minorticks_off()
        edge = 0
        for told, names in groups.items():
            if edge:
                ax.axhline(0.5 - edge, color="0.4", lw=1)
            if ax is axes[0, -1]:
                place = ax.get_yaxis_transform()
                ax.text(1.02, 0.5 - edge - len(names) / 2, told, fontsize=13, va="center", transform=place)
            edge += len(names)
    return figure


# --------------------------------------------------------------------------------------------------------------- findings
def _by_codec(rows: pd.DataFrame, attack: str, column: str, codecs: Sequence[str]) -> pd.DataFrame:
    """Images × codecs: the mean of a column over an attack's directions at quality 3, on the images that these codecs have all met."""
    part = rows[rows["codec"].isin(codecs) & (rows["quality"] == 3)]
    part = robust.shared(part, [n for n in part["attack"].unique() if n.startswith(attack)])
    return part.groupby(["image", "codec"])[column].mean().unstack()[list(codecs)]


def _verdict(*differences: stats.Interval) -> str:
    """It holds if each interval lies above zero, does not if one lies below, and is open else."""
    if any(d.high < 0 for d in differences):
        return "does not hold"
    return "holds" if all(d.low > 0 for d in differences) else "open"


def _ahead(table: pd.DataFrame, who: str, sign: int = 1) -> tuple[str, str]:
    """Whether a codec's column is the largest (sign 1) or least (-1): the verdict, and the least sure difference."""
    others = table.drop(columns=who)
    gaps = {name: stats.bootstrap(sign * (table[who] - values).to_numpy()) for name, values in others.items()}
    nearest = min(gaps, key=lambda name: gaps[name].low)
    pair = (who, nearest) if sign > 0 else (nearest, who)
    return _verdict(*gaps.values()), f"{short(pair[0])} minus {short(pair[1])}: {gaps[nearest]}"


def _rise_and_error(rate: pd.DataFrame, error: pd.DataFrame) -> stats.Interval:
    """The rank correlation over codecs of the file's growth and the error's rise, image by image."""
    each = [rate.loc[image].corr(error.loc[image], "spearman") for image in rate.index]
    return stats.bootstrap(np.array(each))


def findings(rows: pd.DataFrame) -> pd.DataFrame:
    """What Wu et al. found, and whether it holds for our codecs at quality 3 and 8/255: ``finding``, ``theirs``, ``verdict``, ``ours``.

    ``rows``: :func:`committed`. Intervals are over the images that all codecs have met.
    """
    codecs = [c for c in (*ARCHS, *LATER) if c in set(rows["codec"])]
    rate, error = (_by_codec(rows, "SRDA", column, codecs) for column in ("delta_r_rel", "delta_d"))
    theirs = reference.published_attacks("2405.07717")
    theirs = theirs[theirs["source"].str.endswith("Table II")].pivot(index="codec", columns="quantity", values="attacked")
    theirs_alike = theirs["dR_mean"].corr(theirs["dD_mean"], "spearman")
    wacnn, stf = "zou2022-wacnn", "zou2022-stf"
    said = {q: theirs[q].round(2 if q == "dR_mean" else 0).map("{:g}".format) for q in theirs}
    table = []

    def note(finding: str, published: str, verdict: str, ours: str) -> None:
        table.append({"finding": finding, "theirs": published, "verdict": verdict, "ours": ours})

    for name in (n for n in (wacnn, stf) if n in codecs):
        rest = [c for c in codecs if c == name or not c.startswith("zou")]
        note(
            f"Zou2022's file grows most ({short(name)})", f"×{1 + theirs.loc['Zou2022', 'dR_mean']:.1f}", *_ahead(rate[rest], name)
        )
        note(f"Zou2022's error rises least ({short(name)})", said["dD_mean"]["Zou2022"], *_ahead(error[rest], name, -1))
    first = "bmshj2018-factorized"
    note("Balle2016's file grows least", f"×{1 + theirs.loc['Balle2016', 'dR_mean']:.1f}", *_ahead(rate, first, -1))
    note("Balle2016's error rises most", said["dD_mean"]["Balle2016"], *_ahead(error, first))
    pair = stats.bootstrap((rate["mbt2018"] - 2 * rate["bmshj2018-hyperprior"]).to_numpy())
    grown = " and ".join(f"×{1 + rate[c].mean():.1f}" for c in ("bmshj2018-hyperprior", "mbt2018"))
    note("with means and context the file grows by more than twice as much as a hyperprior's", "", _verdict(pair), grown)
    alike = _rise_and_error(rate, error)
    tied = stats.Interval(-alike.mean, -alike.high, -alike.low)
    note(
        "whose file grows more, whose error rises less (rank correlation over codecs)",
        f"{theirs_alike:.2f}",
        _verdict(tied),
        str(alike),
    )
    for column, what in (("delta_r_rel", "file grows"), ("delta_d", "error rises")):
        both = _by_codec(rows, "ARDA", column, ("bmshj2018-hyperprior", VBR))
        gap = stats.bootstrap((both[VBR] - both["bmshj2018-hyperprior"]).to_numpy())
        note(f"under ARDA a variable-rate codec's {what} more", "", _verdict(gap), f"vbr minus hyperprior: {gap}")
    return pd.DataFrame(table)
