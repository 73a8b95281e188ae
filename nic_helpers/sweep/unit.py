"""A unit of a study: the smallest piece of work that can be done, lost and done again alone, on this machine or another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import compressai
import imageio_ffmpeg
import pandas as pd
import PIL
import torch
from torch import Tensor

from nic_helpers import __version__
from nic_helpers.attacks.base import Attack, AttackResult
from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.base import Coded
from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.codecs.load import load_codec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import expected_sha256
from nic_helpers.image_sets import ImageSet
from nic_helpers.images import pixels_sha256
from nic_helpers.memory import forget_peak, keep_recent, peak_mib
from nic_helpers.metrics import QUALITIES, before_after
from nic_helpers.settings import get_device
from nic_helpers.sweep.faced import Faced
from nic_helpers.sweep.program import program_sha256

SAME = 1e-4  # between a decoded image and the encoder's: a batch's last digits differ from an image's; a level is 4e-3
KEPT = 2**28  # bytes of images, and as many of their reconstructions, that a worker keeps for its next unit
CodecAt = tuple[str, float]  # a codec's name and quality
#: What an attack's settings do is part of what a row is: raised where the same settings come to mean another attack, so that rows
#: of before never count as done. 2: the gradient stops at the output clamp.
EDITION = 2


@dataclass(frozen=True)
class Unit:
    """One piece of a study: ``attack`` on the codecs ``attacked`` (several: together), for the named images, measured on
    each of ``measured``. ``key``: what its rows are stored under."""

    attacked: tuple[CodecAt, ...]
    measured: tuple[CodecAt, ...]
    label: str
    name: str
    attack: Attack
    objective_name: str
    objective: object | None
    defence: str
    defend: Callable | None = field(repr=False)
    weights: str
    source: str
    crop: int | None
    images: tuple[str, ...]
    verify: int
    fingerprint: str = field(repr=False)  # of the weights and the images
    measures: tuple[str, ...] = tuple(QUALITIES)

    @functools.cached_property
    def key(self) -> str:
        """20 hexadecimal digits that stand for the settings, weights and pixels that this unit's rows depend on, and for the
        edition of what the settings mean."""
        parts = [
            EDITION,
            self.attacked,
            self.measured,
            self.name,
            said(self.attack),
            self.objective_name,
            said(self.objective),
            self.defence,
            said(self.defend),
            self.weights,
            self.source,
            self.crop,
            self.images,
            self.fingerprint,
            *([] if self.measures == tuple(QUALITIES) else [self.measures]),  # not in the keys of rows that have all
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    @property
    def rows(self) -> int:
        """How many rows it will have."""
        return len(self.images) * len(self.measured)

    def __str__(self) -> str:
        what = f"{self.name} ({self.objective_name})" if self.objective_name else self.name
        return f"{what} at {255 * self.attack.eps:g}/255 on {self.label}, {self.images[0]} and {len(self.images) - 1} more"


#: Where functions and classes that a study may name lay when the first rows were made: by that they are known in keys.
FIRST_PLACES = {"nic_helpers.attacks.adaptive.BPDA": "nic_helpers.through.BPDA"}
#: ``field(…, metadata=UNLESS_DEFAULT)``: a setting that came later, and is in no key where it has its default.
UNLESS_DEFAULT = {"said": "unless default"}


def said(part) -> str:
    """A part of a unit as text that is the same in every process, and stays the same where a setting is added with
    :data:`UNLESS_DEFAULT`; of plain values and dataclasses their ``repr``."""
    if inspect.isfunction(part) or inspect.isclass(part):
        if "<" in part.__qualname__:
            raise ValueError(
                f"{part.__qualname__}: give a module's function or a frozen dataclass; this one has no name "
                "by which another process could find it"
            )
        name = f"{part.__module__}.{part.__qualname__}"
        return FIRST_PLACES.get(name, name)
    if dataclasses.is_dataclass(part):
        return f"{type(part).__qualname__}({', '.join(f'{f.name}={said(getattr(part, f.name))}' for f in _said_fields(part))})"
    if type(part) is tuple:
        return f"({', '.join(map(said, part))}{',' * (len(part) == 1)})"
    text = repr(part)
    if " at 0x" in text:
        raise ValueError(f"{text} has no text that is the same in every process: make it a frozen dataclass")
    return text


def _said_fields(part) -> Iterator[dataclasses.Field]:
    for f in dataclasses.fields(part):
        late = f.metadata.get("said") == UNLESS_DEFAULT["said"]
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if f.repr and not (late and getattr(part, f.name) == default):
            yield f


@functools.lru_cache(maxsize=4)
def images_of(source: str, crop: int | None) -> Mapping[str, Tensor]:
    """A grid's images by name: read, and cropped, where one is asked for."""
    return ImageSet(source, crop=crop)


@functools.lru_cache(maxsize=4096)
def pixels_digest(source: str, crop: int | None, name: str) -> str:
    """The hash of one image's pixels."""
    return pixels_sha256(images_of(source, crop)[name])


@keep_recent(KEPT)
def image_of(source: str, crop: int | None, name: str) -> Tensor:
    """One image of a grid, kept for the units that follow."""
    return images_of(source, crop)[name]


def weights_sha256_of(name: str, quality: float, weights: str) -> str:
    """What the hash of a codec's weights must be, as far as that is known without loading them; of a codec of one's own, its module's."""
    if ":" in name:  # what its commands are is in the module's text
        return hashlib.sha256(inspect.getsource(importlib.import_module(name.partition(":")[0])).encode()).hexdigest()
    return "" if name in CLASSICAL else expected_sha256(name, int(quality), weights)


def fingerprint_of(weights: str, codecs: Sequence[CodecAt]) -> str:
    """The hashes of several codecs' weights, one after the other."""
    return "".join(weights_sha256_of(n, q, weights) for n, q in codecs)


def expected_gradients(attack: Attack, objective=None) -> float:
    """Gradient evaluations of an attack on one image, from its settings (a query counts as a third of one). ``objective``: as in a
    call of the attack."""
    if not attack.needs_gradient:
        return getattr(attack, "queries", 0) / 3
    return attack.planned_gradients(objective)


def relative_cost(unit: Unit) -> float:
    """How long a unit takes beside others: gradient evaluations and codings, weighed by what a codec's layers cost."""

    def weight(name: str) -> float:
        return ARCHITECTURES[name].activations / Architecture.activations if name in ARCHITECTURES else 1.0

    attack = expected_gradients(unit.attack, unit.objective) * sum(weight(n) for n, _ in unit.attacked)
    return len(unit.images) * (attack + 4 * sum(weight(n) for n, _ in unit.measured))


@functools.lru_cache(maxsize=64)
def codec_at(name: str, quality: float, weights: str):
    """A codec, loaded once in each process."""
    if name in ARCHITECTURES:
        return load_codec(name, int(quality), weights)
    if ":" in name:
        module, _, function = name.partition(":")
        return getattr(importlib.import_module(module), function)(quality)
    return load_codec(name, quality)


@keep_recent(KEPT)
def _clean(name: str, quality: float, weights: str, defend, source: str, crop: int | None, images: tuple[str, ...]) -> Coded:
    """A codec's real streams and reconstructions of a shard's clean images: the same for every attack on it."""
    x = _batch(source, crop, images)
    return _defended(defend, name, quality, weights, x).roundtrip(x)


def _defended(defend, name: str, quality: float, weights: str, x: Tensor | list[Tensor]):
    """A codec with its defence, which draws for an attacked image what it draws for the image itself."""
    codec = codec_at(name, quality, weights)
    return (defend(codec) if defend else codec).for_images(x)


@keep_recent(KEPT)
def _made_on(
    attack: Attack, objective, attacked, defend, weights: str, source: str, crop: int | None, images: tuple
) -> AttackResult:
    """What an attack finds: the same for every defence that it does not see."""
    codecs = []
    for name, quality in attacked:
        codec = codec_at(name, quality, weights)
        seen = defend(codec) if defend else codec
        codecs += seen if isinstance(seen, list) else [seen]
    return attack(codecs if len(codecs) > 1 else codecs[0], _batch(source, crop, images), objective)


def _batch(source: str, crop: int | None, images: tuple[str, ...]) -> Tensor | list[Tensor]:
    chosen = [image_of(source, crop, n) for n in images]
    return torch.stack(chosen) if len({x.shape for x in chosen}) == 1 else chosen


def _check_inputs(unit: Unit) -> None:
    """Refuse to do a unit with other weights or pixels than it was planned with: its rows would stand under its key."""
    expected = [weights_sha256_of(n, q, unit.weights) for n, q in (*unit.attacked, *unit.measured)]
    known = images_of(unit.source, unit.crop)
    images = [image_of(unit.source, unit.crop, n) for n in unit.images if n in known]
    here = "".join(expected) + "".join(map(pixels_sha256, images))
    bundled = {(n, q): e for (n, q), e in zip((*unit.attacked, *unit.measured), expected, strict=True) if n in ARCHITECTURES}
    same = all(codec_at(n, q, unit.weights).weights.sha256.startswith(e) for (n, q), e in bundled.items())
    if not same or here != unit.fingerprint:
        raise RuntimeError(
            "the weights or images here are not those that this unit was planned with: use the same files "
            "everywhere, start the workers again, and plan again"
        )


_ONE_AT_A_TIME = threading.Lock()  # torch's random numbers belong to the process


def run_unit(unit: Unit) -> pd.DataFrame:
    """Do a unit: its rows, one an image and measured codec, as of :func:`nic_helpers.metrics.before_after`.

    Beside those columns: ``unit``, ``attacked``, ``attacked_weights_sha256``, ``attack``, ``objective``, ``defence``, ``eps_255``,
    ``norm``, ``seed``, ``settings``; ``x_adv_sha256``, of the attacked image's 8-bit samples [H, W, 3], by which the very image is
    known again; ``gradients`` (of each codec attacked), ``judged`` (forward passes beside them) and ``seconds`` (of the attack) an
    image, ``rss_mib`` (the most memory
    that was resident in its process meanwhile; on a GPU, what the unit took there), ``device``, ``versions``. ``decoded``: True where the
    attacked image's bitstream was decoded and gave the encoder's reconstruction. One unit at a time in each process.
    """
    with _ONE_AT_A_TIME:
        return _run_unit(unit)


def _run_unit(unit: Unit) -> pd.DataFrame:
    device = get_device()
    _check_inputs(unit)
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    x = _batch(unit.source, unit.crop, unit.images)

    faced = unit.defend if isinstance(unit.defend, Faced) else Faced(unit.defend, unit.defend)
    how = (unit.attack, unit.objective, unit.attacked, faced.attacked, unit.weights, unit.source, unit.crop, unit.images)
    # others may not see what they are measured on either, and be attacked alike
    result = (_made_on if faced is unit.defend else _made_on.__wrapped__)(*how)
    tables = []
    for name, quality in unit.measured:
        codec = _defended(faced.measured, name, quality, unit.weights, x)
        clean = _clean(name, quality, unit.weights, faced.measured, unit.source, unit.crop, unit.images)
        coded = codec.roundtrip(result.x_adv)
        table = before_after(codec, x, result.x_adv, list(unit.images), coded=(clean, coded), measures=unit.measures)
        decoded = [True] * min(unit.verify, len(unit.images)) + [False] * max(0, len(unit.images) - unit.verify)
        for k in range(sum(decoded)):
            back = codec.decode([coded.streams[k]])[0]
            if float((back.cpu() - coded.x_hat[k].cpu()).abs().max()) > SAME:
                raise RuntimeError(f"{codec.label} decodes {unit.images[k]}'s bitstream to something else than it encoded")
        tables.append(table.assign(decoded=decoded))
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib()
    attack = unit.attack
    rows = pd.concat(tables, ignore_index=True).astype({"quality": float})  # one type for every codec's scale
    return rows.assign(
        attacked=unit.label,
        attack=unit.name,
        objective=unit.objective_name,
        defence=unit.defence,
        eps_255=round(255 * attack.eps, 6),
        norm=attack.norm,
        seed=attack.seed,
        settings=f"{attack!r} {unit.objective!r}",
        x_adv_sha256=[pixels_sha256(image)[:12] for image in result.x_adv] * len(unit.measured),
        gradients=result.gradients,
        judged=result.judged,
        seconds=result.seconds / len(unit.images),
        rss_mib=peak,
        device=str(device),
        versions=versions(),
        unit=unit.key,
        attacked_weights_sha256="+".join(weights_sha256_of(n, q, unit.weights)[:12] for n, q in unit.attacked),
    )


@functools.cache
def versions() -> str:
    """What computed a row: the project's version and the hash of its program, and the versions of what it stands on."""
    program = program_sha256(rows_only=True)[:12]
    return (
        f"nic_helpers {__version__}+{program}, torch {torch.__version__}, compressai {compressai.__version__}, "
        f"Pillow {PIL.__version__}, imageio-ffmpeg {imageio_ffmpeg.__version__}, Python {platform.python_version()}"
    )
