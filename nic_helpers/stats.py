"""Intervals over images, and comparisons of rate–distortion curves."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import bjontegaard
import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm, t


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def _quantiles(n: int, level: float) -> list[float]:
    """Which quantiles of the bootstrap means bound an interval over n images.

    Those that make up for resampling n values being as if they varied by √((n−1)/n) and by the normal distribution, not
    Student's: the expanded percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789). With four images the
    plain percentiles cover 80 %, not 95.
    """
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1)) if n > 1 else (1 - level) / 2
    return [float(tail), float(1 - tail)]


def bootstrap(values, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean of one value per image with its bootstrap interval over images (NaNs are an error).

    ``values``: a number an image, or several, one for each seed of an attack: then images are drawn, and for each of them its
    seeds, so that the interval holds what both would change. Percentiles, expanded for few images; of one image with one value
    it is the value itself. For a paired comparison give the differences. Deterministic for a seed.
    """
    try:
        each = [np.atleast_1d(np.asarray(v, dtype=float)) for v in values]
    except TypeError:
        each = []
    if not each or any(v.ndim != 1 or not len(v) for v in each):
        raise ValueError(f"bootstrap needs one value per image, or one for each of its seeds, got {np.shape(values)}")
    if not all(np.isfinite(v).all() for v in each):
        raise ValueError("bootstrap got NaN or infinite values: leave those images out, and say so")
    rng, n = np.random.default_rng(seed), len(each)
    counts = np.array([len(v) for v in each])
    drawn = rng.integers(0, n, (resamples, n))
    if counts.max() == 1:
        means = np.concatenate(each)[drawn].mean(1)
    else:
        padded = np.stack([np.resize(v, counts.max()) for v in each])
        which = (rng.random((resamples, n, counts.max())) * counts[drawn][..., None]).astype(int)
        means = padded[drawn[..., None], which].mean((1, 2))
    low, high = np.quantile(means, _quantiles(n, level))
    return Interval(float(np.mean([v.mean() for v in each])), float(low), float(high))


def paired_bootstrap(before, after, **kwargs) -> Interval:
    """Mean difference after − before over images, with its paired bootstrap interval."""
    before, after = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if before.shape != after.shape:
        raise ValueError(f"paired values must match: {before.shape} and {after.shape}")
    return bootstrap(after - before, **kwargs)


def summarise(table: pd.DataFrame, value: str, by: list[str], worst: str = "min") -> pd.DataFrame:
    """Mean, 95 % interval, worst image and share of blow-ups of one column, for each group of rows.

    Rows of one image in a group, such as those of several seeds, count as one image (see :func:`bootstrap`).
    """
    rows = []
    for key, group in table.groupby(by, sort=False):
        interval = bootstrap([part.to_numpy() for _, part in group.groupby("image", sort=False)[value]])
        at = group[value].idxmin() if worst == "min" else group[value].idxmax()
        row = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {
            "mean": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "worst": group.loc[at, value],
            "worst_image": group.loc[at, "image"],
            "images": group["image"].nunique(),
        }
        if "blow_up" in group:
            row["blow_ups"] = float(group["blow_up"].mean())
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class BDRate:
    """Average rate difference at equal quality, and the range of quality it was averaged over."""

    percent: float
    low: float
    high: float


def bd_rate(reference: pd.DataFrame, test: pd.DataFrame, quality: str = "psnr", rate: str = "bpp") -> BDRate:
    """Bjøntegaard delta rate (%, negative: ``test`` needs fewer bits), pchip, over the overlap of the two curves.

    Each curve is a table with a column of rates and one of qualities, one row a point, at least two rows.
    """
    reference, test = (c.sort_values(rate) for c in (reference, test))
    low = max(reference[quality].min(), test[quality].min())
    high = min(reference[quality].max(), test[quality].max())
    if low >= high:
        raise ValueError(f"the curves share no range of {quality}: nothing to average over")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the overlap is reported, not warned about
        percent = bjontegaard.bd_rate(
            reference[rate].to_numpy(),
            reference[quality].to_numpy(),
            test[rate].to_numpy(),
            test[quality].to_numpy(),
            method="pchip",
            require_matching_points=False,
            min_overlap=0,
        )
    return BDRate(float(percent), float(low), float(high))


def rate_at(reference: pd.DataFrame, value: float, quality: str = "psnr", rate: str = "bpp") -> float:
    """Rate at which a curve reaches a quality (pchip on log rate); NaN outside the curve."""
    curve = reference.sort_values(quality)
    if not curve[quality].iloc[0] <= value <= curve[quality].iloc[-1]:
        return float("nan")
    return float(np.exp(PchipInterpolator(curve[quality], np.log(curve[rate]))(value)))


def quality_at(reference: pd.DataFrame, value: float, quality: str = "psnr", rate: str = "bpp") -> float:
    """Quality that a curve reaches at a rate (pchip on log rate); NaN outside the curve."""
    curve = reference.sort_values(rate)
    if not curve[rate].iloc[0] <= value <= curve[rate].iloc[-1]:
        return float("nan")
    return float(PchipInterpolator(np.log(curve[rate]), curve[quality])(np.log(value)))


def rate_difference(reference: pd.DataFrame, point: pd.Series | dict, quality: str = "psnr", rate: str = "bpp") -> float:
    """Bytes (%, negative: fewer) at one point's own quality, against a curve interpolated there."""
    return 100 * (point[rate] / rate_at(reference, point[quality], quality, rate) - 1)


def ranking(scores: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Who is ahead, and how sure that is: ``scores`` has a row an image and a column a contestant, higher is better.

    Returns a row a contestant, best mean first: ``mean``, ``low``, ``high`` (95 % interval), ``rank`` 1 …, and
    ``rank_low``, ``rank_high``, the ranks it takes in 95 % of bootstrap samples of the images (the same images for all).
    """
    if scores.isna().any(axis=None) or scores.empty:
        raise ValueError("ranking needs a value for every image and contestant: leave incomplete images out, and say so")
    values = scores.to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    ranks = 1 + (-means).argsort(1).argsort(1)
    low, high = _quantiles(len(values), 0.95)
    table = pd.DataFrame(
        {
            "mean": values.mean(0),
            "low": np.quantile(means, low, 0),
            "high": np.quantile(means, high, 0),
            "rank_low": np.quantile(ranks, low, 0, method="lower"),
            "rank_high": np.quantile(ranks, high, 0, method="higher"),
        },
        index=scores.columns,
    )
    table = table.sort_values("mean", ascending=False)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
