"""Notebook 02's exercises: reading curves, and counting real bits."""

from __future__ import annotations

import pandas as pd

from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.load import load_codec
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import picture
from nic_helpers.stats import rate_at


def next_quality(table):
    means = table[table["codec"] == "bmshj2018-hyperprior"].groupby("quality")["psnr"].mean()
    return means.diff().dropna().iloc[0]


def small_table():
    rows = [("bmshj2018-hyperprior", q, psnr) for q, psnr in ((1, 27.0), (1, 29.0), (3, 31.0), (3, 30.0), (6, 36.0))]
    return {"table": pd.DataFrame(rows, columns=["codec", "quality", "psnr"])}


def jpegs_rate(curves):
    return rate_at(curves["jpeg"], float(curves["bmshj2018-hyperprior"]["psnr"].iloc[0]))


def small_curves():
    jpeg = pd.DataFrame({"bpp": [0.2, 0.4, 0.8, 1.6], "psnr": [26.0, 29.0, 32.0, 36.0]})
    return {"curves": {"jpeg": jpeg, "bmshj2018-hyperprior": pd.DataFrame({"bpp": [0.2, 0.5], "psnr": [28.0, 31.0]})}}


def bits_per_pixel(streams, x):
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return 8 * sum(len(stream) for stream in streams) / pixels


def judge_bpp(answer):
    x = picture(72)[:, :, :64].repeat(2, 1, 1, 1)
    streams = load_codec("bmshj2018-hyperprior", 3).encode(x)
    found, right = float(answer(streams, x)), sum(real_bpp(streams, x)) / 2
    if abs(found / right - 1) < 1e-3:
        return None
    known = {
        3: "three times too little: a pixel has three samples, and is one pixel",
        8: "eight times too little: a byte has eight bits",
    }
    why = next(
        (text for factor, text in known.items() if abs(found * factor / right - 1) < 1e-2), f"×{found / right:.3g} the right value"
    )
    return (
        f"two pictures of 72×64 in {sum(map(len, streams))} bytes take {right:.4f} bits a pixel, and this says {found:.4f}: {why}"
    )


def per_sample(streams, x):
    return 8 * sum(map(len, streams)) / x.numel()


def in_bytes(streams, x):
    return bits_per_pixel(streams, x) / 8


def one_picture(streams, x):
    return 8 * sum(map(len, streams)) / (x.shape[2] * x.shape[3])


EXERCISES = [
    Number(
        "02.1",
        next_quality,
        0.02,
        (
            "keep the hyperprior's rows, and take the mean at each quality",
            "table[table['codec'] == …].groupby('quality')['psnr'].mean()",
        ),
        small_table,
    ),
    Number(
        "02.2",
        jpegs_rate,
        0.005,
        (
            "the curve must be read between its points",
            "stats.rate_at(curves['jpeg'], value) with the psnr of curves['bmshj2018-hyperprior'].iloc[0]",
        ),
        small_curves,
    ),
    Write(
        "02.3",
        bits_per_pixel,
        judge_bpp,
        (
            "streams are bytes, and a byte has eight bits",
            "a picture [3, H, W] has H·W pixels, and a batch has several pictures",
            "8 * sum(len(s) for s in streams) / (x.shape[0] * x.shape[2] * x.shape[3])",
        ),
        {"per sample": per_sample, "bytes": in_bytes, "one picture's pixels": one_picture},
    ),
]
