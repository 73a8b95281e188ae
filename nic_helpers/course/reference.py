"""Published numbers to put beside our own: rate–distortion points on Kodak, and codecs under attack."""

from __future__ import annotations

import pandas as pd

from nic_helpers import stats
from nic_helpers.settings import data_dir

#: Our codec's name -> the published curve of the same codec, all from CompressAI's results/image/kodak.
CURVES = {
    "bmshj2018-factorized": "compressai-bmshj2018-factorized_mse_cuda",
    "bmshj2018-hyperprior": "compressai-bmshj2018-hyperprior_mse_cuda",
    "mbt2018-mean": "compressai-mbt2018-mean_mse_cuda",
    "mbt2018": "compressai-mbt2018_mse_cuda",
    "cheng2020-anchor": "compressai-cheng2020-anchor_mse_cuda",
    "cheng2020-attn": "compressai-cheng2020-attn_mse_cuda",
    "bmshj2018-hyperprior-vbr": "bmshj2018-hyperprior-vbr-ans",
    "jpeg-plain": "jpeg",
    "jpeg2000": "jpeg2000",
    "webp": "webp",
    "vvc": "vtm",
}


def published(codecs: list[str]) -> pd.DataFrame:
    """Published points of the given codecs: columns ``codec``, ``name`` (for a legend), ``bpp``, ``psnr``, ``ms_ssim``."""
    table = pd.read_csv(data_dir() / "reference" / "kodak_published_rd.csv")
    parts = [
        table[table["curve"] == CURVES[c]].assign(codec=c, name=f"{'VTM (VVC)' if c == 'vvc' else c}, published") for c in codecs
    ]
    return pd.concat(parts, ignore_index=True)


def gaps(points: pd.DataFrame, codec: str) -> pd.Series:
    """How far points (columns ``bpp``, ``psnr``) lie above a codec's published curve at equal rate (dB), of those within its range."""
    known = published([codec])
    return pd.Series({k: p["psnr"] - stats.quality_at(known, p["bpp"]) for k, p in points.iterrows()}).dropna()


#: Our codec's name -> what Wu et al. (2024) call the same architecture.
WU_NAMES = {
    "bmshj2018-factorized": "Balle2016",
    "bmshj2018-hyperprior": "Balle2018",
    "mbt2018": "Minnen2018",
    "cheng2020-anchor": "Cheng2020",
    "song2021": "Song2021",
    "cai2022": "Cai2022",
    "zou2022-wacnn": "Zou2022",  # their paper does not say which of the two
    "zou2022-stf": "Zou2022",
    "liu2023": "Liu2023",
}


def published_attacks(source: str) -> pd.DataFrame:
    """Rows of the published numbers under attack whose source contains this text: ``source``, ``setting``, ``codec``,
    ``quality``, ``attack``, ``quantity``, ``clean``, ``attacked``."""
    table = pd.read_csv(data_dir() / "reference" / "robustness_published.csv")
    return table[table["source"].str.contains(source, regex=False)].reset_index(drop=True)
