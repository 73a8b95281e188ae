"""Whether this machine has what the course needs."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import torch

from nic_helpers.settings import PROJECT


def check_environment() -> pd.DataFrame:
    """What the course needs and whether it is there: a table of part, state and what to do otherwise."""
    from PIL import features

    from nic_helpers.codecs.weights import bundled_qualities, load_weights, manifest

    rows = []
    for name, entry in manifest().items():
        load_weights(entry["arch"], entry["qualities"][0])  # raises if the file is missing or its hash is wrong
        rows.append((f"weights {name.removesuffix('.safetensors')}", "hash checked", ""))
    rows = [(f"bundled weights, {len(rows)} files", "hashes checked", "")]
    for arch in sorted({v["arch"] for v in manifest().values()}):
        rows.append((f"  {arch}", "quality " + ", ".join(map(str, bundled_qualities(arch))), ""))
    for kind in ("jpg", "jpg_2000", "webp", "avif"):
        rows.append((f"Pillow's {kind}", "yes" if features.check(kind) else "no", "install the pinned Pillow"))
    kodak = os.environ.get("NIC_KODAK_DIR") or (Path(os.environ.get("NIC_DATA_DIR") or PROJECT / "data") / "kodak")
    found = len(list(Path(kodak).glob("kodim*.png")))
    rows.append(("Kodak images", f"{found} of 24 at hand", "fetched by the standard profile, or set NIC_KODAK_DIR"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    rows.append(("GPU", gpu, "not needed; the full profile is slow without one"))
    return pd.DataFrame(rows, columns=["part", "state", "if it is missing"])
