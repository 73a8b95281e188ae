"""Where things are and what they run on: the few settings that come from the environment, each named here once.

``NIC_DATA_DIR``    bundled checkpoints, downloads and results (default: ``data/`` beside the package)
``NIC_KODAK_DIR``   a folder with kodim01.png … kodim24.png, instead of downloading them
``NIC_KODAK_URL``   a mirror of the Kodak images
``NIC_ZOO_URL``     a mirror of CompressAI's model zoo
``NIC_JPEGAI_DIR``  a folder with the networks of JPEG AI's verification model 3.3 (see :mod:`nic_helpers.codecs.jpegai`)
``NIC_SWEEP_HOURS`` how long notebooks 08 and 09 may compute rows of their studies (default: until all are there)
``NIC_KEEP_MEMORY`` ``0``: give memory back to the system after each step (see :mod:`nic_helpers.memory`)
``NIC_CHECK_MEMORY`` ``0``: do not refuse images that need more memory than is free (same place)
``NIC_DEVICE``      ``cpu``, ``cuda``, ``cuda:1`` … (default: the first GPU if there is one)
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[1]


def data_dir() -> Path:
    """The folder that holds ``checkpoints/``, ``results/`` and downloads."""
    return Path(os.environ.get("NIC_DATA_DIR") or PROJECT / "data")


def jpegai_dir() -> Path | None:
    """``NIC_JPEGAI_DIR``, the folder of JPEG AI's networks; None where it is not set."""
    folder = os.environ.get("NIC_JPEGAI_DIR")
    return Path(folder) if folder else None


def get_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else ``NIC_DEVICE``, else the first GPU, else the CPU."""
    name = device or os.environ.get("NIC_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise RuntimeError(f"there is no device {name!r}: give 'cpu', 'cuda' or 'cuda:1', as device or in NIC_DEVICE") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device {name!r} was asked for, but torch sees no GPU: use device='cpu' or unset NIC_DEVICE")
    return chosen


def sweep_seconds() -> float:
    """``NIC_SWEEP_HOURS`` in seconds; infinite where it is not set."""
    text = os.environ.get("NIC_SWEEP_HOURS") or "inf"
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not hours >= 0:  # NaN is neither
        raise ValueError(f"NIC_SWEEP_HOURS is a number of hours, 0 or more, got {text!r}: correct or unset it")
    return 3600 * hours
