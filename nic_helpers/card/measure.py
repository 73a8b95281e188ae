"""What a card says, measured: rates and qualities on clean images, attacks beside noise, and what makes the numbers doubtful."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from nic_helpers import attacks, metrics
from nic_helpers.analysis.gradients import MEANINGS, check_gradient
from nic_helpers.attacks.strongest import Continuation
from nic_helpers.card.subject import CardError
from nic_helpers.codecs import load_codec
from nic_helpers.codecs.base import Codec, NoRate, check_codec
from nic_helpers.images import centre_crop, to_8bit
from nic_helpers.objectives import Distortion, Rate

JPEG_QUALITIES = (5, 10, 20, 35, 50, 70, 85, 95)
NOT_FOUND = "not found"  # of a way in which gradients mislead
AIMS = {"picture, box": "psnr_recon", "file, box": "bpp_ratio"}  # what the attacks along the codec's own gradient are after
FROM = ("bmshj2018-hyperprior", 3)  # what transferred attacks are made on; of this codec itself, quality 6


@dataclass(frozen=True)
class Settings:
    """How a card is made. ``eps`` on [0, 1]; ``steps`` of the picture attacks and ``rate_steps`` of each surrogate of the rate
    attack; ``queries`` of the blind search at most, of which ``seconds`` decide how many are done; ``check_queries`` of the check for
    masked gradients."""

    eps: float = 8 / 255
    steps: int = 20
    restarts: int = 1
    rate_steps: int = 8
    queries: int = 300
    seconds: float = 30.0
    check_queries: int = 60
    seed: int = 0
    thorough: bool = False

    @classmethod
    def long(cls, eps: float = 8 / 255, seed: int = 0) -> Settings:
        """Many steps and starts, hours on a CPU. Whether more would do more is for the reader of the card to try."""
        return cls(eps, 500, 4, 200, 5000, 3600.0, 1000, seed, True)


@dataclass
class Card:
    """What was measured. ``clean`` and ``jpeg``: a row an image (and quality); ``attacked``: attack -> rows of
    :func:`nic_helpers.metrics.before_after`; ``noise``: the same for noise of each attack's RMS; ``says``: attack -> what it was."""

    codec: Codec
    images: dict[str, Tensor]
    settings: Settings
    source: str
    real_files: bool = True
    clean: pd.DataFrame = field(default_factory=pd.DataFrame)
    jpeg: pd.DataFrame = field(default_factory=pd.DataFrame)
    attacked: dict[str, pd.DataFrame] = field(default_factory=dict)
    noise: dict[str, pd.DataFrame] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)
    found: dict[str, list[Tensor]] = field(default_factory=dict)
    checks: list[tuple[str, str, bool | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str):
        """Count what is done here as ``what``'s seconds."""
        began = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began

    @property
    def x(self) -> Tensor | list[Tensor]:
        """The images, as one batch where their sizes agree."""
        images = list(self.images.values())
        return torch.stack(images) if len({im.shape for im in images}) == 1 else images

    def worst(self, column: str, largest: bool) -> tuple[str, pd.Series] | None:
        """The attack and row where a column is at its worst; None where nothing was measured."""
        rows = [(name, row) for name, table in self.attacked.items() if column in table for _, row in table.iterrows()]
        rows = [(n, r) for n, r in rows if pd.notna(r[column])]
        return (max if largest else min)(rows, key=lambda pair: pair[1][column]) if rows else None


def make_card(
    codec: Codec,
    images: dict[str, Tensor],
    settings: Settings | None = None,
    source: str = "images",
    say: Callable[[str], None] = lambda text: None,
) -> Card:
    """The card of a codec on ``images``, name -> [3, H, W] in [0, 1]. ``say`` is told what is being done. CardError where the codec
    fails on clean images; an attack that fails is named on the card instead."""
    check_codec(codec)
    if not images:
        raise CardError("no images: a card needs at least one")
    card = Card(codec, {n: to_8bit(im) for n, im in images.items()}, settings or Settings(), source)
    say("clean images")
    with card.timed("clean images"):
        _clean(card)
    for name, attack, objective, on, says in _planned(card):
        say(name)
        with card.timed(name):
            _attacked(card, name, attack, objective, on, says)
    say("checks")
    with card.timed("checks"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _check(card)
    return card


def _clean(card: Card) -> None:
    names = list(card.images)
    try:
        card.clean = metrics.quality_table(card.codec, card.x, names)
    except NoRate as error:
        card.real_files = False
        card.notes.append(f"No real files: {error}")
    except Exception as error:
        raise CardError(f"the codec fails on clean images: {type(error).__name__}: {error}") from error
    if not card.real_files:
        try:
            decoded = card.codec.reconstruct(card.x)
        except Exception as error:
            raise CardError(f"the codec fails on clean images: {type(error).__name__}: {error}") from error
        rows = [
            {"image": n, "bpp": float("nan")} | {q: float(f(a[None], b[None])) for q, f in metrics.QUALITIES.items()}
            for n, a, b in zip(names, card.x, decoded, strict=True)
        ]
        card.clean = pd.DataFrame(rows)
    card.jpeg = pd.concat([metrics.quality_table(load_codec("jpeg", q), card.x, names) for q in JPEG_QUALITIES])


def _planned(card: Card) -> list[tuple]:
    """Attack by attack: its name, itself, its objective, the codec that it is made on, and what it is in words."""
    s, codec = card.settings, card.codec
    quality = 6 if (codec.name, codec.quality) == FROM else FROM[1]
    other, box = load_codec(FROM[0], quality, device=codec.device), f"every sample changed by at most {255 * s.eps:g}/255"
    picture = Continuation(s.eps, steps=s.steps, restarts=s.restarts, seed=s.seed)
    rate = attacks.PGD(s.eps, steps=s.rate_steps, seed=s.seed)
    made = f"made on the bundled {FROM[0]} {quality}, then shown to this codec"
    plan = []
    if codec.differentiable:
        ball = f"root mean square changed by at most {255 * s.eps:g}/255"
        how = f"continuation in ε, {s.steps} gradients × {s.restarts}"
        plan.append(("picture, box", picture, Distortion(), codec, f"{how}; {box}"))
        plan.append(("picture, ball", picture.with_(norm="l2rms"), Distortion(), codec, f"{how}; {ball}"))
        if _has_rate(card):
            says = f"PGD on the estimated bits, the best of three surrogates, {s.rate_steps} gradients each; {box}"
            plan.append(("file, box", rate, Rate(), codec, says))
    else:
        card.notes.append(
            "This codec has no gradient. So there is no attack that follows one: only a blind search and attacks made on another "
            "codec. They show less than an attacker can do."
        )
        queries = _affordable(card)
        says = f"Square, a blind search with {queries} queries; {box}"
        plan.append(("picture, blind", attacks.Square(s.eps, queries=queries, seed=s.seed), Distortion(), codec, says))
        if card.real_files:
            plan.append(("file, blind", attacks.Square(s.eps, queries=queries, seed=s.seed), Rate(), codec, says))
    plan.append(("picture, transferred", picture, Distortion(), other, f"{made}; {box}"))
    if card.real_files:
        plan.append(("file, transferred", rate, Rate(), other, f"{made}; {box}"))
    return plan


def _has_rate(card: Card) -> bool:
    try:
        with torch.no_grad():
            bpp = card.codec.estimated_bpp(next(iter(card.images.values()))[None])
        says = "its output holds none" if not isinstance(bpp, Tensor) else ""
    except NoRate as error:
        says = str(error)
    if says:
        card.notes.append(f"No rate attack: the codec estimates no bits ({says})")
    return not says


def _affordable(card: Card) -> int:
    """As many queries as the settings' seconds hold, by the time that one takes."""
    began = time.perf_counter()
    card.codec.reconstruct(card.x)
    each = max(time.perf_counter() - began, 1e-4)
    return int(max(5, min(card.settings.queries, card.settings.seconds / 2 / each)))


def _attacked(card: Card, name: str, attack, objective, on: Codec, says: str) -> None:
    names, x = list(card.images), card.x
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of images that nothing moved: their rows show it
            found = attack(on, x, objective).x_adv
        rows = metrics.before_after(card.codec, x, found, names, card.real_files)
        rms = [float(r) for r in rows["rms"]]
        noisy = [_noise(im, r, card.settings.seed) for im, r in zip(x, rms, strict=True)]
        control = metrics.before_after(card.codec, list(x), noisy, names, card.real_files)
    except Exception as error:
        card.notes.append(f"The attack “{name}” was not possible: {type(error).__name__}: {error}")
        return
    card.attacked[name], card.noise[name], card.says[name] = rows, control, says
    card.found[name] = list(found)


def _noise(image: Tensor, rms: float, seed: int) -> Tensor:
    """Uniform noise of an RMS on [0, 1], on the 8-bit grid; the image itself where that is 0."""
    noise = 2 * torch.rand(image.shape, generator=torch.Generator().manual_seed(seed)).to(image) - 1
    noisy, size = image, rms * 3**0.5
    for _ in range(4 if rms > 0 else 0):  # what the clamp took is given back
        noisy = to_8bit((image + size * noise).clamp(0, 1))
        size = size * rms / max(float((noisy - image).square().mean().sqrt()), 1e-6)
    return noisy


def _beaten(card: Card) -> list[tuple[str, str, bool]]:
    """Does an attack along the gradient do more, at its own aim, than noise of its size and than every other attack within the box?

    Another attack that does more shows that this one is not at its limit: too few steps, or gradients that mislead.
    """
    found = []
    for name, kind in AIMS.items():
        if kind not in card.attacked.get(name, ()):
            continue
        sign = -1 if kind == "psnr_recon" else 1  # a low PSNR and a large file are damage
        own, noise = sign * card.attacked[name][kind], sign * card.noise[name][kind]
        others = [sign * t[kind] for n, t in card.attacked.items() if n != name and "ball" not in n and kind in t]
        text = f"“{name}” does more than noise of its own size on {{}} of {len(own)} images"
        found.append(("Beats noise", text, own > noise))
        if others:
            best = pd.concat(others, axis=1).max(axis=1)
            text = f"“{name}” does at least as much at its own aim as every other attack in the box on {{}} of {len(own)} images"
            found.append(("Hits its aim", text, own >= best - 1e-6))
    return [(check, text.format(int(well.sum())), bool(well.all())) for check, text, well in found]


def _check(card: Card) -> None:
    """Rows of what was looked at, what was found, and whether it is well (None: not looked at)."""
    codec, s, first = card.codec, card.settings, next(iter(card.images.values()))
    if card.real_files:
        coded = codec.for_images([first]).roundtrip([first])
        seen = codec.for_images([first]).reconstruct([first])
        apart = 255 * float((to_8bit(coded.x_hat[0]) - to_8bit(seen[0])).abs().max())
        text = f"what the files decode to and what was attacked differ by at most {apart:.0f} of 255 levels"
        card.checks.append(("Same codec", text, apart <= 2))
    if card.attacked:
        box = max((255 * rows["linf"].max() for name, rows in card.attacked.items() if "ball" not in name), default=0.0)
        rms = max((255 * rows["rms"].max() for name, rows in card.attacked.items()), default=0.0)
        text = f"largest change of a sample {box:.2f}, largest root mean square of a change {rms:.2f}, of 255 levels"
        card.checks.append(("Inside the budget", text, max(box, rms) <= 255 * s.eps + 1e-2))
    card.checks += _beaten(card)
    try:
        looked = check_gradient(
            codec, centre_crop(first, 128)[None], attack=attacks.PGD(s.eps, steps=s.rate_steps), queries=s.check_queries
        )
    except Exception as error:
        card.checks.append(("Gradients", f"could not be looked at: {type(error).__name__}: {error}", None))
        return
    for row in looked.to_dict("records"):
        if pd.notna(row["found"]):
            text = MEANINGS[row["check"]] if row["found"] else NOT_FOUND
            card.checks.append((row["check"].capitalize(), text, not row["found"]))
