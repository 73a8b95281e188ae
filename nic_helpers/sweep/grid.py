"""A study as a grid of settings, cut into units: the smallest pieces of work that can be done, lost and done again alone.

A unit attacks a few images in one way and measures what that did to one or more codecs. It is plain data: another
process or machine that has this package can do it, and it is known by a hash of its settings and of the weights' and the
images' content. The program itself is not in it, so that a study outlives a new release; each row has the program's hash, and
``sweep.run(…, same_program=True)`` does again what another one did.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path

from nic_helpers.attacks.base import Attack
from nic_helpers.codecs.base import SMALLEST_SIDE
from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.codecs.load import available_qualities, codec_names, load_codec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import COLLECTIONS
from nic_helpers.image_sets import BUNDLED, KODAK, image_files
from nic_helpers.metrics import QUALITIES, check_measures
from nic_helpers.sweep.faced import Faced
from nic_helpers.sweep.unit import (
    CodecAt,
    Unit,
    fingerprint_of,
    images_of,
    pixels_digest,
    said,
    weights_sha256_of,
)


@dataclass(frozen=True)
class Contestant:
    """An attack with its objective (None: the attack's own, or those of the grid).

    ``together``: one image against all of the grid's qualities of a codec at once, as ARDA does, not each by itself.
    """

    attack: Attack
    objective: object | None = None
    together: bool = False


@dataclass(frozen=True)
class Grid:
    """Every combination of what is listed.

    ``codecs``: name -> qualities, each attacked by itself. ``ensembles``: label -> [(name, quality), …], attacked
    together. ``attacks``: name -> :class:`Contestant` or attack; its eps and seed are replaced by those of ``budgets``
    (on [0, 1]) and ``seeds``. ``objectives``: name -> objective, for the contestants without one. ``defences``: name ->
    a function that puts a defence around a codec (a module's function or a frozen dataclass), or None, or
    :class:`~nic_helpers.sweep.faced.Faced`, where the attacker does not see that. ``targets``: the
    codecs it is measured on, name -> qualities; None: the attacked ones. A codec of your own is named "MODULE:FUNCTION", which
    every worker must be able to import: the function takes a quality and gives the codec. ``weights``: as in
    :func:`nic_helpers.load_codec`, one or several. ``images``: as in
    :func:`nic_helpers.images.load_named_images`; ``crop``: pixels a side of their centre; ``first``,
    ``every``: from which image on, and each how-manieth; ``limit``: how many at most; ``shard``: images a unit.
    ``verify``: images of a unit whose bitstreams are decoded again and compared. ``measures``: which full-reference qualities its
    rows have (:func:`nic_helpers.metrics.before_after`).

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
    measures: Sequence[str] = tuple(QUALITIES)

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
            raise ValueError(
                f"{bare[0]} has no gradient, which {climbing[0]} needs: attack it with noise or Square, make it a target, "
                "or give a defence that has one, such as attacks.BPDA"
            )
        self._set(
            codecs=_qualities("codecs", self.codecs),
            targets=self.targets and _qualities("targets", self.targets),
            ensembles={k: tuple((n, _quality(n, q)) for n, q in v) for k, v in self.ensembles.items()},
        )
        every = {(n, q) for table in (self.codecs, self.targets or {}) for n, qualities in table.items() for q in qualities}
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
        self._set(
            budgets=tuple(_real("budgets", eps) for eps in _several("budgets", self.budgets)),
            seeds=tuple(_whole("seeds", s, 0, 2**32 - 1) for s in _several("seeds", self.seeds)),
            shard=_whole("shard", self.shard, 1),
            verify=_whole("verify", self.verify, 0),
            measures=check_measures(self.measures),
            every=_whole("every", self.every, 1),
            first=_whole("first", self.first, 0),
            limit=None if self.limit is None else _whole("limit", self.limit, 1),
            crop=None if self.crop is None else _whole("crop", self.crop, SMALLEST_SIDE),
        )
        self._set(ensembles={label: _several(f"ensembles, {label!r},", members) for label, members in self.ensembles.items()})
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
            said(attack)
        own = {n: c.objective for n, c in self.attacks.items() if isinstance(c, Contestant)}
        for name, objective in (*self.objectives.items(), *own.items()):
            if objective is not None and (inspect.isclass(objective) or not hasattr(objective, "bind")):
                raise ValueError(f"objectives: {name!r} must be an objective, such as Rate(), or None, got {objective!r}")
            said(objective)
        for name, defend in self.defences.items():
            said(defend)
            sides = (defend.measured, defend.attacked) if isinstance(defend, Faced) else (defend,)
            if not all(side is None or callable(side) for side in sides):
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
            raise ValueError(f"first={self.first} leaves none of the {len(images)} images of {self.images} that can be read")
        digests = {n: pixels_digest(self.images, self.crop, n) for n in names}
        shards = [tuple(names[k : k + self.shard]) for k in range(0, len(names), self.shard)]
        targets = tuple((n, q) for n, qualities in (self.targets or {}).items() for q in qualities)
        units = []
        for weights, (label, attacked, chosen) in itertools.product(self.weights, list(self._attacked())):
            measured = targets or attacked
            fingerprint = fingerprint_of(weights, (*attacked, *measured))
            for name, contestant in chosen.items():
                own = contestant.objective if isinstance(contestant, Contestant) else None
                objectives = {"": own} if own is not None else self.objectives
                for eps, seed in ((e, s) for e in self.budgets for s in self.seeds):
                    attack = _attack(contestant).with_(eps=eps, seed=seed)
                    for (wanted, objective), (defence, defend) in _pairs(objectives, self.defences):
                        for shard in shards:
                            content = "".join(digests[n] for n in shard)
                            units.append(
                                Unit(
                                    attacked,
                                    measured,
                                    label,
                                    name,
                                    attack,
                                    wanted,
                                    objective,
                                    defence,
                                    defend,
                                    weights,
                                    self.images,
                                    self.crop,
                                    shard,
                                    self.verify,
                                    fingerprint + content,
                                    self.measures,
                                )
                            )
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
        raise ValueError(f"no {weights} weights for {name} at quality {quality}: there are {', '.join(map(str, have)) or 'none'}")
    try:
        weights_sha256_of(name, quality, weights)
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
