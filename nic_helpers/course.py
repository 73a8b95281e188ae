"""What every notebook starts with: the profile resolved to images, settings and folders, and printed.

run = course.begin("03", profile=profile, seed=seed)
run.x            # the profile's images; run.names, run.caption
run.save(fig, "epsilon_ladder")
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import compressai
import pandas as pd
import torch
from torch import Tensor

from nic_helpers import __version__, plotting
from nic_helpers.exercises import check
from nic_helpers.images import ImageSet, in_words
from nic_helpers.settings import PROJECT, get_device

__all__ = ["PROFILES", "Run", "begin", "check", "check_environment"]


EXAMPLE = "astronaut"  # the bundled image that pictures show


@dataclass(frozen=True)
class Profile:
    """How much a run does. ``crop`` pixels a side (None: whole images), ``limit`` images at most (None: all)."""

    images: str
    weights: str
    crop: int | None
    limit: int | None
    says: str


PROFILES = {
    "quick": Profile("bundled", "bundled", 192, 4, "bundled images and weights, small crops"),
    "standard": Profile("kodak", "bundled", 256, None, "bundled weights on Kodak; attacks on 256×256 crops"),
    "full": Profile("kodak", "zoo", None, None, "the zoo's weights on whole Kodak images"),
}


def build_dir() -> Path:
    """Where a run writes: ``NIC_BUILD_DIR``, or ``build/`` in the project."""
    return Path(os.environ.get("NIC_BUILD_DIR") or PROJECT / "build")


@dataclass
class Run:
    """A notebook's run: its profile, images by name, seed and device.

    ``example`` [1, 3, H, W] is a bundled image whatever the profile, for pictures: published figures hold no image that
    the project does not ship with its packages.
    """

    notebook: str
    profile_name: str
    profile: Profile
    seed: int
    device: torch.device
    images: dict[str, Tensor]
    source: str
    example: Tensor

    @property
    def names(self) -> list[str]:
        """The images' names, in order."""
        return list(self.images)

    @property
    def x(self) -> Tensor | list[Tensor]:
        """The images as one batch [B, 3, H, W] if their sizes agree, else as a list."""
        values = list(self.images.values())
        return torch.stack(values) if len({v.shape for v in values}) == 1 else values

    @property
    def caption(self) -> str:
        """What a figure of this run is based on, for its caption."""
        sides = {f"{v.shape[2]}×{v.shape[1]}" for v in self.images.values()}
        size = sides.pop() if len(sides) == 1 else "various sizes"
        return f"{in_words(self.source, len(self.images))}, {size}; {self.profile.weights} weights; profile {self.profile_name}"

    def save(self, figure, name: str) -> None:
        """Write a figure as PNG and PDF into the run's figures folder, as ``NN_name``."""
        plotting.save(figure, build_dir() / "figures" / f"{self.notebook}_{name}")

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a tidy table as CSV into the run's results folder, as ``NN_name``, with what it was made by."""
        folder = build_dir() / "results"
        folder.mkdir(parents=True, exist_ok=True)
        made_by = {"profile": self.profile_name, "device": str(self.device), "nic_helpers": __version__,
                   "torch": torch.__version__, "compressai": compressai.__version__}  # fmt: skip
        table.assign(**made_by).to_csv(folder / f"{self.notebook}_{name}.csv", index=False, float_format="%.6g")

    def save_rows(self, table: pd.DataFrame, name: str) -> None:
        """Write a study's rows as Parquet into the run's results folder, as ``NN_name``, numbers in single precision."""
        folder = build_dir() / "results"
        folder.mkdir(parents=True, exist_ok=True)
        numbers = dict.fromkeys(table.select_dtypes("floating").columns, "float32")
        # bytes of like weight side by side: numbers that no dictionary would shorten take half the room
        table.astype(numbers).to_parquet(folder / f"{self.notebook}_{name}.parquet", index=False, compression="zstd",
                                         compression_level=19, use_byte_stream_split=list(numbers),
                                         use_dictionary=[c for c in table.columns if c not in numbers])  # fmt: skip


def begin(notebook: str, profile: str = "quick", seed: int = 0, whole: bool = False, lossless_only: bool = False,
          limit: int | None = None, source: str | Path | None = None) -> Run:  # fmt: skip
    """Resolve a profile, load its images, set the figures' theme, and print what was resolved.

    ``whole``: whole images even where the profile crops; ``lossless_only``: no image that is stored as JPEG (for
    rate–distortion plots); ``limit``: at most so many images; ``source``: another image set than the profile's: "bundled",
    "kodak", or a folder of your own.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: there are {', '.join(PROFILES)}")
    chosen, device = PROFILES[profile], get_device()
    plotting.set_theme()
    source = source or chosen.images
    crop = None if whole else chosen.crop
    images = ImageSet(source, crop=crop, lossless_only=lossless_only)
    example = ImageSet("bundled", crop=crop)[EXAMPLE]
    most = min(n for n in (limit, chosen.limit, len(images)) if n is not None)
    run = Run(notebook, profile, chosen, seed, device, images.read(most), source, example[None])
    print(f"profile  {profile}: {chosen.says}" + ("; here other images" if source != chosen.images else ""))
    print(f"images   {run.caption.split(';')[0]}: {', '.join(n.removesuffix('.png') for n in run.names)}")
    print(f"weights  {chosen.weights}    seed  {seed}")
    gpu = (
        f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    )
    print(f"device   {device}{gpu}")
    print(f"versions nic_helpers {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
          f"compressai {compressai.__version__}")  # fmt: skip
    print(f"python   {Path(sys.prefix).name}")
    return run


def check_environment() -> pd.DataFrame:
    """What the course needs and whether it is there: a table of part, state and what to do otherwise."""
    from PIL import features

    from nic_helpers.weights import bundled_qualities, load_weights, manifest

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
