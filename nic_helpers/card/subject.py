"""What a card is about: a codec by "MODULE:FUNCTION", by "NAME:QUALITY", and the images that it is tried on."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from pathlib import Path

from torch import Tensor

from nic_helpers.codecs import load_codec
from nic_helpers.codecs.base import SMALLEST_SIDE, Codec, check_codec
from nic_helpers.codecs.load import codec_names
from nic_helpers.image_sets import ImageSet


class CardError(ValueError):
    """No card can be made of this; the message says why, and what to do."""


def codec_of(spec: str) -> Codec:
    """The codec that a spec names: "MODULE:FUNCTION" (the function takes nothing and returns a codec), or a bundled one as
    "bmshj2018-hyperprior:3" or "jpeg:50"."""
    name, colon, rest = spec.rpartition(":")
    if not colon or not name or not rest:
        raise CardError(f"{spec!r} names no codec: give MODULE:FUNCTION, such as my_codec:make, or NAME:QUALITY, such as jpeg:50")
    if name in codec_names():
        return _bundled(name, rest)
    made = _function(name, rest)
    try:
        codec = made()
    except Exception as error:
        raise CardError(f"{spec} raises {type(error).__name__}: {error}. It is called with no arguments") from error
    try:
        check_codec(codec)
    except TypeError as error:
        raise CardError(f"{spec} returns no codec: {error}") from error
    return codec


def _bundled(name: str, quality: str) -> Codec:
    try:
        number = float(quality)
        return load_codec(name, int(number) if number.is_integer() else number)
    except (ValueError, OSError) as error:
        raise CardError(f"{name}:{quality}: {error}") from error


def _function(module: str, function: str):
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a module in the folder where the command is typed
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        near = (
            f" If a bundled codec is meant: there are {', '.join(codec_names())}." if isinstance(error, ModuleNotFoundError) else ""
        )
        raise CardError(f"the module {module!r} cannot be imported ({error}): run the command in its folder.{near}") from error
    except Exception as error:
        raise CardError(f"importing {module!r} raises {type(error).__name__}: {error}") from error
    made = getattr(found, function, None)
    if not callable(made):
        has = sorted(n for n, v in vars(found).items() if inspect.isfunction(v) and v.__module__ == module)
        raise CardError(f"{module} has no function {function!r}: it has {', '.join(has) or 'none'}")
    return made


def origin(codec: Codec) -> str:
    """Where a codec comes from, with a hash: its weights', or that of the source file which defines it."""
    if codec.weights is not None:
        return f"weights {codec.weights.source}, SHA-256 {codec.weights.sha256[:12]}…"
    try:
        text = Path(inspect.getfile(type(codec))).read_bytes()
        return f"class {type(codec).__name__}, SHA-256 of its file {hashlib.sha256(text).hexdigest()[:12]}…"
    except (OSError, TypeError):  # defined in a notebook's cell
        return f"class {type(codec).__name__}, defined in no file"


def images_of(source: str, crop: int | None, most: int) -> dict[str, Tensor]:
    """The first ``most`` images of "bundled", "kodak" or a folder, by name, their centre of ``crop`` pixels a side."""
    if source not in ("bundled", "kodak") and not Path(source).is_dir():
        raise CardError(f"{source} is no folder: give --images a folder of image files, or the word bundled")
    try:
        images = ImageSet(source, crop=crop).read(most)
    except (OSError, ValueError) as error:
        raise CardError(f"no images to work with: {error}") from error
    small = [n for n, x in images.items() if min(x.shape[1:]) < SMALLEST_SIDE]
    if small:
        raise CardError(f"{', '.join(small)}: smaller than {SMALLEST_SIDE} pixels a side, which is too small for a card")
    return images
