"""What notebook 10 measures more than once: the codec whose worst case is known, branches, layers, places, two starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from compressai.layers import GDN
from torch import Tensor

from nic_helpers import analysis, attacks, metrics, stats
from nic_helpers.budgets import L2rms
from nic_helpers.codecs import LinearCodec
from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.course import reference, studies
from nic_helpers.objectives import Rate

#: By profile: images at most, pixels a side, steps of the attacks on the file and on the picture.
SIZES = {
    "quick": {"limit": 2, "side": 128, "rate_steps": 6, "steps": 20},
    "standard": {"limit": 6, "side": 192, "rate_steps": 8, "steps": 30},
    "full": {"limit": None, "side": 512, "rate_steps": 30, "steps": 100},
}
#: What a codec's side information tells -> the codecs that are taken apart.
GROUPS = {
    "no side information": ["factorized"],
    "it tells scales": ["hyperprior", "hyperprior, random start"],
    "scales and means": ["mbt2018-mean", "mbt2018", "cheng2020-anchor"],
    "both, by slices": ["zou2022-wacnn", "zou2022-stf", "liu2023"],
}
SHOPPED = "shopping list, as an image"
BOUND = "upper bound"
COUNTERPARTS = ("clean", "noise", "recompressed")
ON_PICTURE = ("continuation", "continuation, ball", "sign noise")
ON_FILE = ("PGD rate", "SRDA rate")


def shop(codec: LinearCodec, x: Tensor, level: float, over: float = 0.03) -> Tensor:
    """Images x [B, 3, H, W] whose cheapest coefficients were pushed over their rounding boundaries: 8-bit pictures, changed by a root
    mean square of at most ``level`` 8-bit levels. ``over``: how far beyond the boundary, in steps, as rounding the pixels shakes the
    coefficients."""
    y = codec.analysis(x)
    push = 0.5 - (y - y.round()).abs() + over
    prices, order = push.square().flatten(1).sort(1)
    budget = x[0].numel() * (level / codec.quality) ** 2
    bought = (prices.cumsum(1) <= budget).double()
    chosen = torch.zeros_like(prices).scatter(1, order, bought).view_as(y)
    delta = codec.synthesis(chosen * push * (y - y.round()).sign()) - codec.centre
    return L2rms(level / 255).to_8bit((x + delta.to(x)).clamp(0, 1), x)


def gains(codecs: Iterable[LinearCodec], x: Tensor, names: Sequence[str], levels: Iterable[float], steps: int, seed: int):
    """A row for each codec, size of the change in 8-bit levels, way and image: by how many dB the output moves more than the input.

    The ways: two gradient attacks with so many ``steps``, noise, the shopping list (where more than one step is bought: for a coarse
    codec), and the upper bound.
    """
    rows = []
    for codec in codecs:
        clean = codec.reconstruct(x)
        for level in levels:
            moved = {way: metrics.achieved(clean, codec.reconstruct(v))["rms"] for way, v in _ways(codec, x, level, steps, seed)}
            moved[BOUND] = analysis.worst_case(codec, x, level / 255)
            for way, values in moved.items():
                gain = 20 * torch.log10(values * 255 / level)
                of = {"codec": codec.label, "eps_255": level, "way": way}
                rows += [of | {"image": name, "gain": g.item()} for name, g in zip(names, gain, strict=True)]
    return pd.DataFrame(rows)


def _ways(codec: LinearCodec, x: Tensor, level: float, steps: int, seed: int):
    budget = {"eps": level / 255, "seed": seed, "norm": "l2rms"}
    yield "APGD", attacks.APGD(steps=steps, **budget)(codec, x).x_adv
    yield "PGD", attacks.PGD(steps=steps, **budget)(codec, x).x_adv
    yield "noise", attacks.RandomNoise(kind="sign", **budget)(codec, x).x_adv
    if codec.quality > 1:
        yield SHOPPED, shop(codec, x, level)


def mean_gains(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """:func:`gains`' means over the images: codec -> a row a size of the change, a column a way."""
    by_codec = table.groupby("codec", sort=False)
    return {label: part.groupby(["eps_255", "way"])["gain"].mean().unstack() for label, part in by_codec}


def network_gain(quality: int) -> pd.Series:
    """The committed rows' gain (dB) of the hyperprior of this quality under continuation in the ball, by its size in 8-bit levels."""
    rows = studies.begun("start")
    chosen = (rows["quality"] == quality) & (rows["attack"] == "continuation, ball") & (rows["weights"] == "bundled")
    return rows[chosen].groupby("eps_255")["delta_amp"].mean()


def panel(weights: str) -> dict[str, tuple[str, int, str]]:
    """The codecs of ``GROUPS``: architecture, quality, weights."""
    prefix = {"factorized": "bmshj2018-", "hyperprior": "bmshj2018-"}
    found = {}
    for who in (codec for codecs in GROUPS.values() for codec in codecs):
        name, _, start = who.partition(", ")
        found[who] = (prefix.get(name, "") + name, 3, "random-start" if start else weights)
    return found


def branches(codecs: Mapping[str, Codec], x: Tensor, names: Sequence[str], attack, seed: int) -> pd.DataFrame:
    """``analysis.eci`` of each codec (``who``) under ``attack`` on the rate of x [B, 3, H, W], with each of three counterparts."""
    parts = []
    for who, codec in codecs.items():
        x_adv = attack(codec, x, Rate()).x_adv
        parts += [analysis.eci(codec, x, x_adv, c, seed=seed).assign(who=who, codec=codec.name) for c in COUNTERPARTS]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(image=[names[k] for k in table["image"]])


def shares(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Of :func:`branches`' rows, for each counterpart: the mean share of the file's growth that stays, by ``who`` and branch replaced."""
    mean = table.groupby(["who", "counterpart", "branch"], sort=False)["r"].mean().unstack(sort=False)
    stays = mean.div(mean["none"], axis=0).drop(columns="none")
    return [stays.xs(c, level="counterpart") for c in COUNTERPARTS]


def published_share() -> pd.Series:
    """Wu et al.'s share of the growth that stays with other side information, by codec, for those that have some."""
    table = reference.published_attacks("Table IV").pivot(index="codec", columns="quantity", values="attacked")
    share = (table["bitrate_do_hyperprior"] / table["bitrate_none"]).dropna()
    ours = {theirs: name.removeprefix("bmshj2018-") for name, theirs in reference.WU_NAMES.items()}
    return share.rename(ours).loc[lambda v: v.index.isin(list(ours.values()))]


def strongest_igdn(codec: NeuralCodec) -> float:
    """The largest weight γ by which an IGDN of the synthesis lets one channel's energy act on a channel; 0 where there is none."""
    found = [layer for layer in codec.model.g_s.modules() if isinstance(layer, GDN) and layer.inverse]
    return max((layer.gamma_reparam(layer.gamma).max().item() for layer in found), default=0.0)


def layers(codec: Codec, x: Tensor, names: Sequence[str], cases: Mapping[str, Tensor]) -> pd.DataFrame:
    """``analysis.ldmr`` between x and each case's images [B, 3, H, W]; ``psnr_recon``: how far apart the outputs are (dB)."""
    parts, clean = [], codec.reconstruct(x)
    for case, other in cases.items():
        apart = metrics.psnr(clean, codec.reconstruct(other))
        table = analysis.ldmr(codec, x, other)
        index = table["image"].tolist()
        parts.append(
            table.assign(image=[names[k] for k in index], case=case, codec=codec.label, psnr_recon=apart[index].cpu().numpy())
        )
    return pd.concat(parts, ignore_index=True)


def by_layer(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Of :func:`layers`' rows: the mean LDMR by case and layer, and each layer's kind; both in the signal's order."""
    kinds = table.drop_duplicates("layer").set_index("layer")["kind"]
    return table.groupby(["case", "layer"], sort=False)["ldmr"].mean().unstack("layer")[kinds.index], kinds


def rises(codec: Codec, x: Tensor, x_adv: Tensor) -> dict[str, Tensor]:
    """By how much bits and squared errors (on the 0–255 scale) rise on each block of 16×16 pixels: maps [B, h, w]."""
    errors = analysis.error_change(codec, x, x_adv)[:, None] * 255**2
    return {"bits": analysis.rate_change(codec, x, x_adv), "errors": F.avg_pool2d(errors, 16, ceil_mode=True)[:, 0]}


def in_cheap_half(rise: Tensor, cost: Tensor) -> float:
    """The share of all that rises on a map [h, w] which lies in the half of the blocks with the least ``cost``."""
    rise = rise.clamp_min(0)
    return (rise[cost <= cost.median()].sum() / rise.sum()).item()


def places(codec: Codec, x: Tensor, names: Sequence[str], attacked: Mapping[str, Tensor]) -> pd.DataFrame:
    """A row for each image, attack and what rises: its mean a block, and the share of it in the half of the blocks that cost least."""
    rows, costs = [], analysis.bit_map(codec, x)
    for attack, x_adv in attacked.items():
        for what, maps in rises(codec, x, x_adv).items():
            for name, cost, rise in zip(names, costs, maps, strict=True):
                share = in_cheap_half(rise, cost)
                rows.append(
                    {"image": name, "attack": attack, "what": what, "rises": rise.mean().item(), "in the cheap half": share}
                )
    return pd.DataFrame(rows)


def two_starts(quality: int = 3) -> pd.DataFrame:
    """The committed rows of the hyperprior from both starts, where both have met an attack; ``case``: "noise 8", "box 16", …"""
    rows = studies.begun("start")
    rows = rows[(rows["quality"] == quality) & rows["weights"].isin(["bundled", "random-start"])]
    key = ["image", "attack", "norm", "eps_255"]
    both = rows.groupby(key)["weights"].transform("nunique") == 2
    rows = rows.loc[both, [*key, "weights", "psnr_clean", "bpp_clean", "psnr_recon", "delta_source", "bpp_ratio"]]
    kind = rows["norm"].map({"linf": "box", "l2rms": "ball"}).where(~rows["attack"].str.contains("noise"), "noise")
    return rows.assign(case=kind + " " + rows["eps_255"].map("{:g}".format))


def compare(rows: pd.DataFrame, value: str, attack_names: Sequence[str]) -> pd.DataFrame:
    """A row a case: the mean of ``value`` for each start, and random start less bundled, image by image, with its 95 % interval."""
    found = {}
    for case, part in rows[rows["attack"].isin(attack_names)].groupby("case"):
        wide = part.pivot(index="image", columns="weights", values=value)
        apart = stats.paired_bootstrap(wide["bundled"], wide["random-start"])
        found[case] = {**wide.mean(), "mean": apart.mean, "low": apart.low, "high": apart.high}
    return pd.DataFrame(found).T
