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
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import compressai
import imageio_ffmpeg
import pandas as pd
import PIL
import torch
from torch import Tensor

from nic_helpers import __version__
from nic_helpers.attacks import Attack
from nic_helpers.classical import CLASSICAL
from nic_helpers.codecs import Coded, load_codec
from nic_helpers.images import ImageSet, pixels_sha256
from nic_helpers.memory import forget_peak, keep_recent, peak_mib
from nic_helpers.metrics import before_after
from nic_helpers.models import ARCHITECTURES
from nic_helpers.objectives import check_objective
from nic_helpers.settings import get_device, program_sha256
from nic_helpers.weights import expected_sha256

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
    """

    codecs: Mapping[str, Sequence[float]]
    attacks: Mapping[str, Contestant | Attack]
    budgets: Sequence[float] = (8 / 255,)
    objectives: Mapping[str, object] = field(default_factory=lambda: {"": None})
    seeds: Sequence[int] = (0,)
    defences: Mapping[str, Callable | None] = field(default_factory=lambda: {"none": None})
    ensembles: Mapping[str, Sequence[CodecAt]] = field(default_factory=dict)
    targets: Mapping[str, Sequence[float]] | None = None
    weights: str | Sequence[str] = "bundled"
    images: str = "bundled"
    crop: int | None = None
    first: int = 0
    every: int = 1
    limit: int | None = None
    shard: int = 8
    verify: int = 1

    def __post_init__(self):
        for what in ("attacks", "budgets", "objectives", "seeds", "defences"):
            if not getattr(self, what):
                raise ValueError(f"a grid needs at least one of its {what}")
        if not self.codecs and not self.ensembles:
            raise ValueError("a grid needs at least one codec")
        if self.shard < 1 or self.every < 1:
            raise ValueError(f"shard and every must be at least 1 image, got {self.shard} and {self.every}")
        for name, contestant in self.attacks.items():
            if not isinstance(_attack(contestant), Attack):
                raise TypeError(
                    f"{name!r} is no attack but {_attack(contestant)!r}: give one with its settings, such as attacks.PGD(eps)"
                )
        own = [c.objective for c in self.attacks.values() if isinstance(c, Contestant)]
        for objective in (*own, *self.objectives.values()):
            if objective is not None:
                check_objective(objective)
        for eps in self.budgets:
            for contestant in self.attacks.values():
                _attack(contestant).with_(eps=eps)  # which refuses impossible ones now, not in the night

    def units(self) -> list[Unit]:
        """All units, in the grid's order: codec by codec, so that a worker loads each once."""
        names = list(images_of(self.images, self.crop))[self.first :: self.every][: self.limit]
        digests = {n: _digest(self.images, self.crop, n) for n in names}
        shards = [tuple(names[k : k + self.shard]) for k in range(0, len(names), self.shard)]
        targets = tuple((n, q) for n, qualities in (self.targets or {}).items() for q in qualities)
        units = []
        several = [self.weights] if isinstance(self.weights, str) else self.weights
        for weights, (label, attacked, chosen) in itertools.product(several, list(self._attacked())):
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
