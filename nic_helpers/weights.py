"""Where a codec's weights come from: the bundled files, CompressAI's model zoo, or a file of the user's.

Every file is checked by its SHA-256 before it is used, and is read either as safetensors or with
``torch.load(weights_only=True)``: loading weights never runs code from the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import pooch
import torch
from compressai.models.utils import remap_old_keys
from compressai.zoo.image import model_urls
from compressai.zoo.image import root_url as ZOO_URL
from compressai.zoo.pretrained import load_pretrained
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nic_helpers.models import ARCHITECTURES, LAMBDAS
from nic_helpers.settings import data_dir

#: Coding tables are rebuilt after loading, never trusted from a file; GDN's constants belong to the code.
_REBUILT = (
    "_offset",
    "_quantized_cdf",
    "_cdf_length",
    "scale_table",
    "scale_bound",
    "lower_bound",
    "pedestal",
    ".target",
)
#: Kept in float32 in a half-precision file: stored as square roots with floors below half's normal range.
_FULL_PRECISION = ("beta", "gamma", "entropy_bottleneck.")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Weights:
    """A codec's parameters and where they came from."""

    state: dict[str, Tensor] = field(repr=False)
    source: str  # "bundled", "zoo" or "file"
    file: str
    sha256: str
    lmbda: float
    card: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """The constructor's arguments, read off the tensors' shapes: (N, M), or (N,) for Cheng2020."""
        if "g_a.0.conv1.weight" in self.state:
            return (self.state["g_a.0.conv1.weight"].size(0),)
        return self.state["g_a.0.weight"].size(0), self.state["g_a.6.weight"].size(0)


def checkpoints_dir() -> Path:
    """The folder of the bundled weights."""
    return data_dir() / "checkpoints"


def manifest() -> dict[str, dict]:
    """The bundled files: name -> {"arch", "quality", "sha256"}."""
    path = checkpoints_dir() / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no bundled weights: {path} is missing. Install from a clone (pip install -e .) or "
                                "set NIC_DATA_DIR to the clone's data folder.")  # fmt: skip
    return json.loads(path.read_text())


def bundled_qualities(arch: str) -> list[int]:
    """The qualities of an architecture whose weights are in this repository."""
    return sorted(v["quality"] for v in manifest().values() if v["arch"] == arch)


def load_weights(arch: str, quality: int, weights: str | Path = "bundled") -> Weights:
    """Weights for one codec: ``"bundled"``, ``"zoo"`` (downloaded once), or the path of a file.

    A file is either ours (``.safetensors``) or CompressAI's form (a state dict, or one under "state_dict" or "model").
    Raises ValueError for an unknown codec, quality or a wrong hash (with what there is), FileNotFoundError for a missing
    file, ConnectionError when the zoo cannot be reached.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown codec {arch!r}: there are {', '.join(ARCHITECTURES)}")
    if weights == "bundled":
        return _bundled(arch, quality)
    if weights == "zoo":
        return _zoo(arch, quality)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: weights must be 'bundled', 'zoo' or the path of a file")
    found = _read(path, "file", quality)
    for key, wanted in (("arch", arch), ("quality", str(quality))):
        if found.card.get(key, wanted) != wanted:
            raise ValueError(f"{path} holds weights of {key} {found.card[key]}, not {wanted}")
    return found


def _bundled(arch: str, quality: int) -> Weights:
    name = f"{arch}-q{quality}.safetensors"
    entries = manifest()
    if name not in entries:
        have = bundled_qualities(arch)
        what = f"qualities {', '.join(map(str, have))}" if have else "none; bundled codecs: " + ", ".join(
            sorted({v["arch"] for v in entries.values()}))  # fmt: skip
        raise ValueError(f"no bundled weights for {arch} at quality {quality!r} (bundled for {arch}: {what}); "
                         "weights='zoo' has every quality of CompressAI's")  # fmt: skip
    path = checkpoints_dir() / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is listed in {MANIFEST} but missing: restore it with git checkout")
    return _read(path, "bundled", quality, entries[name]["sha256"])


def _zoo(arch: str, quality: int) -> Weights:
    urls = model_urls[arch]["mse"]
    if quality not in urls:
        raise ValueError(f"the zoo has no {arch} at quality {quality!r}: it has {', '.join(map(str, urls))}")
    mirror = os.environ.get("NIC_ZOO_URL")
    url = urls[quality].replace(ZOO_URL, mirror.rstrip("/")) if mirror else urls[quality]
    name = Path(urlparse(url).path).name
    digest = name.split(".")[0].rsplit("-", 1)[1]  # the zoo puts the first 8 hex digits of the SHA-256 into the name
    folder = data_dir() / "zoo"
    path = folder / name
    fetched = not path.is_file()
    if fetched:
        try:  # pooch writes to a temporary file and moves it: an interrupted download leaves nothing behind
            pooch.retrieve(url, known_hash=None, fname=name, path=folder)
        except Exception as error:
            raise ConnectionError(
                f"cannot fetch {url} ({type(error).__name__}: {error}). Use weights='bundled', or download the file "
                f"elsewhere and put it in {folder}, or pass its path as weights."
            ) from error
    try:
        return _read(path, "zoo", quality, digest)
    except ValueError:
        if fetched:
            path.unlink()
        raise


def _read(path: Path, source: str, quality: int, expected: str | None = None) -> Weights:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and not digest.startswith(expected):
        raise ValueError(
            f"{path} is damaged or not the file it should be: its SHA-256 begins {digest[:12]}, expected {expected[:12]}. "
            + ("Restore it with git checkout." if source == "bundled" else "It is fetched again once it is gone.")
        )
    card: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as f:
                card = f.metadata() or {}
                state = {k: f.get_tensor(k).float() for k in f.keys()}  # noqa: SIM118
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state.get("model", state))
            state = load_pretrained(state)
            if any(k.startswith("entropy_bottleneck.") for k in state):
                state = remap_old_keys("entropy_bottleneck", state)
    except (SafetensorError, OSError, RuntimeError, ValueError, AttributeError, EOFError) as error:
        raise ValueError(f"{path} holds no codec weights: {error}") from error
    except Exception as error:  # pickle's own errors, among them its refusal of anything that is not a tensor
        raise ValueError(f"{path} cannot be loaded safely: {type(error).__name__}: {error}") from error
    state = {k: v for k, v in state.items() if not any(part in k for part in _REBUILT)}
    return Weights(state, source, path.name, digest, float(card.get("lmbda", LAMBDAS.get(quality, float("nan")))), card)


def save_weights(path: Path, state: dict[str, Tensor], card: dict[str, str]) -> str:
    """Write a codec's parameters as half-precision safetensors; returns the file's SHA-256.

    (I)GDN's β, γ and the entropy bottleneck stay in float32. ``card`` goes into the file's header.
    """
    kept = {}
    for name, value in state.items():
        if any(part in name for part in _REBUILT) or name.endswith(".mask"):
            continue
        full = any(part in name for part in _FULL_PRECISION)
        kept[name] = value.detach().cpu().to(torch.float32 if full else torch.float16).contiguous()
    temporary = path.with_name(path.name + ".part")
    save_file(kept, temporary, metadata={k: str(v) for k, v in card.items()})
    temporary.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bundle(path: Path, arch: str, quality: int) -> None:
    """Add (or renew) a file of the bundled set in the manifest."""
    listing = checkpoints_dir() / MANIFEST
    entries = json.loads(listing.read_text()) if listing.is_file() else {}
    entries[path.name] = {"arch": arch, "quality": quality, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    listing.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
