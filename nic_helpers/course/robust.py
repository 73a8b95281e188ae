"""Reading the robustness study (notebook 08): which rows answer which question, and the pictures of them."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from nic_helpers import plotting, stats
from nic_helpers.course import checked
from nic_helpers.course.boards import board, family, shade, short
from nic_helpers.course.grids import ARCHS, LIMIT, RATE
from nic_helpers.metrics import BLOW_UP
from nic_helpers.settings import data_dir

KEY = ["codec", "quality"]
#: What "robust" may mean: the bound, the column, and whether a small value is bad.
QUESTIONS = {
    "owner's loss\n(box)": ("box", "delta_source", False),
    "outputs apart\n(box)": ("box", "psnr_recon", True),
    "outputs apart\n(ball)": ("ball", "psnr_recon", True),
    "file growth\n(ball)": ("file", "bpp_ratio", False),
}


def committed() -> pd.DataFrame:
    """The committed rows that the study's tables are made of: crops at the first seed."""
    return checked.table(checked.committed())


def rows_to_read(run, rows: pd.DataFrame, units: list) -> pd.DataFrame:
    """The rows that notebook 08 draws: the run's crops at its first seed; in the quick profile, and until every codec has met
    every attack on some image, the committed ones.
    """
    if run.profile_name != "quick":
        crops = {u.key for u in units if run.profile_name == "full" or u.crop}
        rows = rows.assign(whole=~rows["unit"].isin(crops))
        run.save_rows(rows.assign(planned_units=len(units)), "robustness")
        own = checked.table(rows)
        if {u.key for u in units} <= set(rows["unit"]):
            own.attrs["made"] = f"{run.profile_name} run"
            return own
        print("the sweep is not finished: what follows is drawn from the committed rows")
    return committed()


def caption_of(run, rows: pd.DataFrame) -> str:
    """What a figure drawn from these rows is based on."""
    made = rows.attrs.get("made", "committed rows")
    size = "whole" if made == "full run" else "256×256 crops"
    return f"{made}: Kodak, {size}, {rows['weights'].iloc[0]} weights"


def shared(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Rows of these attacks (those of them that there are) on the images that every codec has met with each."""
    part = rows[rows["attack"].isin(names)]
    every = part["attack"].nunique() * rows.groupby(KEY).ngroups
    cells = part.drop_duplicates(["image", "attack", *KEY]).groupby("image").size()
    return part[part["image"].isin(cells.index[cells == every])]


def strongest(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """For each codec, quality and image the row of the attack that did most. ``kind``: "box", "ball" or "file"."""
    part = shared(rows, RATE if kind == "file" else LIMIT[kind])
    if part.empty:
        raise ValueError("no image has met every codec and attack yet: finish the sweep")
    value = -part["bpp_ratio"] if kind == "file" else part["psnr_recon"]
    first = value.groupby([part[c] for c in (*KEY, "image")], sort=False).idxmin()
    return part.loc[first].reset_index(drop=True)


def answers(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each codec and quality, a column for each question, larger is worse: mean over the images that all of it shares."""
    parts = {kind: shared(rows, RATE if kind == "file" else LIMIT[kind]) for kind in ("box", "ball", "file")}
    images = set.intersection(*(set(p["image"]) for p in parts.values()))
    found = {}
    for question, (kind, value, small) in QUESTIONS.items():
        part = parts[kind][parts[kind]["image"].isin(images)]
        worst = part.groupby([*KEY, "image"])[value].agg("min" if small else "max").groupby(KEY).mean()
        found[question] = -worst if small else worst
    return pd.DataFrame(found)


def old_and_mended() -> pd.DataFrame:
    """The same images and codecs at 8/255 under the strongest of the older attacks and of the mended ones, ``box`` and ``ball``.

    ``data/results/old_attacks.csv`` keeps what the older ones did: the least PSNR between the outputs, over all of them.
    """
    old = pd.read_csv(data_dir() / "results" / "old_attacks.csv")
    rows = committed()
    rows = rows[rows["eps_255"] == 8]
    parts = [strongest(rows, kind).assign(bound=kind) for kind in LIMIT]
    new = pd.concat(parts)[[*KEY, "image", "bound", "psnr_recon"]].rename(columns={"psnr_recon": "mended"})
    return old.merge(new, on=[*KEY, "image", "bound"], validate="one_to_one")


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means, intervals, worst images and blow-ups of every codec, quality, attack and budget: a tidy table."""
    measures = {
        "psnr_recon": "min",
        "delta_source": "max",
        "delta_own": "max",
        "delta_amp": "max",
        "ms_ssim_recon": "min",
        "bpp_ratio": "max",
    }
    by = [*KEY, "attack", "eps_255"]
    return pd.concat([stats.summarise(rows, m, by, worst).assign(measure=m) for m, worst in measures.items()])


def growth_against_size(rows: pd.DataFrame) -> pd.Series:
    """For each codec and quality, the rank correlation of a picture's clean bits with the growth of its file."""
    return pd.Series(
        {key: part["bpp_clean"].corr(part["bpp_ratio"], "spearman") for key, part in rows.groupby(KEY, sort=False)}
    ).rename_axis(KEY)


def agreement(means: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of the questions' answers, each question on one line."""
    on_one_line = [question.replace("\n", " ") for question in means]
    return means.set_axis(on_one_line, axis=1).corr("spearman").round(2) + 0.0


def two_questions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rank correlation, over codecs and qualities, of the owner's loss and of how far the outputs are apart: bounds × ε of 255."""
    found = {}
    for (kind, names), eps in itertools.product(LIMIT.items(), sorted(rows["eps_255"].unique())):
        part = shared(rows[rows["eps_255"] == eps], names)
        worst = part.groupby([*KEY, "image"]).agg({"delta_source": "max", "psnr_recon": "min"}).groupby(KEY).mean()
        found[kind, int(eps)] = worst["delta_source"].corr(-worst["psnr_recon"], "spearman")
    return pd.Series(found).rename_axis(["bound", "ε of 255"]).unstack()


def write_tables(run, rows: pd.DataFrame) -> None:
    """All means as ``08_means.csv``, and with intervals and worst images, which takes long, as ``08_summary.csv``: not in quick."""
    values = ["psnr_recon", "delta_source", "delta_amp", "bpp_clean", "bpp_ratio"]
    run.save_table(rows.groupby([*KEY, "attack", "eps_255"])[values].mean().reset_index(), "means")
    if run.profile_name != "quick":
        run.save_table(summary(rows), "summary")


def fallen(rows: pd.DataFrame) -> pd.DataFrame:
    """How many of the images fell apart under the limit attacks, for each bound, budget, codec and quality: ``fallen``, ``images``."""
    limit = rows[rows["attack"].isin([a for names in LIMIT.values() for a in names])]
    least = limit.groupby([*KEY, "norm", "eps_255", "image"])["psnr_recon"].min()
    group = least.lt(BLOW_UP).groupby([*KEY, "norm", "eps_255"])
    return pd.DataFrame({"fallen": group.sum(), "images": group.size()}).reset_index()


# ---------------------------------------------------------------------------------------------------------------- pictures
def draw_miniature(rows: pd.DataFrame):
    """Every row of a small run as a dot: the attacks side by side, the codecs by colour."""
    figure, ax = plt.subplots(figsize=(10, 4.2))
    names = list(dict.fromkeys(rows["attack"]))
    groups = list(rows.groupby(KEY, sort=False))
    for k, ((codec, quality), part) in enumerate(groups):
        at = part["attack"].map(names.index) + 0.14 * (k - (len(groups) - 1) / 2)
        fill = {"markerfacecolor": "none"} if quality == rows["quality"].min() else {}
        ax.plot(at, part["psnr_recon"], ls="", ms=7, label=short(codec, quality), **plotting.style(codec) | fill)
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
    ax.set(ylabel="PSNR between the outputs (dB)", title="Each dot is one image: lower is more damage")
    ax.legend(fontsize=9)
    return figure


def draw_old_and_mended(table: pd.DataFrame):
    """What the older attack reached against what the mended one reached, a dot an image."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), sharex=True, sharey=True)
    ends = (table[["old", "mended"]].min().min() - 0.5, table[["old", "mended"]].max().max() + 0.5)
    for ax, (bound, title) in zip(
        axes, {"box": "box: every sample bounded", "ball": "ball: only the energy bounded"}.items(), strict=True
    ):
        part = table[table["bound"] == bound]
        for quality, dots in part.groupby("quality"):
            colour = shade(quality, table["quality"])
            for kind, marker in (("GDN", "o"), ("residual", "^")):
                some = dots[dots["codec"].map(family) == kind]
                ax.scatter(some["old"], some["mended"], color=colour, marker=marker, s=36, label=f"q{quality:g}, {kind}")
        ax.plot(ends, ends, color="black", lw=1)
        ax.set(title=title, xlabel="older attack (dB between the outputs)", xlim=ends, ylim=ends)
    axes[0].set_ylabel("mended attack (dB between the outputs)")
    for ax, words in zip(axes, ("on the line: no difference", "below the line: the mended one does more"), strict=True):
        ax.text(0.03, 0.94, words, fontsize=11, transform=ax.transAxes)
    axes[0].legend(fontsize=9, loc="lower right")
    return figure


def draw_against_rate(rows: pd.DataFrame):
    """Outputs apart against the clean rate, a line a codec, box and ball side by side, 95 % intervals over the images."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharex=True, sharey=True)
    titles = {"box": "box: every sample bounded", "ball": "ball: only the energy bounded"}
    for ax, kind in zip(axes, titles, strict=True):
        part = strongest(rows, kind)
        found = stats.summarise(part, "psnr_recon", KEY)
        rate = part.groupby(KEY)["bpp_clean"].mean()
        for codec, line in found.groupby("codec", sort=False):
            line = line.sort_values("quality")
            x = [rate[codec, q] for q in line["quality"]]
            error = [line["mean"] - line["low"], line["high"] - line["mean"]]
            hollow = {"markerfacecolor": "none", "ms": 11} if codec == "cheng2020-anchor" else {}
            look = plotting.style(codec) | hollow
            ax.errorbar(x, line["mean"], error, capsize=3, elinewidth=0.8, label=short(codec), **look)
        ax.axhline(BLOW_UP, color="grey", ls=":")
        ax.set(title=titles[kind], xlabel="rate of the clean image (bits per pixel, real bytes)")
    axes[0].set_ylabel("PSNR between the outputs (dB): lower is worse")
    axes[0].text(axes[0].get_xlim()[1], BLOW_UP, "fallen apart below ", ha="right", va="bottom", fontsize=9, color="grey")
    axes[0].legend(fontsize=9, loc="center right")
    return figure


def kind_of(attack: str) -> str:
    if "noise" in attack or attack == "descend":
        return "controls"
    if attack in ("FTDA", "continuation, ball") or attack.startswith(("SRDA", "ARDA")):
        return "ball"
    return "box"


def tables_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Mean over images for each codec and quality (rows) and attack (columns), controls first, on images that all have met."""
    images = set(strongest(rows, "ball")["image"])
    part = rows[rows["image"].isin(images)]
    names = sorted(dict.fromkeys(part["attack"]), key=lambda n: (("controls", "box", "ball").index(kind_of(n)), " rate" in n))
    found = {}
    for value in ("psnr_recon", "bpp_ratio"):
        wide = part.pivot_table(index=KEY, columns="attack", values=value)[names]
        found[value] = wide.loc[[k for c in ARCHS for k in wide.index if k[0] == c]]
    return found


def draw_tables(tables: dict[str, pd.DataFrame]):
    """Every attack on every codec as colours: above the picture, below the file."""
    figure, axes = plt.subplots(2, 1, figsize=(12, 12))
    looks = {
        "psnr_recon": ("PSNR between the outputs (dB)", {"cmap": "magma"}),
        "bpp_ratio": ("file, attacked / clean", {"cmap": "viridis", "vmin": 1, "vmax": 10}),
    }
    for ax, (value, (label, look)) in zip(axes, looks.items(), strict=True):
        wide = tables[value]
        groups = [short(c) for c, _ in wide.index]
        shown = wide.set_axis([f"q{q:g}" for _, q in wide.index])
        board(ax, shown, groups, [kind_of(a) for a in tables[value].columns], label, **look)
    axes[0].set_xticklabels([])
    return figure


def draw_ranks(order: pd.DataFrame):
    """Ranks with the range they take in 95 % of the bootstrap's draws."""
    figure, ax = plt.subplots(figsize=(8, 6))
    qualities = order.index.get_level_values("quality")
    for y, ((_, quality), row) in enumerate(order.iterrows()):
        colour = shade(quality, qualities)
        ax.plot([row["rank_low"], row["rank_high"]], [-y, -y], color=colour, lw=6, alpha=0.5, solid_capstyle="round")
        ax.plot(row["rank"], -y, "o", color=colour, ms=9)
    ax.set_yticks(range(0, -len(order), -1), [short(*k) for k in order.index])
    ax.set_xticks(range(1, len(order) + 1))
    ax.set_xlabel("rank: 1 is the most robust")
    return figure


def draw_growth(rows: pd.DataFrame):
    """Bits per pixel before and after an attack on the file, a dot an image; lines of equal growth."""
    figure, ax = plt.subplots(figsize=(7.5, 5.6))
    for codec, part in rows.groupby("codec", sort=False):
        ax.plot(part["bpp_clean"], part["bpp_attacked"], ls="", ms=7, alpha=0.8, label=short(codec), **plotting.style(codec))
    ends = np.array([rows["bpp_clean"].min() * 0.9, rows["bpp_clean"].max() * 1.1])
    for times in (1, 3, 10, 30):
        ax.plot(ends, times * ends, color="grey", lw=0.8)
        ax.text(ends[0], times * ends[0], f"×{times} ", va="center", ha="right", fontsize=10)
    ax.set(xscale="log", yscale="log", ylim=(0.8 * ends[0], 1.4 * rows["bpp_attacked"].max()), xlim=(0.75 * ends[0], None))
    ax.set(xlabel="clean file (bits per pixel)", ylabel="attacked file (bits per pixel)")
    ax.legend(fontsize=9)
    return figure


def movers(means: pd.DataFrame) -> list[tuple[str, float]]:
    """One codec of each quality: the one whose place in the ranking changes most from question to question."""
    places = means.rank()
    moved = places.max(axis=1) - places.min(axis=1)
    return [part.idxmax() for _, part in moved.groupby("quality")]


def draw_places(means: pd.DataFrame, title: str):
    """The place of each codec under each question: lines that cross. One of each quality is drawn strong and named."""
    places, marked = means.rank(method="first"), movers(means)
    figure, ax = plt.subplots(figsize=(9, 7))
    at = range(places.shape[1])
    qualities = means.index.get_level_values("quality")
    for who, line in places.iterrows():
        strong = who in marked
        look = {"lw": 5, "ms": 13, "zorder": 3} if strong else {"lw": 1.2, "ms": 5, "alpha": 0.55}
        ax.plot(at, line, marker="o", color=shade(who[1], qualities), **look)
        if strong:
            ax.text(len(at) - 0.9, line.iloc[-1], short(*who), va="center", fontsize=15, fontweight="bold")
            ax.text(-0.1, line.iloc[0], short(*who), va="center", ha="right", fontsize=15, fontweight="bold")
    ax.set_xticks(at, [f"{q}" for q in places.columns], fontsize=12)
    ax.set_yticks([1, len(places)], ["most\nrobust", "least\nrobust"], fontsize=14)
    ax.invert_yaxis()
    ax.set_xlim(-1.15, len(at) + 0.15)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(title, fontsize=18, fontweight="bold")
    for quality in sorted(set(qualities)):
        ax.plot([], [], color=shade(quality, qualities), lw=5, label=f"quality {quality:g}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=3, frameon=False, fontsize=13)
    return figure
