"""A study as a grid of settings, cut into units: the smallest pieces of work that can be done, lost and done again alone.

A unit attacks a few images in one way and measures what that did to one or more codecs. It is plain data: another
process or machine that has this package can do it, and it is known by a hash of its settings and of the weights' and the
images' content. The program itself is not in it, so that a study outlives a new release; each row has the program's hash, and
``sweep.run(…, same_program=True)`` does again what another one did.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import itertools
import json
import math
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path

import compressai
import imageio_ffmpeg
import pandas as pd
import PIL
import torch
from torch import Tensor

from nic_helpers import __version__
from nic_helpers.attacks import Attack
from nic_helpers.classical import CLASSICAL
from nic_helpers.codecs import SMALLEST_SIDE, Coded, available_qualities, codec_names, load_codec
from nic_helpers.images import BUNDLED, KODAK, ImageSet, image_files, pixels_sha256
from nic_helpers.memory import forget_peak, keep_recent, peak_mib
from nic_helpers.metrics import before_after
from nic_helpers.models import ARCHITECTURES
from nic_helpers.settings import get_device, program_sha256
from nic_helpers.weights import COLLECTIONS, expected_sha256

SAME = 1e-4  # between a decoded image and the encoder's: a batch's last digits differ from an image's; a level is 4e-3
KEPT = 2**28  # bytes of images, and as many of their reconstructions, that a worker keeps for its next unit
CodecAt = tuple[str, float]  # a codec's name and quality
#: What an attack's settings do is part of what a row is: raised where the same settings come to mean another attack, so that rows
#: of before never count as done. 2: the gradient stops at the output clamp.
EDITION = 2


@dataclass(frozen=True)
class Contestant:
    """An attack with its objective (None: the attack's own, or those of the grid).

    ``together``: one image against all of the grid's qualities of a codec at once, as ARDA does, not each by itself.
    """

    attack: Attack
    objective: object | None = None
    together: bool = False


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

    @functools.cached_property
    def key(self) -> str:
        """20 hexadecimal digits that stand for the settings, weights and pixels that this unit's rows depend on, and for the
        edition of what the settings mean."""
        parts = [EDITION, self.attacked, self.measured, self.name, _said(self.attack), self.objective_name, _said(self.objective),
                 self.defence, _said(self.defend), self.weights, self.source, self.crop, self.images, self.fingerprint]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    @property
    def rows(self) -> int:
        """How many rows it will have."""
        return len(self.images) * len(self.measured)

    def __str__(self) -> str:
        what = f"{self.name} ({self.objective_name})" if self.objective_name else self.name
        return (
            f"{what} at {255 * self.attack.eps:g}/255 on {self.label}, {self.images[0]} and {len(self.images) - 1} more"
        )


@dataclass(frozen=True)
class Grid:
    """Every combination of what is listed.

    ``codecs``: name -> qualities, each attacked by itself. ``ensembles``: label -> [(name, quality), …], attacked
    together. ``attacks``: name -> :class:`Contestant` or attack; its eps and seed are replaced by those of ``budgets``
    (on [0, 1]) and ``seeds``. ``objectives``: name -> objective, for the contestants without one. ``defences``: name ->
    a function that puts a defence around a codec (a module's function or a frozen dataclass), or None. ``targets``: the
    codecs it is measured on, name -> qualities; None: the attacked ones. A codec of your own is named "MODULE:FUNCTION", which
    every worker must be able to import: the function takes a quality and gives the codec. ``weights``: as in
    :func:`nic_helpers.load_codec`, one or several. ``images``: as in
    :func:`nic_helpers.images.load_named_images`; ``crop``: pixels a side of their centre; ``first``,
    ``every``: from which image on, and each how-manieth; ``limit``: how many at most; ``shard``: images a unit.
    ``verify``: images of a unit whose bitstreams are decoded again and compared.

    What its units would refuse, or would have no row of, is refused when the grid is made: ValueError, FileNotFoundError for a
    folder or file that is not there. Numbers may be NumPy's, sequences arrays or ranges, ``images`` and ``weights`` paths.
    """

    codecs: Mapping[str, Sequence[float]]
    attacks: Mapping[str, Contestant | Attack]
    budgets: Sequence[float] = (8 / 255,)
    objectives: Mapping[str, object] = field(default_factory=lambda: {"": None})
    seeds: Sequence[int] = (0,)
    defences: Mapping[str, Callable | None] = field(default_factory=lambda: {"none": None})
    ensembles: Mapping[str, Sequence[CodecAt]] = field(default_factory=dict)
    targets: Mapping[str, Sequence[float]] | None = None
    weights: str | Path | Sequence[str | Path] = "bundled"
    images: str | Path = "bundled"
    crop: int | None = None
    first: int = 0
    every: int = 1
    limit: int | None = None
    shard: int = 8
    verify: int = 1

    def __post_init__(self):
        self._check_shape()
        self._check_attacks()
        self._check_images()
        self._check_weights()
        names = {*self.codecs, *(self.targets or {}), *(n for members in self.ensembles.values() for n, _ in members)}
        for name in names:
            if ":" not in name and name not in codec_names():
                raise ValueError(f'unknown codec {name!r}: there are {", ".join(codec_names())}, and "MODULE:FUNCTION"')
        bare = [n for n in (*self.codecs, *(n for m in self.ensembles.values() for n, _ in m)) if n in CLASSICAL]
        climbing = [n for n, c in self.attacks.items() if _attack(c).needs_gradient]
        if bare and climbing and None in self.defences.values():
            raise ValueError(f"{bare[0]} has no gradient, which {climbing[0]} needs: attack it with noise or Square, make it a target, "
                             "or give a defence that has one, such as attacks.BPDA")  # fmt: skip
        self._set(codecs=_qualities("codecs", self.codecs), targets=self.targets and _qualities("targets", self.targets),
                  ensembles={k: tuple((n, _quality(n, q)) for n, q in v) for k, v in self.ensembles.items()})  # fmt: skip
        every = {
            (n, q) for table in (self.codecs, self.targets or {}) for n, qualities in table.items() for q in qualities
        }
        for (name, quality), weights in itertools.product(every.union(*self.ensembles.values()), self.weights):
            _check_codec(name, quality, weights)

    def _set(self, **values) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_shape(self) -> None:
        """Mappings are mappings, sequences sequences, both with something in them; whole numbers are whole and in range."""
        for what in (
            "codecs",
            "attacks",
            "objectives",
            "defences",
            "ensembles",
            *["targets"] * (self.targets is not None),
        ):
            table = getattr(self, what)
            if not isinstance(table, Mapping) or not all(isinstance(name, str) for name in table):
                raise ValueError(f"{what} must be a mapping from names, got {table!r}")
            if not table and what in ("attacks", "objectives", "defences"):
                raise ValueError(f"a grid needs at least one of its {what}")
        if not self.codecs and not self.ensembles:
            raise ValueError("a grid needs at least one codec")
        self._set(budgets=tuple(_real("budgets", eps) for eps in _several("budgets", self.budgets)),
                  seeds=tuple(_whole("seeds", s, 0, 2**32 - 1) for s in _several("seeds", self.seeds)),
                  shard=_whole("shard", self.shard, 1), verify=_whole("verify", self.verify, 0), every=_whole("every", self.every, 1),
                  first=_whole("first", self.first, 0), limit=None if self.limit is None else _whole("limit", self.limit, 1),
                  crop=None if self.crop is None else _whole("crop", self.crop, SMALLEST_SIDE))  # fmt: skip
        self._set(
            ensembles={label: _several(f"ensembles, {label!r},", members) for label, members in self.ensembles.items()}
        )
        for label, members in self.ensembles.items():
            if not all(isinstance(m, Sequence) and len(m) == 2 and isinstance(m[0], str) for m in members):
                raise ValueError(f"ensembles: {label!r} must be a sequence of (codec's name, quality), got {members!r}")

    def _check_attacks(self) -> None:
        for name, contestant in self.attacks.items():
            attack = _attack(contestant)
            if not isinstance(attack, Attack):
                raise ValueError(
                    f"attacks: {name!r} must be an attack, such as attacks.PGD(8/255), or a Contestant, got {attack!r}"
                )
            for eps in self.budgets:
                attack.with_(eps=eps)  # which refuses impossible ones now, not in the night
            _said(attack)
        own = {n: c.objective for n, c in self.attacks.items() if isinstance(c, Contestant)}
        for name, objective in (*self.objectives.items(), *own.items()):
            if objective is not None and (inspect.isclass(objective) or not hasattr(objective, "bind")):
                raise ValueError(
                    f"objectives: {name!r} must be an objective, such as Rate(), or None, got {objective!r}"
                )
            _said(objective)
        for name, defend in self.defences.items():
            _said(defend)
            if defend is not None and not callable(defend):
                raise ValueError(f"defences: {name!r} must be a function of a codec, or None, got {defend!r}")

    def _check_images(self) -> None:
        if not isinstance(self.images, (str, Path)):
            raise ValueError(f"images must be 'bundled', 'kodak' or a folder, got {self.images!r}")
        self._set(images=_text(self.images))
        known = {"bundled": len(BUNDLED), "kodak": len(KODAK)}
        if self.images not in known and not Path(self.images).is_dir():
            raise FileNotFoundError(f"images: no such folder: {self.images}; there are 'bundled' and 'kodak', too")
        count = known.get(self.images) or len(image_files(self.images))
        if self.first >= count:
            raise ValueError(f"first={self.first} leaves none of the {count} images of {self.images}")

    def _check_weights(self) -> None:
        given = (self.weights,) if isinstance(self.weights, (str, Path)) else _several("weights", self.weights)
        if not all(isinstance(w, (str, Path)) for w in given):
            raise ValueError(f"weights must be names or files, such as 'bundled', got {self.weights!r}")
        self._set(weights=tuple(map(_text, given)))

    def units(self) -> list[Unit]:
        """All units, in the grid's order: codec by codec, so that a worker loads each once."""
        images = images_of(self.images, self.crop)
        names = list(images)[self.first :: self.every][: self.limit]
        if not names:
            raise ValueError(
                f"first={self.first} leaves none of the {len(images)} images of {self.images} that can be read"
            )
        digests = {n: _digest(self.images, self.crop, n) for n in names}
        shards = [tuple(names[k : k + self.shard]) for k in range(0, len(names), self.shard)]
        targets = tuple((n, q) for n, qualities in (self.targets or {}).items() for q in qualities)
        units = []
        for weights, (label, attacked, chosen) in itertools.product(self.weights, list(self._attacked())):
            measured = targets or attacked
            fingerprint = _fingerprint(weights, (*attacked, *measured))
            for name, contestant in chosen.items():
                own = contestant.objective if isinstance(contestant, Contestant) else None
                objectives = {"": own} if own is not None else self.objectives
                for eps, seed in ((e, s) for e in self.budgets for s in self.seeds):
                    attack = _attack(contestant).with_(eps=eps, seed=seed)
                    for (wanted, objective), (defence, defend) in _pairs(objectives, self.defences):
                        for shard in shards:
                            content = "".join(digests[n] for n in shard)
                            units.append(Unit(attacked, measured, label, name, attack, wanted, objective, defence, defend,
                                              weights, self.images, self.crop, shard, self.verify,
                                              fingerprint + content))  # fmt: skip
        return units

    def _attacked(self) -> Iterator[tuple[str, tuple[CodecAt, ...], dict]]:
        """(label, codecs attacked together, attacks) of every group."""
        alone = {n: c for n, c in self.attacks.items() if not getattr(c, "together", False)}
        together = {n: c for n, c in self.attacks.items() if n not in alone}
        for name, qualities in self.codecs.items():
            for quality in qualities:
                if alone:
                    yield f"{name} {quality:g}", ((name, quality),), alone
            if together:
                label = f"{name} {'+'.join(f'{q:g}' for q in qualities)}"
                yield label, tuple((name, q) for q in qualities), together
        for label, members in self.ensembles.items():
            yield label, tuple(map(tuple, members)), self.attacks


def _several(what: str, values) -> tuple:
    """The values of a sequence, an array or a range, at least one."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ValueError(f"{what} must be a sequence, such as (1, 2), got {values!r}")
    values = tuple(values)
    if not values:
        raise ValueError(f"a grid needs at least one of its {what}")
    return values


def _text(path: str | Path) -> str:
    """A name as it is; a path as text that is no name of images or weights."""
    named = {"bundled", "kodak", "zoo", *COLLECTIONS}
    return f"./{path}" if isinstance(path, Path) and str(path) in named else str(path)


def _whole(what: str, value, least: int, most: float = math.inf) -> int:
    """A whole number as Python's int, whichever type it has."""
    if isinstance(value, bool) or not isinstance(value, Real) or value != value // 1 or not least <= value <= most:
        bounds = f", {least} or more" if most == math.inf else f" from {least} to {most}"
        raise ValueError(f"{what} must be a whole number{bounds}, got {value!r}")
    return int(value)


def _real(what: str, value) -> float:
    """A number as Python's, whichever type it has."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{what} must be numbers, got {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def _quality(name: str, quality) -> float:
    if name in ARCHITECTURES:
        return _whole(f"{name}'s quality", quality, 0)
    return _real(f"{name}'s qualities", quality)


def _qualities(what: str, table: Mapping) -> dict[str, tuple[float, ...]]:
    return {n: tuple(_quality(n, q) for q in _several(f"{what}, {n!r},", qualities)) for n, qualities in table.items()}


def _check_codec(name: str, quality: float, weights: str) -> None:
    """Raise what loading it would, as far as that is known without it."""
    if name in CLASSICAL:
        load_codec(name, quality)
        return
    if name in ARCHITECTURES and quality not in (have := available_qualities(name, weights)):
        raise ValueError(
            f"no {weights} weights for {name} at quality {quality}: there are {', '.join(map(str, have)) or 'none'}"
        )
    try:
        _weights_sha256(name, quality, weights)
    except (ImportError, OSError) as error:
        if ":" not in name:
            raise
        raise ValueError(f"codec {name!r}: no process can import that module: {error}") from error
    if ":" in name:
        module, _, function = name.partition(":")
        if not callable(getattr(importlib.import_module(module), function, None)):
            raise ValueError(f"codec {name!r}: {module} has no function {function!r}")


def _pairs(first: Mapping, second: Mapping) -> Iterator[tuple]:
    return ((a, b) for a in first.items() for b in second.items())


def _attack(contestant: Contestant | Attack) -> Attack:
    return contestant.attack if isinstance(contestant, Contestant) else contestant


def _said(part) -> str:
    """A part of a unit as text that is the same in every process."""
    if inspect.isfunction(part) or inspect.isclass(part):
        if "<" in part.__qualname__:
            raise ValueError(f"{part.__qualname__}: give a module's function or a frozen dataclass; this one has no name "
                             "by which another process could find it")  # fmt: skip
        return f"{part.__module__}.{part.__qualname__}"
    text = repr(part)
    if " at 0x" in text:
        raise ValueError(f"{text} has no text that is the same in every process: make it a frozen dataclass")
    return text


@functools.lru_cache(maxsize=4)
def images_of(source: str, crop: int | None) -> Mapping[str, Tensor]:
    """A grid's images by name: read, and cropped, where one is asked for."""
    return ImageSet(source, crop=crop)


@functools.lru_cache(maxsize=4096)
def _digest(source: str, crop: int | None, name: str) -> str:
    return pixels_sha256(images_of(source, crop)[name])


@keep_recent(KEPT)
def _image(source: str, crop: int | None, name: str) -> Tensor:
    return images_of(source, crop)[name]


def _weights_sha256(name: str, quality: float, weights: str) -> str:
    if ":" in name:  # what its commands are is in the module's text
        return hashlib.sha256(inspect.getsource(importlib.import_module(name.partition(":")[0])).encode()).hexdigest()
    return "" if name in CLASSICAL else expected_sha256(name, int(quality), weights)


def _fingerprint(weights: str, codecs: Sequence[CodecAt]) -> str:
    return "".join(_weights_sha256(n, q, weights) for n, q in codecs)


def _check_inputs(unit: Unit) -> None:
    """Refuse to do a unit with other weights or pixels than it was planned with: its rows would stand under its key."""
    expected = [_weights_sha256(n, q, unit.weights) for n, q in (*unit.attacked, *unit.measured)]
    known = images_of(unit.source, unit.crop)
    images = [_image(unit.source, unit.crop, n) for n in unit.images if n in known]
    here = "".join(expected) + "".join(map(pixels_sha256, images))
    bundled = {
        (n, q): e for (n, q), e in zip((*unit.attacked, *unit.measured), expected, strict=True) if n in ARCHITECTURES
    }
    same = all(codec_at(n, q, unit.weights).weights.sha256.startswith(e) for (n, q), e in bundled.items())
    if not same or here != unit.fingerprint:
        raise RuntimeError("the weights or images here are not those that this unit was planned with: use the same files "
                           "everywhere, start the workers again, and plan again")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- its cost
def expected_gradients(attack: Attack, objective=None) -> float:
    """Gradient evaluations of an attack on one image, from its settings (a query counts as a third of one). ``objective``: as in a
    call of the attack."""
    if not attack.needs_gradient:
        return getattr(attack, "queries", 0) / 3
    return attack.planned_gradients(objective)


def relative_cost(unit: Unit) -> float:
    """How long a unit takes beside others: gradient evaluations and codings, weighed by what a codec's layers cost."""

    def weight(name: str) -> float:
        return 3.0 if name in ARCHITECTURES and ARCHITECTURES[name].residual else 1.0

    attack = expected_gradients(unit.attack, unit.objective) * sum(weight(n) for n, _ in unit.attacked)
    return len(unit.images) * (attack + 4 * sum(weight(n) for n, _ in unit.measured))


# ------------------------------------------------------------------------------------------------------- its work
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
def _clean(
    name: str, quality: float, weights: str, defend, source: str, crop: int | None, images: tuple[str, ...]
) -> Coded:
    """A codec's real streams and reconstructions of a shard's clean images: the same for every attack on it."""
    x = _batch(source, crop, images)
    return _defended(defend, name, quality, weights, x).roundtrip(x)


def _defended(defend, name: str, quality: float, weights: str, x: Tensor | list[Tensor]):
    """A codec with its defence, which draws for an attacked image what it draws for the image itself."""
    codec = codec_at(name, quality, weights)
    return (defend(codec) if defend else codec).for_images(x)


def _batch(source: str, crop: int | None, images: tuple[str, ...]) -> Tensor | list[Tensor]:
    chosen = [_image(source, crop, n) for n in images]
    return torch.stack(chosen) if len({x.shape for x in chosen}) == 1 else chosen


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

    attacked = [_defended(unit.defend, n, q, unit.weights, x) for n, q in unit.attacked]
    began = time.perf_counter()
    result = unit.attack(attacked if len(attacked) > 1 else attacked[0], x, unit.objective)
    seconds = (time.perf_counter() - began) / len(unit.images)
    tables = []
    for name, quality in unit.measured:
        codec = _defended(unit.defend, name, quality, unit.weights, x)
        clean = _clean(name, quality, unit.weights, unit.defend, unit.source, unit.crop, unit.images)
        coded = codec.roundtrip(result.x_adv)
        table = before_after(codec, x, result.x_adv, list(unit.images), coded=(clean, coded))
        decoded = [True] * min(unit.verify, len(unit.images)) + [False] * max(0, len(unit.images) - unit.verify)
        for k in range(sum(decoded)):
            back = codec.decode([coded.streams[k]])[0]
            if float((back.cpu() - coded.x_hat[k].cpu()).abs().max()) > SAME:
                raise RuntimeError(
                    f"{codec.label} decodes {unit.images[k]}'s bitstream to something else than it encoded"
                )
        tables.append(table.assign(decoded=decoded))
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib()
    attack = unit.attack
    rows = pd.concat(tables, ignore_index=True).astype({"quality": float})  # one type for every codec's scale
    return rows.assign(
        attacked=unit.label, attack=unit.name, objective=unit.objective_name, defence=unit.defence,
        eps_255=round(255 * attack.eps, 6), norm=attack.norm, seed=attack.seed, settings=f"{attack!r} {unit.objective!r}",
        x_adv_sha256=[pixels_sha256(image)[:12] for image in result.x_adv] * len(unit.measured),
        gradients=result.gradients, judged=result.judged, seconds=seconds, rss_mib=peak, device=str(device),
        versions=versions(), unit=unit.key,
        attacked_weights_sha256="+".join(_weights_sha256(n, q, unit.weights)[:12] for n, q in unit.attacked),
    )  # fmt: skip


@functools.cache
def versions() -> str:
    """What computed a row: the project's version and the hash of its program, and the versions of what it stands on."""
    program = program_sha256(rows_only=True)[:12]
    return (f"nic_helpers {__version__}+{program}, torch {torch.__version__}, compressai {compressai.__version__}, "
            f"Pillow {PIL.__version__}, imageio-ffmpeg {imageio_ffmpeg.__version__}, Python {platform.python_version()}")  # fmt: skip
