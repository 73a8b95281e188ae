"""Reading the transfer study (notebook 09): what an attack does elsewhere beyond a control, and the pictures of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor

from nic_helpers import attacks, metrics, plotting, stats
from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.course import studies
from nic_helpers.course.boards import FAMILIES, board, family, short
from nic_helpers.course.grids import ARCHS, LATER

#: Column of :func:`measured` -> the control that it is counted from.
CONTROLS = {"beyond": "white noise", "beyond_dissolved": "the attack, dissolved", "beyond_coarse": "grey blobs"}
#: The qualities that every architecture was attacked at.
EVERYONE = {f"{a} {q}" for a in ARCHS for q in (1, 3, 6)}
TOGETHER = ("bmshj2018-hyperprior", "mbt2018", "cheng2020-anchor")


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """A study's rows with ``target``, ``relation``, and by how many dB the outputs are further apart than under each control."""
    rows = rows.assign(target=rows["codec"] + " " + rows["quality"].map("{:g}".format))

    def beyond(control: pd.DataFrame, by: list[str]):
        at = control.set_index(by)["psnr_recon"].reindex(pd.MultiIndex.from_frame(rows[by]))
        return at.to_numpy() - rows["psnr_recon"].to_numpy()

    white, coarse = (rows[rows["attack"] == f"{kind} noise"] for kind in ("sign", "coarse"))
    alike = rows[rows["attack"].str.startswith("noise like ")]
    alike = alike.assign(attack=alike["attack"].str.removeprefix("noise like "))
    return rows.assign(
        beyond=beyond(white, ["target", "image"]),
        beyond_coarse=beyond(coarse, ["target", "image"]),
        beyond_dissolved=beyond(alike, ["attack", "attacked", "target", "image"]),
        relation=[relation(*r) for r in zip(rows["attacked"], rows["codec"], rows["quality"], strict=True)],
    )


def rows_to_read(run, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that notebook 09 draws, measured: in the quick profile the committed ones, else the run's."""
    if run.profile_name == "quick":
        return measured(studies.published("09", "transfer"))
    run.save_rows(rows, "transfer")
    return measured(rows)


def caption_of(run, rows: pd.DataFrame) -> str:
    """What a figure drawn from these rows is based on."""
    made = "committed rows" if run.profile_name == "quick" else f"{run.profile_name} run"
    size = "whole" if run.profile_name == "full" else "256×256 crops"
    return f"{made}: {rows['image'].nunique()} Kodak images, {size}; PGD, ten steps, ε = 8/255"


def relation(attacked: str, codec: str, quality: float) -> str:
    """How the codec that an attack was made for and the one that it meets are related."""
    if "," in attacked:
        return "a group"
    name, made_at = attacked.rsplit(" ", 1)
    if family(codec) == "classical":
        return "a classical codec"
    if (name, made_at) == (codec, f"{quality:g}"):
        return "the codec itself"
    if not {family(codec), family(name)} <= {"GDN", "residual"}:
        return "a later codec"
    kin = "its family" if family(codec) == family(name) else "the other family"
    return f"{kin}, {'same' if made_at == f'{quality:g}' else 'other'} quality"


def pairs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """PGD's rows of the eighteen codecs that every architecture has, on each other and on the classical codecs."""
    pgd = rows[(rows["attack"] == "PGD") & rows["attacked"].isin(EVERYONE)]
    pairs = pgd[pgd["target"].isin(EVERYONE) | (pgd["relation"] == "a classical codec")]
    if pairs[list(CONTROLS)].isna().any(axis=None):
        raise ValueError("controls are missing: finish the sweep")
    return pairs


def by_relation(pairs: pd.DataFrame, control: str) -> pd.DataFrame:
    """Images by relations: the mean over pairs of what is left beyond a control; what travels most stands first."""
    table = pairs.groupby(["relation", "image"])[control].mean().unstack("relation")
    first = pairs.groupby("relation")["beyond"].mean().sort_values(ascending=False)
    return table[first.index]


def matrix_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Amplification (dB), attacks by targets, both in the order of family, quality and name."""

    def place(label: str):
        name, quality = label.rsplit(" ", 1)
        kind = FAMILIES.index(family(name))
        return kind, float(quality) * (FAMILIES[kind] != "classical"), name

    pgd = rows[(rows["attack"] == "PGD") & ~rows["attacked"].str.contains(",")]
    matrix = pgd.pivot_table(index="attacked", columns="target", values="delta_amp")
    return matrix.loc[sorted(matrix.index, key=place), sorted(matrix.columns, key=place)]


def off_diagonal(pairs: pd.DataFrame) -> tuple[float, float]:
    """Mean amplification (dB) at the family's others of the same quality, and at the same architecture's other qualities."""
    other = pairs[pairs["attacked"] != pairs["target"]]
    same = other["attacked"].str.rsplit(" ", n=1).str[0] == other["codec"]
    return other[other["relation"] == "its family, same quality"]["delta_amp"].mean(), other[same]["delta_amp"].mean()


def by_target(pairs: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """The classical codecs: control -> codec -> what attacks do beyond it, by image."""
    classical = pairs[pairs["relation"] == "a classical codec"]
    return {
        name: {codec: part.groupby("image")[column].mean() for codec, part in classical.groupby("codec")}
        for column, name in CONTROLS.items()
    }


def strangers(rows: pd.DataFrame) -> dict[str, stats.Interval]:
    """What PGD on a codec at quality 3 leaves, beyond the dissolved attack, at the later ones of that quality, with its interval over
    images: on each itself, on it from each of the two families, and on the six from it."""
    pgd = rows[(rows["attack"] == "PGD") & (rows["quality"] == 3) & rows["attacked"].str.endswith(" 3")]
    pgd = pgd[~pgd["attacked"].str.contains(",")].assign(made_for=pgd["attacked"].str.rsplit(" ", n=1).str[0])
    six = {kind: [a for a in ARCHS if family(a) == kind] for kind in ("GDN", "residual")}
    found = {}
    for name in (n for n in LATER if n in set(pgd["codec"])):
        parts = {f"{name} itself": (pgd["made_for"] == name) & (pgd["codec"] == name)}
        parts |= {f"{kind} codecs -> {name}": pgd["made_for"].isin(them) & (pgd["codec"] == name) for kind, them in six.items()}
        parts[f"{name} -> the six"] = (pgd["made_for"] == name) & pgd["codec"].isin(ARCHS)
        found |= {n: stats.bootstrap(pgd[part].groupby("image")["beyond_dissolved"].mean().to_numpy()) for n, part in parts.items()}
    return found


def descent(codecs: Mapping[str, Codec], images: Iterable[Tensor], attack: attacks.Attack) -> pd.DataFrame:
    """Attacks made for each codec, coded by each: by how many dB (``beyond_dissolved``) the outputs are further apart than under the
    same attack, dissolved. Rows of ``made_for``, ``coded_by`` and ``image`` (a number); images [1, 3, H, W]."""
    found = []
    for k, x in enumerate(images):
        clean = {name: codec.reconstruct(x) for name, codec in codecs.items()}
        for made_for, codec in codecs.items():
            adv = attack(codec, x).x_adv
            plain = attacks.dissolved(x, adv, attack.eps, attack.seed + 1)
            for name, other in codecs.items():
                near, far = (metrics.psnr(clean[name], other.reconstruct(v)).item() for v in (plain, adv))
                found.append({"made_for": made_for, "coded_by": name, "image": k, "beyond_dissolved": near - far})
    return pd.DataFrame(found)


def draw_descent(rows: pd.DataFrame):
    """:func:`descent` as a table of means: made for a codec (rows), coded by a codec."""
    names = list(dict.fromkeys(rows["made_for"]))
    table = rows.pivot_table(index="made_for", columns="coded_by", values="beyond_dissolved").loc[names, names]
    figure, ax = plt.subplots(figsize=(7.2, 4.2))
    table = table.rename(columns=lambda name: name.replace(", ", ",\n"))
    plotting.heat_table(ax, table, "beyond the dissolved attack (dB)", cmap="Reds", vmin=0)
    ax.set(xlabel="coded by", ylabel="attack made for")
    ax.tick_params(axis="both", rotation=0)
    return figure


def step_tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For the hyperprior and its variable-rate twin: made for a quality (rows), met at a quality, beyond the dissolved attack."""
    found = {}
    for name in ("bmshj2018-hyperprior", "bmshj2018-hyperprior-vbr"):
        part = rows[(rows["attack"] == "PGD") & (rows["codec"] == name) & rows["attacked"].str.startswith(name + " ")]
        if len(part):
            part = part.assign(made_for=part["attacked"].str.rsplit(" ", n=1).str[1])
            found[name] = part.pivot_table(index="made_for", columns="quality", values="beyond_dissolved")
    return found


def neighbours_keep(table: pd.DataFrame, *steps: int) -> float:
    """What is left of the effect one quality further, as a share of the diagonal's: the mean over both neighbours, or over the finer (1)
    or coarser (-1) ones."""
    values = table.to_numpy()
    at = range(len(values))
    near = [values[i, i + k] / values[i, i] for i in at for k in steps or (-1, 1) if i + k in at]
    return float(sum(near) / len(near))


def further(rows: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """Ideas for travelling further, against PGD on the one right codec and on one picked blindly: control -> idea -> dB by image.

    The right one is the member of :data:`TOGETHER` that does most to a target on the other images.
    """
    members = [f"{m} 3" for m in TOGETHER]
    unseen = rows[rows["codec"].isin(set(ARCHS) - set(TOGETHER)) & (rows["quality"] == 3)]
    alone = unseen[(unseen["attack"] == "PGD") & unseen["attacked"].isin(members)]
    alone = alone.pivot_table(index=["target", "image"], columns="attacked", values="beyond")
    right = (alone.groupby("target").transform("sum") - alone).idxmax(axis=1)
    group = next(a for a in unseen["attacked"].unique() if "," in a)
    every = right.where(right == group, group)
    away = {
        "three at once, beside a blind pick: same quality": unseen,
        "three at once, beside a blind pick: other quality": rows[rows["target"].isin(EVERYONE) & (rows["quality"] != 3)],
        "three at once, beside a blind pick: classical": rows[
            rows["relation"].eq("a classical codec") | (rows["codec"].map(family) == "classical")
        ],
    }

    def effect(attack: str, made_for: pd.Series, value: str) -> pd.Series:
        found = unseen[unseen["attack"] == attack].set_index(["target", "image", "attacked"])[value]
        return found.loc[[(*at, who) for at, who in made_for.items()]].droplevel("attacked")

    def blindly(targets: pd.DataFrame, value: str) -> pd.Series:
        did = targets[targets["attack"] == "PGD"]
        did = did.pivot_table(index=["target", "image"], columns="attacked", values=value)
        return (did[group] - did[members].mean(axis=1)).groupby("image").mean()

    ideas = {"resizing, beside the right codec": ("DI-FGSM", right), "three at once, beside the right codec": ("PGD", every)}
    ideas["both, beside the right codec"] = ("DI-FGSM", every)
    found: dict[str, dict[str, pd.Series]] = {}
    for value in ("beyond", "beyond_dissolved"):
        base = effect("PGD", right, value)
        found[value] = {n: (effect(*how, value) - base).groupby("image").mean() for n, how in ideas.items()}
        found[value] |= {n: blindly(targets, value) for n, targets in away.items()}
    return found


# ---------------------------------------------------------------------------------------------------------------- pictures
def _groups(labels: Sequence[str], join: str) -> list[str]:
    """Each label's family and quality; the family is said at its first quality only."""
    names = []
    for codec, quality in (label.rsplit(" ", 1) for label in labels):
        names.append((family(codec), "" if family(codec) == "classical" else f"q{quality}"))
    first = {kind: (kind, q) for kind, q in reversed(names)}
    return [f"{kind}{join}{q}".strip() if first[kind] == (kind, q) else q for kind, q in names]


def draw_matrix(matrix: pd.DataFrame):
    """Who is hurt by whose attack, as colours: red is amplified, blue is damped."""
    figure, ax = plt.subplots(figsize=(14, 10.5))
    rows, columns = _groups(matrix.index, " "), _groups(matrix.columns, "\n")
    names = [[_name(label) for label in axis] for axis in (matrix.index, matrix.columns)]
    most = matrix.abs().max().max()
    table = pd.DataFrame(matrix.to_numpy(), *names)
    board(ax, table, rows, columns, "output moved more than input (dB)", room=0.15, cmap="RdBu_r", vmin=-most, vmax=most)
    ax.set_xlabel("coded by", fontsize=13, fontweight="bold")
    ax.set_ylabel("attack made for", fontsize=13, fontweight="bold", labelpad=70)
    return figure


def _name(label: str) -> str:
    codec, quality = label.rsplit(" ", 1)
    return short(codec, float(quality)).rsplit(" ", 1)[0]


def draw_intervals(parts: Mapping[str, Mapping[str, pd.Series]], label: str):
    """Means over images with 95 % intervals: a series of marks for each entry of ``parts``, its keys one below the other."""
    figure, ax = plt.subplots(figsize=(9, 1.2 + 0.55 * len(next(iter(parts.values())))))
    for k, (name, series) in enumerate((n, dict(s.items())) for n, s in parts.items()):
        found = [stats.bootstrap(s.to_numpy()) for s in series.values()]
        mean = [f.mean for f in found]
        reach = [[f.mean - f.low for f in found], [f.high - f.mean for f in found]]
        at = [-y - 0.22 * k for y in range(len(found))]
        ax.errorbar(mean, at, xerr=reach, fmt="osD"[k], ms=8, capsize=4, label=name, color=plotting.colours(3)[k])
    ax.set_yticks([-y - 0.11 * (len(parts) - 1) for y in range(len(found))], list(series))
    ax.axvline(0, color="black", lw=1)
    ax.set_xlabel(label)
    ax.legend(title="counted from", fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_steps(tables: Mapping[str, pd.DataFrame]):
    """Made for a quality, met at a quality: the separately trained codecs beside the one network with gains."""
    figure, axes = plt.subplots(1, len(tables), figsize=(6.2 * len(tables), 4.8), squeeze=False)
    most = max(t.abs().max().max() for t in tables.values())
    titles = {"bmshj2018-hyperprior": "six networks", "bmshj2018-hyperprior-vbr": "one network, six gains"}
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        table = table.rename(columns="{:g}".format)
        plotting.heat_table(ax, table, "beyond the dissolved attack (dB)", cmap="vlag", vmin=-most, vmax=most)
        ax.set(title=titles[name], xlabel="coded at quality", ylabel="attack made for quality")
        ax.tick_params(axis="x", rotation=0)
    return figure


def draw_noises(x: Tensor, noises: Mapping[str, Tensor], codecs: Mapping[str, object], title: str, zoom: int = 48, gain: float = 8):
    """Perturbations side by side, and below what each codec's output changes by; a corner of the picture, amplified."""
    figure, axes = plt.subplots(1 + len(codecs), len(noises), figsize=(3.1 * len(noises), 3.2 * (1 + len(codecs)) + 0.7))
    top = (x.shape[-1] - zoom) // 2
    cut = (..., slice(top, top + zoom), slice(top, top + zoom))
    for k, (name, noise) in enumerate(noises.items()):
        axes[0, k].imshow(plotting.amplified((noise - x)[cut][0], gain).permute(1, 2, 0), interpolation="nearest")
        axes[0, k].set_title(name, fontsize=18, fontweight="bold")
        for ax, codec in zip(axes[1:, k], codecs.values(), strict=True):
            clean, coded = codec.reconstruct(x), codec.reconstruct(noise)
            ax.imshow(plotting.amplified((coded - clean)[cut][0].cpu(), gain).permute(1, 2, 0), interpolation="nearest")
            ax.set_xlabel(f"{metrics.psnr(clean, coded).item():.1f} dB", fontsize=17)
    for ax, label in zip(axes[:, 0], ("noise put in", *codecs), strict=True):
        ax.set_ylabel(label, fontsize=17, fontweight="bold")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    figure.suptitle(title, fontsize=20, fontweight="bold")
    return figure


def draw_miniature(rows: pd.DataFrame):
    """A small run's rows: one column of dots for each target, the attack's own codec by colour."""
    figure, ax = plt.subplots(figsize=(10, 4))
    targets = list(dict.fromkeys(zip(rows["codec"], rows["quality"], strict=True)))
    for k, (attacked, part) in enumerate(rows.groupby("attacked", sort=False)):
        at = [targets.index(t) + 0.1 * (k - 1.5) for t in zip(part["codec"], part["quality"], strict=True)]
        codec, _, quality = attacked.rpartition(" ")
        one = codec in ARCHITECTURES
        look = plotting.style(codec) if one else {"color": "black", "marker": "*"}
        hollow = {"markerfacecolor": "none"} if quality == "1" else {}
        ax.plot(at, part["delta_amp"], ls="", ms=8, label=short(codec, int(quality)) if one else attacked, **look | hollow)
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks(range(len(targets)), [short(*t) for t in targets])
    ax.set(ylabel="output moved more than input (dB)", xlabel="coded by")
    ax.legend(title="attack made for", fontsize=9)
    return figure


def explorer(x: Tensor, made: Mapping[str, Tensor], codecs: Mapping[str, object], frame, gain: float = 8) -> dict:
    """Frames for every (attack, target): what the target makes of it, and the change. ``frame``: the widgets' ``Frame``."""
    clean = {name: codec.reconstruct(x) for name, codec in codecs.items()}
    frames = {}
    for attack, adv in made.items():
        given = metrics.psnr(x, adv).item()
        for target, codec in codecs.items():
            coded = codec.reconstruct(adv)
            apart = metrics.psnr(clean[target], coded).item()
            text = f"inputs {given:.1f} dB apart, outputs {apart:.1f}: " + (
                f"amplified by {given - apart:.1f} dB" if given > apart else f"damped by {apart - given:.1f} dB"
            )
            change = plotting.amplified((coded - clean[target])[0].cpu(), gain)
            frames[attack, target] = frame({"decoded": coded[0].cpu(), f"change ×{gain:g}": change}, text)
    return frames
