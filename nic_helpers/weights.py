"""Where a codec's weights come from: the bundled files, CompressAI's model zoo, or a file of the user's.

Every file is checked by its SHA-256 before it is used, and is read either as safetensors or with
``torch.load(weights_only=True)``: loading weights never runs code from the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlparse

import pooch
import torch
from compressai.models.utils import remap_old_keys
from compressai.zoo.image import model_urls
from compressai.zoo.image import root_url as ZOO_URL
from compressai.zoo.image_vbr import model_urls as variable_rate_urls
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
#: Kept in float32 in a half-precision file: (I)GDN's, stored as square roots with floors below half's normal range, and
#: what quantisation itself depends on.
_FULL_PRECISION = ("beta", "gamma", "entropy_bottleneck.", "Gain", "QuantABCD", "gayn2zqstep")
#: Kept as 8-bit integers with a scale for each row: what tolerates it. The networks that only predict probabilities: on
#: photographs this costs at most 0.1 % of the rate, but 1.3 % in mbt2018's entropy parameters, which stay in half
#: precision. And the residual branches of Cheng2020's transforms, added to a path that stays in half precision: less than
#: 0.05 % of the loss. On that path, or in the plain transforms, 8 bits would cost 0.3 dB at quality 6 and more.
_PREDICTION = ("h_a.", "h_s.", "context_prediction.", "entropy_parameters.")
_BRANCH = re.compile(r"(?P<block>g_[as]\.\d+)\.(conv1|conv2|conv|subpel_conv\.0|conv_[ab]\..*)\.weight")
_SCALE = ".scale"
_CAUSAL_TAPS = 12  # of the context model's 5×5 window, in raster order: the rest is masked, and not stored
MANIFEST = "manifest.json"
CONTROL = "control"  # the folder of weights that are no codec's own: a control's (data/recipes/README.md)
METRICS = ("mse", "ms-ssim")  # the zoo's words for the distortion that weights were trained for
#: A name as the zoo gives it; what update_model of CompressAI writes ends alike, in the hash.
_ZOO_NAME = re.compile(rf"(?P<arch>{'|'.join(sorted(ARCHITECTURES, key=len, reverse=True))})(-prior)?(-(?P<metric>mse|ms-ssim))?"
                       r"(-q?(?P<quality>\d+|vbr))?(-[0-9a-f]{8})?")  # fmt: skip
_HASH_IN_NAME = re.compile(
    r".+-(?!20\d\d(?:0[1-9]|1[0-2])[0-3]\d\.)(?P<hash>[0-9a-f]{8})\.pth(\.tar)?"
)  # which a date is not
_WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put before parameters' names
_AVERAGED = re.compile("ema|aver|shadow|teacher|swa", re.IGNORECASE)
#: Sets of weights in this repository beside the bundled ones, each in a folder of its own: name -> where their training may have
#: begun. Two families that began from random weights: CompressAI's own, and ones that keep the variance from layer to layer.
COLLECTIONS = {"random-start": ("default", "random"), "random-start-2": ("default", "random")}


@dataclass(frozen=True)
class Weights:
    """A codec's parameters and where they came from."""

    state: dict[str, Tensor] = field(repr=False)
    source: str  # "bundled", another of this repository's sets, "zoo", "control/…" or "file"
    file: str
    sha256: str
    lmbda: float  # of the loss R + λ·255²·MSE; NaN where it is not known, or the loss another
    card: dict[str, str] = field(default_factory=dict, repr=False)
    metric: str = "mse"  # the distortion it was trained for

    @property
    def widths(self) -> tuple[int, ...]:
        """N and M (the arguments of ``Architecture.build``), read off the tensors' shapes."""
        if "g_a.0.conv1.weight" in self.state:
            return self.state["g_a.0.conv1.weight"].size(0), self.state["h_a.0.weight"].size(1)
        return self.state["g_a.0.weight"].size(0), self.state["g_a.6.weight"].size(0)


def checkpoints_dir() -> Path:
    """The folder of the bundled weights."""
    return data_dir() / "checkpoints"


def _folder(collection: str) -> Path:
    """Where a set of weights of this repository lies: "bundled" or one of ``COLLECTIONS``."""
    return checkpoints_dir() / ("" if collection == "bundled" else collection)


def manifest(collection: str = "bundled") -> dict[str, dict]:
    """The files of "bundled" or of one of ``COLLECTIONS``: name -> {"arch", "qualities", "sha256"}."""
    path = _folder(collection) / MANIFEST
    if not path.is_file():
        if collection != "bundled" and (checkpoints_dir() / MANIFEST).is_file():
            return {}  # none trained yet
        raise FileNotFoundError(f"no bundled weights: {path} is missing. Install from a clone (pip install -e .) or "
                                "set NIC_DATA_DIR to the clone's data folder.")  # fmt: skip
    return json.loads(path.read_text())


def bundled_qualities(arch: str, collection: str = "bundled") -> list[int]:
    """The qualities of an architecture whose weights are in this repository ("bundled" or one of ``COLLECTIONS``)."""
    return sorted(q for v in manifest(collection).values() if v["arch"] == arch for q in v["qualities"])


def check_origin(collection: str, start: str) -> None:
    """ValueError if weights whose training began from ``start`` ("pca", "random" or "default") are none of ``collection``'s."""
    if collection and collection not in ("bundled", *COLLECTIONS):
        raise ValueError(f"no set of weights is named {collection!r}: there are bundled, {', '.join(COLLECTIONS)}")
    allowed = COLLECTIONS.get(collection)
    if allowed and start not in allowed:
        raise ValueError(f"weights of {collection} must begin from {' or '.join(map(repr, allowed))}, these begin from {start!r}: "
                         "give the first run of the chain another start, or put them elsewhere")  # fmt: skip


def load_weights(arch: str, quality: int, weights: str | Path = "bundled", *, lmbda: float | None = None,
                 metric: str | None = None) -> Weights:  # fmt: skip
    """Weights for one codec: ``"bundled"``, one of ``COLLECTIONS`` (such as ``"random-start"``), ``"zoo"`` (downloaded once),
    ``"control/NAME"``, or the path of a file.

    The control's are one hyperprior trained from two starts: "control/pca" at quality 3, "control/random" at quality 4. A
    file is either ours (``.safetensors``) or a checkpoint of CompressAI's models as trainers leave them (a state dict, plain or
    inside other dicts, with prefixes before its names or without). ``lmbda`` and ``metric`` ("mse" or "ms-ssim") say what loss a
    file's weights were trained for, where its card, or the zoo's list, does not. A λ that nobody says is NaN, with a warning.
    Raises ValueError for an unknown codec, quality or a wrong hash (with what there is), for a file that is not what is asked for by
    its card, name or hash, and for weights that are not finite; FileNotFoundError for a missing file, ConnectionError when the
    zoo cannot be reached.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"weights must be a name such as 'bundled', or the path of a file, got {type(weights).__name__}: what is in "
                        "memory is saved first, with torch.save(model.state_dict(), path)")  # fmt: skip
    if metric not in (None, *METRICS):
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if lmbda is not None and not (isinstance(lmbda, (int, float)) and 0 < lmbda < math.inf):
        raise ValueError(f"lmbda, the λ of R + λ·255²·MSE, must be a positive number, got {lmbda!r}")
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown codec {arch!r}: there are {', '.join(ARCHITECTURES)}")
    if ARCHITECTURES[arch].variable and quality not in ARCHITECTURES[arch].qualities:
        raise ValueError(f"{arch} has the qualities {_listed(ARCHITECTURES[arch].qualities)}, not {quality!r}")
    if weights == "bundled" or weights in COLLECTIONS:
        return _agreed(_bundled(arch, quality, weights), lmbda, metric)
    if weights == "zoo":
        return _agreed(_zoo(arch, quality), lmbda, metric)
    control = _control()
    named = control.get(str(weights))
    path = checkpoints_dir() / f"{weights}.safetensors" if named else Path(weights)
    if not path.is_file():
        have = ", ".join(map(repr, ("bundled", "zoo", *control)))
        raise FileNotFoundError(f"no weights at {path}: weights must be {have} or the path of a file")
    if not 0 < quality < 256:
        raise ValueError(f"the quality of a file's weights is a number from 1 to 255, got {quality!r}")
    hashed = None if named else _HASH_IN_NAME.fullmatch(path.name)
    found = read_weights(path, str(weights) if named else "file", quality, hashed["hash"] if hashed else named)
    listed = _in_the_zoo(arch, found.sha256)
    asked = {"arch": arch, "quality": str(quality), "metric": metric}
    if ARCHITECTURES[arch].variable:
        del asked["quality"]
    for where, says in (("card", found.card), ("name", _name_says(path)), ("hash", listed)):
        for key, wanted in asked.items():
            if wanted and says.get(key, wanted) != wanted:
                raise ValueError(f"by its {where}, {path} holds weights of {key} {says[key]}, not {wanted}: ask for that, or rename it "
                                 "if its name is wrong")  # fmt: skip
        asked["metric"] = asked["metric"] or says.get("metric")
    if listed.get("metric") == "mse":
        found = replace(found, lmbda=LAMBDAS[quality])
    return _agreed(replace(found, metric=asked["metric"] or "mse"), lmbda, metric)


def _agreed(found: Weights, lmbda: float | None, metric: str | None) -> Weights:
    """Weights with the λ that they say themselves or the caller says; ValueError where the two differ."""
    if metric not in (None, found.metric):
        raise ValueError(
            f"{found.file} ({found.source}) was trained for {found.metric}, not {metric}: pass the path of a file that was"
        )
    if found.metric != "mse":
        if lmbda is not None:
            raise ValueError(
                f"{found.file} was trained for {found.metric}: lmbda is that of R + λ·255²·MSE, leave it out"
            )
        return replace(found, lmbda=math.nan)
    if math.isnan(found.lmbda):
        if lmbda is None:
            warnings.warn(f"{found.file} does not say which λ it was trained for, nor does a quality: what weighs rate and "
                          "distortion (Joint, SRDA, ARDA) needs it, as load_codec(…, lmbda=…)", stacklevel=4)  # fmt: skip
            return found
        return replace(found, lmbda=float(lmbda))
    if lmbda is not None and not math.isclose(lmbda, found.lmbda, rel_tol=1e-3):
        raise ValueError(
            f"{found.file} ({found.source}) was trained with λ = {found.lmbda:g}, not {lmbda:g}: leave lmbda out"
        )
    return found


def _name_says(path: Path) -> dict[str, str]:
    """The codec, quality and metric in a file's name, where it has the zoo's form."""
    stem = path.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors").replace("_", "-")
    match = _ZOO_NAME.fullmatch(stem)
    says = {k: v for k, v in match.groupdict().items() if v} if match else {}
    if says.get("quality") == "vbr":
        says["arch"] += f"-{says.pop('quality')}"
    return says


def _in_the_zoo(arch: str, sha256: str) -> dict[str, str]:
    """Which quality and metric the zoo has this very file for; empty where it has none."""
    urls = variable_rate_urls if ARCHITECTURES[arch].variable else model_urls
    for metric, files in urls[arch].items():
        for quality, url in (files if isinstance(files, dict) else {"": files}).items():
            if _hash_of(url) == sha256[:8]:
                return {"metric": metric, "quality": str(quality)}
    return {}


def _hash_of(url: str) -> str:
    """The first 8 hex digits of the SHA-256, which the zoo puts into a file's name."""
    return Path(urlparse(url).path).name.split(".")[0].rsplit("-", 1)[1]


def _control() -> dict[str, str]:
    """The control's weights: "control/NAME" -> SHA-256."""
    path = checkpoints_dir() / CONTROL / MANIFEST
    listed = json.loads(path.read_text()) if path.is_file() else {}
    return {f"{CONTROL}/{name}": digest for name, digest in listed.items()}


def expected_sha256(arch: str, quality: int, weights: str | Path = "bundled") -> str:
    """What the SHA-256 of a codec's weights must begin with, as far as that is known without loading them: all of it for the
    bundled ones and a file's, eight digits for the zoo's (which has them in its names)."""
    if weights == "bundled" or weights in COLLECTIONS:
        entry = manifest(weights).get(bundled_name(arch, quality))
        return entry["sha256"] if entry else _bundled(arch, quality, weights).sha256  # which says what there is
    if weights == "zoo":
        return _zoo_file(arch, quality)[1]
    return load_weights(arch, quality, weights).sha256


def bundled_name(arch: str, quality: int) -> str:
    """The file name of bundled weights: one for each quality, or one for all of a variable-rate codec's."""
    return f"{arch}.safetensors" if ARCHITECTURES[arch].variable else f"{arch}-q{quality}.safetensors"


def _listed(qualities) -> str:
    return ", ".join(map(str, qualities))


def _bundled(arch: str, quality: int, collection: str = "bundled") -> Weights:
    name = bundled_name(arch, quality)
    entries = manifest(collection)
    have = bundled_qualities(arch, collection)
    if quality not in have:
        what = f"qualities {_listed(have)}" if have else f"none; {collection} codecs: " + (", ".join(
            sorted({v["arch"] for v in entries.values()})) or "none yet")  # fmt: skip
        raise ValueError(f"no {collection} weights for {arch} at quality {quality!r} ({collection} for {arch}: {what}); "
                         "weights='zoo' has every quality that CompressAI trained for MSE")  # fmt: skip
    path = _folder(collection) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is listed in {MANIFEST} but missing: restore it with git checkout")
    found = read_weights(path, collection, quality, entries[name]["sha256"])
    check_origin(collection, _first_start(found))
    return found


def _first_start(weights: Weights) -> str:
    """Where the training of weights began, as their card says: "pca", "random" or "default"."""
    return json.loads(weights.card.get("stages", "[{}]"))[0].get("start", "unknown")


def _zoo_file(arch: str, quality: int) -> tuple[str, str]:
    """The address of the zoo's weights, and what their SHA-256 begins with."""
    if ARCHITECTURES[arch].variable:
        url = variable_rate_urls[arch]["mse"]
    else:
        urls = model_urls[arch]["mse"]
        if quality not in urls:
            raise ValueError(f"the zoo has no {arch} at quality {quality!r}: it has {_listed(urls)}")
        url = urls[quality]
    mirror = os.environ.get("NIC_ZOO_URL")
    url = url.replace(ZOO_URL, mirror.rstrip("/")) if mirror else url
    return url, _hash_of(url)


def _zoo(arch: str, quality: int) -> Weights:
    url, digest = _zoo_file(arch, quality)
    name = Path(urlparse(url).path).name
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
        return read_weights(path, "zoo", quality, digest)
    except ValueError:
        if fetched:
            path.unlink()
        raise


def read_weights(path: Path, source: str = "file", quality: int = 0, expected: str | None = None) -> Weights:
    """A file's parameters, after its SHA-256 was found to begin with ``expected``; ValueError where they are not all finite.

    Its λ is what its card says; without one, that of ``quality``, or for a "file" NaN.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and not digest.startswith(expected):
        todo = {"zoo": "It is fetched again once it is gone.",
                "file": "Its name says so: get it anew, or rename it if those digits are no hash."}  # fmt: skip
        raise ValueError(
            f"{path} is damaged or not the file it should be: its SHA-256 begins {digest[:12]}, expected {expected[:12]}. "
            + todo.get(source, "Restore it with git checkout.")
        )
    state, card = _opened(path)
    state = {k: v for k, v in state.items() if not any(part in k for part in _REBUILT)}
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(f"{path}: {count} of the {value.numel()} values of {name} are NaN or infinite. Its training diverged, or "
                             "its half precision overflowed: take an earlier checkpoint")  # fmt: skip
    lmbda = math.nan if source == "file" else LAMBDAS.get(quality, math.nan)
    if "lmbda" in card:  # a variable-rate codec is trained for all of them
        lmbda = LAMBDAS.get(quality, math.nan) if "Gain" in state else float(card["lmbda"])
    return Weights(state, source, path.name, digest, lmbda, card)


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A codec's parameters in a file, and its card; ValueError, saying what to do, for a file that holds none."""
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS and not the file itself: fetch that with git lfs pull")
    if head.startswith((b"<!", b"<html", b"<?xml")):
        raise ValueError(f"{path} is a web page and no checkpoint: download the file itself")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as f:
                state = _unpacked({k: f.get_tensor(k) for k in f.keys()})  # noqa: SIM118
                return _codec_state(state, path), f.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # plain values: what trainers keep their options in
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # pickle's, zip's and torch's own, among them the refusal of anything that is not a tensor
        refused = re.search(r"GLOBAL (\S+)", str(error))
        # torch's message advises to load without weights_only, which would run the file's code: it is not passed on
        raise ValueError(
            f"{path} cannot be loaded safely: it holds a Python object ({refused[1]}) beside its tensors or in their place, and loading "
            "that could run code from the file. Where it was trained, save the tensors alone: torch.save(model.state_dict(), path)"
            if refused else f"{path} is no checkpoint, or a damaged one ({type(error).__name__}): get it anew"
        ) from None  # fmt: skip
    state = load_pretrained(_codec_state(content, path))
    if "Gain" not in state and any(k.startswith("entropy_bottleneck.") for k in state):
        state = remap_old_keys("entropy_bottleneck", state)
    return state, {}


def _codec_state(content, path: Path) -> dict[str, Tensor]:
    """A codec's parameters in what a checkpoint holds: the first set that is no average of others."""
    found = _states(content)
    if not found:
        what = (
            f"its keys are {', '.join(map(str, list(content)[:12]))}"
            if isinstance(content, Mapping)
            else f"it is a {type(content).__name__}"
        )
        raise ValueError(f"{path} holds no codec's weights: no g_a.0.weight, {what}. Where it was trained, save the model's: "
                         "torch.save(model.state_dict(), path)")  # fmt: skip
    names = sorted(found, key=lambda name: bool(_AVERAGED.search(name)))
    if len(names) > 1:
        warnings.warn(f"{path} holds {len(names)} sets of weights ({', '.join(names)}): {names[0]} is taken. For another one, save it "
                      "alone", stacklevel=6)  # fmt: skip
    return found[names[0]]


def _states(content, at: str = "") -> dict[str, dict[str, Tensor]]:
    """Every set of a codec's parameters inside dicts, by where it lies, under the parameters' own names."""
    if not isinstance(content, Mapping):
        return {}
    tensors, found = {}, {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            found |= _states(value, f"{at}{key}.")
        elif value.dim() or value.is_floating_point():  # a counter is no parameter
            tensors[".".join(part for part in str(key).split(".") if part not in _WRAPPERS)] = value
    prefixes = dict.fromkeys(m[1] for k in tensors if (m := re.match(r"((?:.*\.)?)g_a\.\d", k)))
    for prefix in prefixes:
        others = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
        own = {
            k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and not k.startswith(others)
        }
        found[f"{at}{prefix}".rstrip(".") or "the file's own"] = own
    return found


def _unpacked(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`save_weights` stored, as float32 parameters of their own shapes."""
    state = {}
    for name, value in stored.items():
        if name.endswith(_SCALE):
            continue
        value = value.float()
        if name + _SCALE in stored:
            value = value * stored[name + _SCALE].view(-1, *[1] * (value.dim() - 1))
        if name == "context_prediction.weight" and value.dim() == 3:
            value = torch.nn.functional.pad(value, (0, 25 - _CAUSAL_TAPS)).unflatten(2, (5, 5))
        state[name] = value
    return state


def _in_8_bits(name: str, state: dict[str, Tensor]) -> bool:
    """Whether a parameter is one of those that are kept as 8-bit integers."""
    if state[name].dim() != 4:
        return False
    residual = "g_a.0.conv1.weight" in state
    if name.startswith(_PREDICTION):
        return residual or not name.startswith("entropy_parameters.")
    branch = _BRANCH.fullmatch(name)
    # a block that halves the size carries the signal through its main branch (see initialise.py): not that one
    return branch is not None and f"{branch['block']}.skip.weight" not in state


def save_weights(path: Path, state: dict[str, Tensor], card: dict[str, str]) -> str:
    """Write a codec's parameters compactly as safetensors; returns the file's SHA-256.

    The transforms in half precision, (I)GDN's β, γ and the entropy bottleneck in float32; in 8 bits with one scale a
    row the networks that predict probabilities and the residual branches of Cheng2020's transforms. ``card`` goes into
    the file's header.
    """
    kept = {}
    for name, value in state.items():
        if any(part in name for part in _REBUILT) or name.endswith(".mask"):
            continue
        value = value.detach().cpu().float()
        if _in_8_bits(name, state):
            if name == "context_prediction.weight":
                value = value.flatten(2)[:, :, :_CAUSAL_TAPS]
            scale = value.abs().flatten(1).amax(1).clamp_min(1e-12) / 127
            kept[name + _SCALE] = scale
            kept[name] = torch.round(value / scale.view(-1, *[1] * (value.dim() - 1))).to(torch.int8).contiguous()
        else:
            full = any(part in name for part in _FULL_PRECISION)
            kept[name] = value.to(torch.float32 if full else torch.float16).contiguous()
    temporary = path.with_name(path.name + ".part")
    save_file(kept, temporary, metadata={k: str(v) for k, v in card.items()})
    temporary.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bundle(path: Path, arch: str, quality: int, collection: str = "bundled") -> Path:
    """Copy a file of weights into the bundled set, or into one of ``COLLECTIONS``, and list it in the manifest there; returns
    its new path.

    ``quality``: the one it was trained for, or a variable-rate codec's highest.
    """
    target = _folder(collection) / bundled_name(arch, quality)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_origin(collection, _first_start(read_weights(path)))
    if path.resolve() != target.resolve():
        shutil.copyfile(path, target)
    listing = target.parent / MANIFEST
    entries = json.loads(listing.read_text()) if listing.is_file() else {}
    qualities = list(range(1, quality + 1)) if ARCHITECTURES[arch].variable else [quality]
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    entries[target.name] = {"arch": arch, "qualities": qualities, "sha256": digest}
    listing.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
    return target
