"""What an attack maximises. An objective is bound to a codec and a source once, then asked for values per image.

``bind(codec, x, surrogate)`` gives a function (x' [n, 3, H, W], rows) -> values [n], where ``rows`` says which of the
sources the n images belong to (default: all of them). Of the objectives here that is a :class:`Bound`; of one's own a plain
function will do, and :func:`bound` makes a Bound of it. ``surrogate`` is how an attack's gradients pass the codec's
rounding unless it says otherwise: the one that did best over the bundled codecs (notebooks 03 to 05).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pytorch_msssim import ms_ssim
from torch import Tensor

from nic_helpers.codecs.base import own_precision, real_bpp
from nic_helpers.metrics import MS_SSIM_SMALLEST

REFERENCES = ("clean", "source", "own")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue


def check_objective(objective) -> None:
    """A TypeError that says what an objective must be, unless ``objective`` is one."""
    there = "objectives.Distortion(), Rate(), Joint(a, b) …"
    if isinstance(objective, type):
        raise TypeError(f"{objective.__name__} is a class, not an objective: make one of it, {objective.__name__}(…)")
    if isinstance(objective, str) or not callable(getattr(objective, "bind", None)):
        raise TypeError(
            f"{objective!r} is no objective: there are {there}, or an object of your own with bind(codec, x, surrogate)"
        )
    lacks = [name for name in ("surrogate", "flat_at_source") if not hasattr(objective, name)]
    if lacks:
        raise TypeError(
            f'the objective {type(objective).__name__} lacks {" and ".join(lacks)}: give it surrogate = "ste" (how '
            "gradients pass the codec's rounding) and flat_at_source = False (is its gradient zero at x?)"
        )


class Bound:
    """An objective for one codec (or a list of them) and its sources x [B, 3, H, W].

    Call it with (x' [n, 3, H, W], rows) for the values [n].
    """

    def __init__(self, objective, codec, x: Tensor, surrogate: str | None, value: Callable[..., Tensor]):
        self.objective, self.codec, self.x, self.surrogate, self._value = objective, codec, x, surrogate, value

    def __call__(self, x_adv: Tensor, rows=slice(None)) -> Tensor:
        """Objective [n] of the images x' [n, 3, H, W] of the sources ``rows``."""
        return self._value(x_adv, rows)

    def at(self, codec, surrogate: str | None) -> Bound:
        """The same sources, and what they are compared with, seen through another codec or surrogate."""
        return bound(self.objective, codec, self.x, surrogate)

    def on(self, x: Tensor) -> Bound:
        """The same codec and surrogate for other sources."""
        return bound(self.objective, self.codec, x, self.surrogate)


class Compared(Bound):
    """A distortion for one codec and its sources. It keeps its ``target`` [B, 3, H, W], what x' is compared with."""

    def __init__(self, objective: Distortion, codec, x: Tensor, surrogate: str | None, target: Tensor):
        super().__init__(objective, codec, x, surrogate, self._error)
        self.target = target

    def _error(self, x_adv: Tensor, rows) -> Tensor:
        reference = x_adv if self.objective.reference == "own" else self.target[rows]
        return MEASURES[self.objective.measure](picture(self.codec, x_adv, self.surrogate), reference)

    def at(self, codec, surrogate: str | None) -> Bound:
        """The distance to the same target, seen through another codec or surrogate."""
        return Compared(self.objective, codec, self.x, surrogate, self.target)


class Turned(Bound):
    """Another bound objective with the sign of its gradient turned round, its value as it is."""

    def __init__(self, objective: Descending, inner: Bound):
        super().__init__(objective, inner.codec, inner.x, inner.surrogate, self._turned)
        self.inner = inner

    def _turned(self, x_adv: Tensor, rows) -> Tensor:
        return self.inner(2 * x_adv.detach() - x_adv, rows)

    def at(self, codec, surrogate: str | None) -> Bound:
        """As the inner one is there."""
        return Turned(self.objective, self.inner.at(codec, surrogate))


def bound(objective, codec, x: Tensor, surrogate: str | None) -> Bound:
    """An objective for a codec and its sources, as a :class:`Bound` also where its own ``bind`` gives a plain function."""
    value = objective.bind(codec, x, surrogate)
    return value if isinstance(value, Bound) else Bound(objective, codec, x, surrogate, value)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """MSE per image [B]."""
    return (a - b).pow(2).mean((1, 2, 3))


def luma_error(a: Tensor, b: Tensor) -> Tensor:
    """MSE of the luma alone, per image [B]."""
    weights = torch.tensor(LUMA, device=a.device, dtype=a.dtype).view(1, 3, 1, 1)
    return ((a - b) * weights).sum(1).pow(2).mean((1, 2))


@own_precision()
def structural_error(a: Tensor, b: Tensor) -> Tensor:
    """1 − MS-SSIM per image [B]; images of at least 161 pixels a side."""
    return 1 - ms_ssim(a, b, data_range=1.0, size_average=False)


def picture(codec, x: Tensor, surrogate: str | None) -> Tensor:
    """The codec's reconstruction of x, with a gradient if it has one."""
    if codec.differentiable:
        return codec(x, surrogate, rate=False).x_hat
    return codec.reconstruct(x)


MEASURES = {"mse": squared_error, "luma": luma_error, "ms_ssim": structural_error}


@dataclass(frozen=True)
class Distortion:
    """How far the attacked reconstruction C(x') is from a reference.

    ``reference``: "clean" C(x), the default; "source" x; "own" x' itself. ``measure``: "mse"; "luma", the MSE of the
    luma alone; "ms_ssim", 1 − MS-SSIM. Never runs the entropy model.
    """

    reference: str = "clean"
    measure: str = "mse"

    def __post_init__(self):
        if self.reference not in REFERENCES:
            raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {self.reference!r}")
        if self.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {self.measure!r}")

    # The reference comes from rounded latents. A reconstruction from unrounded ones, compared with it, says which way each
    # latent was rounded, and so where the nearest boundary lies. One from rounded latents says so only of latents that
    # have crossed a boundary already.
    surrogate = "identity"

    @property
    def flat_at_source(self) -> bool:
        """Whether the gradient at x' = x is zero: with rounding, the distance to the clean reconstruction has its minimum there.

        Straight-through gradients are zero there too.
        """
        return self.reference == "clean"

    def bind(self, codec, x: Tensor, surrogate: str | None, target: Tensor | None = None) -> Bound:
        """The values' function. The clean reconstruction is computed here, once, unless ``target`` gives it.

        It is the rounding codec's, whatever the surrogate (in the parallel form for context models).
        """
        if self.measure == "ms_ssim" and min(x.shape[2:]) < MS_SSIM_SMALLEST:
            raise ValueError(f"MS-SSIM needs images of at least {MS_SSIM_SMALLEST} pixels a side, got {x.size(2)}×{x.size(3)}")
        if self.reference != "clean":
            target = x
        elif target is None:
            with torch.no_grad():
                target = picture(codec, x, None)
        return Compared(self, codec, x, surrogate, target)


@dataclass(frozen=True)
class Rate:
    """Estimated bits per pixel, all branches; of a codec without gradient, those of its real files."""

    surrogate = "all"  # none of them is the strongest on every codec, nor even on every image (notebook 05)
    flat_at_source = False

    def bind(self, codec, x: Tensor, surrogate: str | None) -> Bound:
        """The values' function, in bits per pixel."""

        def value(x_adv: Tensor, rows) -> Tensor:
            if not codec.differentiable:
                return x_adv.new_tensor(real_bpp(codec.encode(x_adv), x_adv))
            return codec.estimated_bpp(x_adv, surrogate)

        return Bound(self, codec, x, surrogate, value)


@dataclass(frozen=True)
class Joint:
    """a·R(x') + b·λ·255²·D(C(x'), x'): rate (bits per pixel) and own distortion (MSE), weighed by the codec's own λ so
    that the two are commensurate (our reading of Wu et al. 2024, arXiv 2405.07717, eq. 3).

    A negative weight holds its term down: (1, −1) blows up the file while the picture stays good.
    """

    a: float
    b: float
    flat_at_source = False

    @property
    def surrogate(self) -> str:
        """Straight-through where distortion is to rise (up to twice as strong on codecs that predict means), else all in turn."""
        return "ste" if self.b > 0 else "all"

    def __post_init__(self):
        if not (math.isfinite(self.a) and math.isfinite(self.b)):
            raise ValueError(f"a and b, or the angle, must be finite, got {self.a!r} and {self.b!r}")
        if self.a == self.b == 0:
            raise ValueError("a and b must not both be 0: there would be nothing to raise")

    @classmethod
    def at(cls, angle: float) -> Joint:
        """The direction at an angle in degrees in the plane of rate (0°) and distortion (90°); ValueError if not finite."""
        if not math.isfinite(angle):
            raise ValueError(f"angle must be a finite number of degrees, got {angle!r}")
        return cls(math.cos(math.radians(angle)), math.sin(math.radians(angle)))

    def bind(self, codec, x: Tensor, surrogate: str | None) -> Bound:
        """The values' function, in bits per pixel; ValueError for a codec without λ."""
        if not math.isfinite(codec.lmbda):
            raise ValueError(
                f"{codec.name} has no λ to weigh rate and distortion by: use Rate() or Distortion(), or give a file's λ "
                "with load_codec(…, lmbda=…)"
            )

        def value(x_adv: Tensor, rows) -> Tensor:
            if self.b == 0:
                return self.a * codec.estimated_bpp(x_adv, surrogate)
            out = codec(x_adv, surrogate, rate=self.a != 0)
            total = self.b * codec.lmbda * 255**2 * squared_error(out.x_hat, x_adv)
            return total + self.a * out.bpp if self.a else total

        return Bound(self, codec, x, surrogate, value)


#: The six directions of SRDA (our reading), as angles in degrees.
DIRECTIONS = {
    "rate": 0.0,
    "mostly rate": math.degrees(math.atan2(0.5, 1)),
    "both": 45.0,
    "distortion": 90.0,
    "distortion, rate kept": 135.0,
    "rate, quality kept": -45.0,
}


@dataclass(frozen=True)
class Together:
    """One image against several codecs: the soft minimum of what an objective gains on each.

    effectᵢ = (Lᵢ(x') − Lᵢ(x)) / (Rᵢ(x) + λᵢ·255²·Dᵢ(x)), L the objective (a mean square times λᵢ·255²), the divisor the
    codec's own cost of the clean image; where a codec has no λ, the plain rise of the objective. The value is
    −T·log mean exp(−effect/T), whose gradient weighs each codec's by softmax(−effect/T): most for
    those that suffer least (Wu et al. 2024, arXiv 2405.07717; there the losses are not divided by the cost, ours are, so
    that no quality counts more for its λ). ``temperature`` T = ∞, the default, is the plain mean.
    """

    objective: Distortion | Rate | Joint
    temperature: float = math.inf

    def __post_init__(self):
        check_objective(self.objective)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature!r}")

    @property
    def surrogate(self) -> str:
        """The objective's."""
        return self.objective.surrogate

    @property
    def flat_at_source(self) -> bool:
        """As the objective is."""
        return self.objective.flat_at_source

    def _unit(self, codec) -> float:
        """What the objective is multiplied with to be a cost in bits per pixel."""
        squared = isinstance(self.objective, Distortion) and self.objective.measure != "ms_ssim"
        return codec.lmbda * 255**2 if squared else 1.0

    def bind(self, codecs, x: Tensor, surrogate: str | None) -> Bound:
        """The values' function, for a list of codecs."""
        values = [self.objective.bind(c, x, surrogate) for c in codecs]
        with torch.no_grad():
            before = torch.stack([v(x) for v in values])
            costs = torch.ones_like(before)
            if all(math.isfinite(c.lmbda) for c in codecs):
                costs = torch.stack([Joint(1.0, 1.0).bind(c, x, None)(x) / self._unit(c) for c in codecs])

        def value(x_adv: Tensor, rows) -> Tensor:
            effects = (torch.stack([v(x_adv, rows) for v in values]) - before[:, rows]) / costs[:, rows]
            if math.isinf(self.temperature):
                return effects.mean(0)
            softest = torch.logsumexp(-effects / self.temperature, 0) - math.log(len(effects))
            return -self.temperature * softest

        return Bound(self, codecs, x, surrogate, value)


@dataclass(frozen=True)
class Descending:
    """Another objective with the sign of its gradient turned round, its value as it is: what follows it goes the wrong way."""

    objective: Distortion | Rate | Joint | Together

    @property
    def surrogate(self) -> str:
        """The objective's."""
        return self.objective.surrogate

    @property
    def flat_at_source(self) -> bool:
        """As the objective is."""
        return self.objective.flat_at_source

    def bind(self, codec, x: Tensor, surrogate: str | None) -> Bound:
        """The values' function, of the objective's."""
        return Turned(self, bound(self.objective, codec, x, surrogate))
