"""Where a codec's weights come from: the bundled files, CompressAI's model zoo, or a file of the user's.

Every file is checked by its SHA-256 before it is used, and is read either as safetensors or with
``torch.load(weights_only=True)``: loading weights never runs code from the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pooch
from compressai.zoo.image import model_urls
from compressai.zoo.image import root_url as ZOO_URL
from compressai.zoo.image_vbr import model_urls as variable_rate_urls

from nic_helpers.codecs import authors
from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.checkpoints import Weights, read_weights
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.settings import data_dir

MANIFEST = "manifest.json"
CONTROL = "control"  # the folder of weights that are no codec's own: a control's (data/recipes/README.md)
METRICS = ("mse", "ms-ssim")  # the zoo's words for the distortion that weights were trained for
#: A name as the zoo gives it; what update_model of CompressAI writes ends alike, in the hash.
_ZOO_NAME = re.compile(
    rf"(?P<arch>{'|'.join(sorted(ARCHITECTURES, key=len, reverse=True))})(-prior)?(-(?P<metric>mse|ms-ssim))?"
    r"(-q?(?P<quality>\d+|vbr))?(-[0-9a-f]{8})?"
)
_HASH_IN_NAME = re.compile(r".+-(?!20\d\d(?:0[1-9]|1[0-2])[0-3]\d\.)(?P<hash>[0-9a-f]{8})\.pth(\.tar)?")  # which a date is not
_RANDOM = ("default", "random")
#: Sets of weights in this repository beside the bundled ones, each in a folder of its own: name -> where their training may have
#: begun. Two families that began from random weights: CompressAI's own, and ones that keep the variance from layer to layer. Those
#: trained on under attack (nic_helpers/training/adversarial.py): on rate and distortion jointly, from either start; and, for comparison,
#: on one of the two alone, on FTDA's samples, or with the gradient's norm held down.
COLLECTIONS = {
    "random-start": _RANDOM,
    "random-start-2": _RANDOM,
    "robust": ("pca",),
    "robust-random-start": _RANDOM,
    "robust-rate": ("pca",),
    "robust-distortion": ("pca",),
    "robust-ftda": ("pca",),
    "robust-gradient": ("pca",),
    "trained-on": ("pca",),  # for as many steps, on clean images: the control
}


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
        raise FileNotFoundError(
            f"no bundled weights: {path} is missing. Install from a clone (pip install -e .) or "
            "set NIC_DATA_DIR to the clone's data folder."
        )
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
        raise ValueError(
            f"weights of {collection} must begin from {' or '.join(map(repr, allowed))}, these begin from {start!r}: "
            "give the first run of the chain another start, or put them elsewhere"
        )


def load_weights(
    arch: str, quality: int, weights: str | Path = "bundled", *, lmbda: float | None = None, metric: str | None = None
) -> Weights:
    """Weights for one codec: ``"bundled"``, one of ``COLLECTIONS`` (such as ``"random-start"``), ``"zoo"`` (downloaded once),
    ``"control/NAME"``, ``"authors:PATH"`` (a file as the architecture's authors published it), or the path of a file.

    The control's are one hyperprior trained from two starts: "control/pca" at quality 3, "control/random" at quality 4. A
    file is either ours (``.safetensors``) or a checkpoint of CompressAI's models as trainers leave them (a state dict, plain or
    inside other dicts, with prefixes before its names or without). ``lmbda`` and ``metric`` ("mse" or "ms-ssim") say what loss a
    file's weights were trained for, where its card, or the zoo's list, does not. A λ that nobody says is NaN, with a warning.
    Raises ValueError for an unknown codec, quality or a wrong hash (with what there is), for a file that is not what is asked for by
    its card, name or hash, and for weights that are not finite; FileNotFoundError for a missing file, ConnectionError when the
    zoo cannot be reached.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f"weights must be a name such as 'bundled', or the path of a file, got {type(weights).__name__}: what is in "
            "memory is saved first, with torch.save(model.state_dict(), path)"
        )
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
    if str(weights).startswith(authors.PREFIX):
        found = authors.load_authors(ARCHITECTURES[arch], Path(str(weights).removeprefix(authors.PREFIX)), quality)
        return _agreed(replace(found, metric=metric or "mse"), lmbda, metric)
    control = _control()
    named = control.get(str(weights))
    path = checkpoints_dir() / f"{weights}.safetensors" if named else Path(weights)
    if not path.is_file():
        have = ", ".join(map(repr, ("bundled", "zoo", *control)))
        raise FileNotFoundError(f"no weights at {path}: weights must be {have} or the path of a file")
    if not 0 < quality < 256:
        raise ValueError(f"the quality of a file's weights is a number from 1 to 255, got {quality!r}")
    hashed = None if named else _HASH_IN_NAME.fullmatch(path.name)
    found = _read(path, str(weights) if named else "file", arch, quality, hashed["hash"] if hashed else named)
    listed = _in_the_zoo(arch, found.sha256)
    asked = {"arch": arch, "quality": str(quality), "metric": metric}
    if ARCHITECTURES[arch].variable:
        del asked["quality"]
    for where, says in (("card", found.card), ("name", _name_says(path)), ("hash", listed)):
        for key, wanted in asked.items():
            if wanted and says.get(key, wanted) != wanted:
                raise ValueError(
                    f"by its {where}, {path} holds weights of {key} {says[key]}, not {wanted}: ask for that, or rename it "
                    "if its name is wrong"
                )
        asked["metric"] = asked["metric"] or says.get("metric")
    if listed.get("metric") == "mse":
        found = replace(found, lmbda=LAMBDAS[quality])
    return _agreed(replace(found, metric=asked["metric"] or "mse"), lmbda, metric)


def _read(path: Path, source: str, arch: str, quality: int, expected: str | None) -> Weights:
    """A file's weights as those of a quality: a variable-rate codec's, whose card has its highest, were trained for all of them."""
    found = read_weights(path, source, quality, expected)
    return replace(found, lmbda=LAMBDAS[quality]) if found.card and ARCHITECTURES[arch].variable else found


def _agreed(found: Weights, lmbda: float | None, metric: str | None) -> Weights:
    """Weights with the λ that they say themselves or the caller says; ValueError where the two differ."""
    if metric not in (None, found.metric):
        raise ValueError(
            f"{found.file} ({found.source}) was trained for {found.metric}, not {metric}: pass the path of a file that was"
        )
    if found.metric != "mse":
        if lmbda is not None:
            raise ValueError(f"{found.file} was trained for {found.metric}: lmbda is that of R + λ·255²·MSE, leave it out")
        return replace(found, lmbda=math.nan)
    if math.isnan(found.lmbda):
        if lmbda is None:
            warnings.warn(
                f"{found.file} does not say which λ it was trained for, nor does a quality: what weighs rate and "
                "distortion (Joint, SRDA, ARDA) needs it, as load_codec(…, lmbda=…)",
                stacklevel=4,
            )
            return found
        return replace(found, lmbda=float(lmbda))
    if lmbda is not None and not math.isclose(lmbda, found.lmbda, rel_tol=1e-3):
        raise ValueError(f"{found.file} ({found.source}) was trained with λ = {found.lmbda:g}, not {lmbda:g}: leave lmbda out")
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
    for metric, files in urls.get(arch, {}).items():
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
        what = (
            f"qualities {_listed(have)}"
            if have
            else f"none; {collection} codecs: " + (", ".join(sorted({v["arch"] for v in entries.values()})) or "none yet")
        )
        raise ValueError(
            f"no {collection} weights for {arch} at quality {quality!r} ({collection} for {arch}: {what}); "
            + (
                "weights='zoo' has every quality that CompressAI trained for MSE"
                if in_zoo(arch)
                else f"weights='{authors.PREFIX}PATH' takes what its authors published"
            )
        )
    path = _folder(collection) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is listed in {MANIFEST} but missing: restore it with git checkout")
    found = _read(path, collection, arch, quality, entries[name]["sha256"])
    check_origin(collection, first_start(found))
    return found


def bundled_path(arch: str, quality: int, collection: str = "bundled") -> Path:
    """Where the file of a codec's weights of this repository lies; ValueError, with what there is, for those it has not got."""
    if quality not in bundled_qualities(arch, collection):
        _bundled(arch, quality, collection)  # which says so
    return _folder(collection) / bundled_name(arch, quality)


def first_start(weights: Weights) -> str:
    """Where the training of weights began, as their card says: "pca", "random" or "default"."""
    return json.loads(weights.card.get("stages", "[{}]"))[0].get("start", "unknown")


def in_zoo(arch: str) -> bool:
    """Whether CompressAI's zoo has weights of an architecture."""
    return arch in (variable_rate_urls if ARCHITECTURES[arch].variable else model_urls)


def _zoo_file(arch: str, quality: int) -> tuple[str, str]:
    """The address of the zoo's weights, and what their SHA-256 begins with."""
    if not in_zoo(arch):
        raise ValueError(f"the zoo has no {arch}: weights='{authors.PREFIX}PATH' takes what its authors published")
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


def bundle(path: Path, arch: str, quality: int, collection: str = "bundled") -> Path:
    """Copy a file of weights into the bundled set, or into one of ``COLLECTIONS``, and list it in the manifest there; returns
    its new path.

    ``quality``: the one it was trained for, or a variable-rate codec's highest.
    """
    target = _folder(collection) / bundled_name(arch, quality)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_origin(collection, first_start(read_weights(path)))
    if path.resolve() != target.resolve():
        shutil.copyfile(path, target)
    listing = target.parent / MANIFEST
    entries = json.loads(listing.read_text()) if listing.is_file() else {}
    qualities = list(range(1, quality + 1)) if ARCHITECTURES[arch].variable else [quality]
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    entries[target.name] = {"arch": arch, "qualities": qualities, "sha256": digest}
    listing.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
    return target
