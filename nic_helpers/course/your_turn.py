"""Notebook 15's machinery: a folder of ONNX files to begin with, a command that codes a picture, and the table's picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor, nn

from nic_helpers.codecs.files import ffmpeg
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.course.begin import build_dir


def encode_words(codec: str = "libwebp", option: str = "-quality") -> list[str]:
    """The words of a command that codes {source} as {stream} with the ffmpeg that is installed with the course."""
    return [ffmpeg(), "-loglevel", "error", "-i", "{source}", "-c:v", codec, option, "{quality}", "{stream}"]


def decode_words() -> list[str]:
    """The words of the command that makes {picture} of {stream}."""
    return [ffmpeg(), "-loglevel", "error", "-i", "{stream}", "-pix_fmt", "rgb24", "{picture}"]


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


def bars(table: pd.DataFrame, yours: Sequence[str], columns: dict[str, str], title: str):
    """A panel a column of the table (column -> label), a bar a codec, the reader's own in another colour."""
    figure, axes = plt.subplots(1, len(columns), figsize=(5.2 * len(columns), 0.5 * len(table) + 1.6), sharey=True)
    colours = ["#D55E00" if name in yours else "#9AA5AE" for name in table.index]
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        drawn = ax.barh(list(table.index), table[column], color=colours)
        ax.bar_label(drawn, fmt="%.2f" if table[column].max() < 10 else "%.1f", padding=3, fontsize=12)
        ax.set_xlabel(label, fontsize=12)
        ax.tick_params(labelsize=12)
        ax.margins(x=0.18)
        ax.grid(False)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=14)
    return figure
