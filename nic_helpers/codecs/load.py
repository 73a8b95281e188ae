"""Codecs by name."""

from __future__ import annotations

from pathlib import Path

from nic_helpers.codecs.classical import CLASSICAL, ClassicalCodec
from nic_helpers.codecs.jpegai import NAMES, JpegAI
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import COLLECTIONS, bundled_qualities, load_weights
from nic_helpers.settings import get_device


def available_qualities(name: str, weights: str = "bundled") -> list[int]:
    """The qualities at which a neural codec can be loaded from ``weights`` ("bundled", "random-start", "zoo" …)."""
    ours = weights == "bundled" or weights in COLLECTIONS
    return bundled_qualities(name, weights) if ours else list(ARCHITECTURES[name].qualities)


def codec_names() -> list[str]:
    """Every name that :func:`load_codec` takes."""
    return [*ARCHITECTURES, *CLASSICAL, *NAMES]


def load_codec(
    name: str,
    quality: float | None = None,
    weights: str | Path = "bundled",
    device=None,
    *,
    lmbda: float | None = None,
    metric: str | None = None,
):
    """A codec by name.

    ``quality``: CompressAI's number (1 lowest) for neural codecs; the native scale for classical ones; the quantiser's step
    for JPEG AI's (``codecs/jpegai.py``), whose networks are read from ``NIC_JPEGAI_DIR``. ``weights``:
    "bundled" (in this repository), "random-start" (there too: counterparts that began from random weights), "zoo"
    (CompressAI's, downloaded once), "authors:PATH" (a file that an architecture's authors published) or the path of a file.
    ``device``: default the first GPU, else the CPU. ``lmbda``, ``metric``: the loss that a file's weights were trained for, where the
    file does not say so itself: λ of R + λ·255²·MSE, and "mse" or "ms-ssim" (see :func:`nic_helpers.codecs.weights.load_weights`).
    Raises ValueError naming what there is for an unknown name, quality or weights.
    """
    if not isinstance(name, str):
        raise TypeError(f"load_codec takes a codec's name, got {type(name).__name__}: there are {', '.join(codec_names())}")
    if name in CLASSICAL:
        if lmbda is not None or metric is not None:
            raise ValueError(f"{name} was not trained: leave lmbda and metric out")
        return ClassicalCodec(name, quality)
    if name in NAMES:
        if lmbda is not None or metric is not None:
            raise ValueError(f"what {name} was trained for is not in its files: leave lmbda and metric out")
        return JpegAI(quality, device, luma_only=NAMES[name])
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown codec {name!r}: there are {', '.join(codec_names())}")
    if quality is not None and (not isinstance(quality, int) or isinstance(quality, bool)):
        raise ValueError(f"{name}'s quality is a whole number, got {quality!r}")
    if quality is None:
        have = available_qualities(name, str(weights))
        raise ValueError(f"{name} needs a quality: one of {', '.join(map(str, have))}")
    found = load_weights(name, quality, weights, lmbda=lmbda, metric=metric)
    return NeuralCodec(name, quality, found, get_device(device))
