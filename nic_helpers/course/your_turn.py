"""Notebook 15's machinery: a DCT, a folder of ONNX files and a command to begin with, and the table with its picture."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor, nn

from nic_helpers import attacks, metrics, objectives
from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.files import ffmpeg
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.course.begin import build_dir


def encode_words(codec: str = "libwebp", option: str = "-quality") -> list[str]:
    """The words of a command that codes {source} as {stream} with the ffmpeg that is installed with the course."""
    return [ffmpeg(), "-loglevel", "error", "-i", "{source}", "-c:v", codec, option, "{quality}", "{stream}"]


def decode_words() -> list[str]:
    """The words of the command that makes {picture} of {stream}."""
    return [ffmpeg(), "-loglevel", "error", "-i", "{stream}", "-pix_fmt", "rgb24", "{picture}"]


def dct_filters(side: int = 8) -> Tensor:
    """The DCT's basis as filters of a convolution in three groups, [3·side², 1, side, side], orthonormal: each product of two of ``side``
    cosines, one down and one across, for each colour."""
    k = torch.arange(float(side))
    waves = torch.cos(math.pi * (2 * k + 1) * k[:, None] / (2 * side)) * math.sqrt(2 / side)  # a row a wave
    waves[0] /= math.sqrt(2)
    products = waves[:, None, :, None] * waves[None, :, None, :]
    return products.reshape(side * side, 1, side, side).repeat(3, 1, 1, 1)


class Table:
    """Rows of codecs that all see the pictures x [B, 3, H, W] under one budget ``eps``; who has no gradient gets the attacks made on
    ``instead``."""

    def __init__(self, x: Tensor, eps: float, seed: int, instead: Codec):
        self._x, self._instead = x, instead
        self._noisy = attacks.RandomNoise(eps, kind="sign", seed=seed)(instead, x).x_adv
        self._made: dict = {}  # a transferred attack is made once

    def row(self, codec: Codec, attack: attacks.Attack) -> dict:
        """``bpp`` and ``PSNR`` clean, real bytes; PSNR between the outputs (dB) under ``noise`` and the attack (``picture``); attacked
        ``file`` over the clean one; and on whom the attack was made (``attacked``). Means over the pictures."""
        through = codec if codec.differentiable else self._instead
        if (through, attack) not in self._made:
            self._made[through, attack] = [attack(through, self._x, o).x_adv for o in (objectives.Distortion(), objectives.Rate())]
        seen = [metrics.before_after(codec, self._x, v) for v in (self._noisy, *self._made[through, attack])]
        noise, picture, larger = (rows.mean(numeric_only=True) for rows in seen)
        return {
            "bpp": picture["bpp_clean"],
            "PSNR": picture["psnr_clean"],
            "noise": noise["psnr_recon"],
            "picture": picture["psnr_recon"],
            "file": larger["bpp_ratio"],
            "attacked": "itself" if through is codec else "transferred",
        }


def onnx_folder(images: Sequence[Tensor]) -> Path:
    """A folder with analysis.onnx and synthesis.onnx, to stand for the reader's: the principal components of the images' 8×8 blocks."""
    linear = LinearCodec(images, device="cpu")
    basis, centre = linear.basis.float(), linear.centre.float()
    down = nn.Conv2d(3, len(basis), 8, 8)
    up = nn.ConvTranspose2d(len(basis), 3, 8, 8)
    with torch.no_grad():
        down.weight.copy_(basis)
        down.bias.copy_(-(basis * centre).sum((1, 2, 3)))
        up.weight.copy_(basis)
        up.bias.copy_(centre.flatten())
    folder = build_dir() / "your_networks"
    folder.mkdir(parents=True, exist_ok=True)
    free = {"dynamic_axes": {"input": {0: "n", 2: "h", 3: "w"}}, "input_names": ["input"], "dynamo": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is older, and needs nothing beside torch
        torch.onnx.export(down, (torch.rand(1, 3, 16, 16),), str(folder / "analysis.onnx"), **free)
        torch.onnx.export(up, (torch.rand(1, len(basis), 2, 2),), str(folder / "synthesis.onnx"), **free)
    return folder


def bars(table: pd.DataFrame, yours: Sequence[str], columns: dict[str, str], title: str, hatched: Sequence[str] = ()):
    """Two rows of panels, one for each column of the table (column -> label), a bar a codec, the reader's own in another colour.

    ``hatched``: rows that were attacked through another codec, wherever the column is of an attack (``picture``, ``file``).
    """
    figure, axes = plt.subplots(2, -(-len(columns) // 2), figsize=(11, 0.9 * len(table) + 3.2), sharey=True)
    colours = ["#D55E00" if name in yours else "#9AA5AE" for name in table.index]
    for ax, (column, label) in zip(axes.flat, columns.items(), strict=True):
        drawn = ax.barh(list(table.index), table[column], color=colours, edgecolor="white")
        for bar, name in zip(drawn, table.index, strict=True):
            bar.set_hatch("//" if name in hatched and column in ("picture", "file") else "")
        ax.bar_label(drawn, fmt="%.2f" if table[column].max() < 10 else "%.1f", padding=3, fontsize=12)
        ax.set_xlabel(label, fontsize=12)
        ax.tick_params(labelsize=12)
        ax.margins(x=0.18)
        ax.grid(False)
    axes.flat[0].invert_yaxis()
    figure.suptitle(title, fontsize=14)
    return figure
