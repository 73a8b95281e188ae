"""What all attacks share: their settings, the call, the batch, the result."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nic_helpers.attacks.loop import JUDGE_EVERY, Ascent, Problem, uniform_noise
from nic_helpers.budgets import BUDGETS
from nic_helpers.codecs.base import SMALLEST_SIDE, Images, check_codec, gradients_possible, own_precision
from nic_helpers.codecs.quantisers import seeded_noise
from nic_helpers.images import as_images, to_8bit
from nic_helpers.memory import check_room, images_with_room
from nic_helpers.metrics import achieved
from nic_helpers.objectives import Bound, Distortion, Together, bound, check_objective

PRECISIONS = ("float32", "bfloat16", "auto")
SURROGATES = ("identity", "ste", "noise")  # those with a gradient, which surrogate="all" tries in turn
ROUNDING = ("ste", None)  # those through which values are the rounding codec's


@dataclass
class AttackResult:
    """What an attack found, on the caller's device.

    ``x_adv`` [B, 3, H, W] on the 8-bit grid (a list of [3, H, W] for a list), in float64 if x is and else in float32, as less
    does not hold that grid; and per image [B]: ``linf`` and ``rms`` achieved, on [0, 1], ``psnr_input`` (dB), and the
    ``objective`` of ``x_adv`` with true rounding, in the objective's unit (for context models in their parallel form). ``trace``
    [steps, B]: the objective with true rounding along the way (NaN where it was not judged, or the image was finished);
    ``surrogate_trace`` [gradients, B]: what the gradients climbed, which costs nothing to know. ``gradients``: gradient
    evaluations per image (the largest), of each codec where several are attacked; ``judged``: forward passes beside them, in
    which the rounding codec judged iterates; ``seconds`` in all.
    """

    x_adv: Images
    objective: Tensor
    trace: Tensor
    gradients: int
    judged: int
    seconds: float
    linf: Tensor
    rms: Tensor
    psnr_input: Tensor
    surrogate_trace: Tensor


def _joined(results: list[AttackResult], stack: bool) -> AttackResult:
    """The results of attacks on parts of a batch, or (``stack=False``) on a list's images, as one."""
    per_image = {f: torch.cat([getattr(r, f) for r in results]) for f in ("objective", "linf", "rms", "psnr_input")}
    traces = {f: _side_by_side([getattr(r, f) for r in results]) for f in ("trace", "surrogate_trace")}
    x_adv = torch.cat([r.x_adv for r in results]) if stack else [r.x_adv[0] for r in results]
    most = {f: max(getattr(r, f) for r in results) for f in ("gradients", "judged")}
    return AttackResult(x_adv, seconds=sum(r.seconds for r in results), **most, **per_image, **traces)


def best_of(results: Sequence[AttackResult]) -> AttackResult:
    """Of several attacks on one batch each image's best, the first where they are level; what they cost together."""
    if len(results) == 1:
        return results[0]
    which = torch.stack([r.objective for r in results]).nan_to_num(nan=-torch.inf).argmax(0)
    images = torch.arange(len(which), device=which.device)
    chosen = {
        f: torch.stack([getattr(r, f) for r in results])[which, images] for f in ("x_adv", "objective", "linf", "rms", "psnr_input")
    }
    traces = {f: torch.cat([getattr(r, f) for r in results]) for f in ("trace", "surrogate_trace")}
    costs = {f: sum(getattr(r, f) for r in results) for f in ("gradients", "judged", "seconds")}
    return AttackResult(**chosen, **traces, **costs)


def _side_by_side(traces: list[Tensor]) -> Tensor:
    """[steps, images] of each part as one, NaN where a part had fewer steps."""
    longest = max(map(len, traces))
    return torch.cat([torch.cat((t, t.new_full((longest - len(t), t.size(1)), torch.nan))) for t in traces], 1)


def batch_size(codec, x: Tensor) -> int:
    """How many images of x [B, 3, H, W] to attack at once: a few on a CPU, as many as its memory holds on a GPU.

    A CPU is as fast with a few as with many, and caches hold them. On a GPU an image takes the codec's ``activation_bytes``
    a pixel; a fifth of the memory stays free. Of several codecs (a list) each holds activations of its own, so the images are fewer.
    """
    if isinstance(codec, Sequence):
        return max(1, min(batch_size(c, x) for c in codec) // len(codec))
    pixels = x.size(2) * x.size(3)
    device = torch.device(codec.device)
    if device.type != "cuda":
        return max(1, 2**18 // pixels)
    return max(1, int(0.8 * torch.cuda.mem_get_info(device)[0] / (pixels * codec.activation_bytes)))


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error) or "can't allocate" in str(error)


@dataclass(frozen=True)
class Attack:
    """What all attacks share.

    ``eps``: the budget's size, on [0, 1]; ``norm``: what it bounds, "linf" (each sample) or "l2rms" (the root mean square
    over an image); ``surrogate``: how gradients pass the codec's rounding, "auto" for the objective's own, "all" to attack
    through each in turn and keep each image's best, at three times the cost;
    ``precision`` of the codec's transforms while the attack climbs: "float32", "bfloat16", or "auto" (bfloat16 where the
    hardware has it); the objective of the result is always in float32; ``batch``: how many images at once (default:
    :func:`batch_size`); ``seed``: a whole number from 0, of all that is drawn at random. Only eps is given by its place, all else by
    its name. Settings out of their range raise ValueError when the attack is made.
    """

    eps: float
    _: KW_ONLY
    seed: int = 0
    surrogate: str | None = "auto"
    norm: str = "linf"
    precision: str = "float32"
    batch: int | None = None

    needs_gradient: ClassVar[bool] = True
    judge_every: ClassVar[int] = JUDGE_EVERY

    def __new__(cls, *args, **settings):
        if len(args) > 1:  # libraries differ in what comes second: a step taken for a seed would go unnoticed
            names = ", ".join(f.name for f in dataclasses.fields(cls) if f.name != "eps")
            raise TypeError(
                f"{cls.__name__} takes eps by its place and all else by its name, got {args!r}: write which of {names} they are"
            )
        return super().__new__(cls)

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # a plain number has one text, by which studies know their settings
                object.__setattr__(self, name, value.item())
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ValueError(f"seed must be a whole number, not negative, got {self.seed!r}: a step is alpha=…")
        if self.norm not in BUDGETS:
            raise ValueError(f"norm must be one of {', '.join(BUDGETS)}, got {self.norm!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.batch is not None:
            self._check_at_least_1("batch")
        BUDGETS[self.norm](self.eps)

    def __call__(self, codec, x: Images, objective=None) -> AttackResult:
        """Attack each image of x [B, 3, H, W] in [0, 1] (or a list of [3, H, W]); see :mod:`nic_helpers.attacks`.

        ``codec``: one, or a list of them that one x' is to break all at once. ``objective``: default the distortion to the clean
        reconstruction. Raises TypeError for what is no codec (it says what is missing), and for a codec that has no gradient where
        the attack needs one, ValueError for images that are none, and for an objective that the codec cannot have, MemoryError for
        an image that the free memory does not hold (:mod:`nic_helpers.memory`). A caller's autocast, inference mode and random
        generator do not matter here. Warns of images that stay as they were.
        """
        several = isinstance(codec, Sequence) and not isinstance(codec, str)
        for c in codec if several else [codec]:
            check_codec(c)
            if self.needs_gradient and not c.differentiable:
                c(x)  # which says what to do
        if several and not codec:
            raise ValueError("an empty list of codecs: give at least one")
        objective = self._default_objective() if objective is None else objective
        check_objective(objective)
        if several and not isinstance(objective, Together):
            objective = Together(objective)
        x = as_images(x, SMALLEST_SIDE)
        # an attacker who knows what is drawn
        codec = [c.for_images(x) for c in codec] if several else codec.for_images(x)
        with own_precision(), gradients_possible():
            if not isinstance(x, Tensor):
                return _joined([self._in_batches(codec, _plain(image[None]), objective) for image in x], stack=False)
            return self._in_batches(codec, _plain(x), objective)

    def _default_objective(self):
        return Distortion()

    def planned_gradients(self, objective=None) -> int:
        """Gradient evaluations an image that these settings ask for, on each codec; ``objective`` as in a call."""
        return self._gradients_of_a_run() * len(self.surrogates(objective or self._default_objective()))

    def surrogates(self, objective) -> tuple[str | None, ...]:
        """Those that an attack on ``objective`` goes through, one after the other."""
        surrogate = objective.surrogate if self.surrogate == "auto" else self.surrogate
        if surrogate != "all":
            return (surrogate,)
        return SURROGATES if self.needs_gradient else (None,)

    def _gradients_of_a_run(self) -> int:
        return getattr(self, "steps", 1) * getattr(self, "restarts", 1)

    def _in_batches(self, codec, x: Tensor, objective) -> AttackResult:
        each = codec if isinstance(codec, Sequence) else [codec]  # of several, each holds its own activations
        per_pixel = sum(c.bytes_per_pixel(self.needs_gradient) for c in each)
        check_room(per_pixel, *x.shape[2:], doing="attacking")
        size = min(len(x), self.batch or batch_size(codec, x))
        if size > 1:
            size = int(max(1, min(size, images_with_room(per_pixel, *x.shape[2:]))))
        results, done = [], 0
        while done < len(x):
            part = None
            try:
                part = self._attack(codec, x[done : done + size], objective)
            except RuntimeError as error:
                if size == 1 or not _out_of_memory(error):
                    raise
            if part is None:
                size = size // 2
                warnings.warn(f"out of memory: going on with {size} image(s) at a time", stacklevel=3)
            else:
                results.append(part)
                done += size
        return results[0] if len(results) == 1 else _joined(results, stack=True)

    def _attack(self, codec, x: Tensor, objective) -> AttackResult:
        return best_of([self._attack_through(s, codec, x, objective) for s in self.surrogates(objective)])

    def _attack_through(self, surrogate: str | None, codec, x: Tensor, objective) -> AttackResult:
        began = time.perf_counter()
        source = to_8bit(x).to(first_of(codec).device, torch.float32)
        exact = self._exact(surrogate, codec, source, objective)
        with seeded_noise(self.seed):
            problem = self._problem(surrogate, codec, source, objective, exact)
            state = self._run(problem)
            x_adv, values = problem.budget.to_8bit(state.best, source), state.best_value
            if self._reduced or bool(values.isneginf().any()):  # other digits, or an image that was never judged
                with torch.no_grad():
                    values = (exact or bound(objective, codec, source, None))(x_adv)
        self._warn_of_unmoved((x_adv == source).flatten(1).all(1))
        clean = to_8bit(x)
        x_adv = to_8bit(x_adv.to(x.device, clean.dtype))
        return AttackResult(
            x_adv,
            values.to(x.device),
            torch.stack(state.trace),
            state.gradients,
            len(problem.judgements),
            time.perf_counter() - began,
            surrogate_trace=torch.stack(problem.climbed) if problem.climbed else state.trace[0].new_empty((0, len(x))),
            **achieved(clean, x_adv),
        )

    @property
    def _reduced(self) -> bool:
        """Whether the values along the way may have other digits than the result's."""
        return self.precision != "float32"

    def _exact(self, surrogate: str | None, codec, source: Tensor, objective) -> Bound | None:
        """What results are judged by: float32 and true rounding. None where the values with the gradient are that already."""
        if surrogate in ROUNDING and not self._reduced:
            return None
        return bound(objective, _at(codec, "float32"), source, None)

    def _problem(self, surrogate: str | None, codec, source: Tensor, objective, exact: Bound | None) -> Problem:
        """The batch as it is climbed, in this attack's precision; compared with what ``exact`` is compared with."""
        quick, rounds = _at(codec, self.precision), surrogate in ROUNDING
        value = judge = bound(objective, quick, source, surrogate) if exact is None else exact.at(quick, surrogate)
        if not rounds:
            judge = exact.at(quick, None) if self._reduced else exact
        flat = objective.flat_at_source and (rounds or first_of(codec).always_rounds)
        return Problem(source, BUDGETS[self.norm](self.eps), value, judge, flat, self.judge_every)

    def _warn_of_unmoved(self, unmoved: Tensor) -> None:
        if bool(unmoved.any()):
            warnings.warn(
                f"image(s) {unmoved.nonzero().flatten().tolist()} of the batch stay as they were: nothing better was found "
                f"that eps = {self.eps:.3g} ({self.norm}) and rounding to 8 bits leave room for",
                stacklevel=5,
            )

    def _run(self, p: Problem) -> Ascent:
        raise TypeError("Attack is a base: use one of the attacks of nic_helpers.attacks")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a positive number, got {value!r}")

    def _check_at_least_1(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")

    def _beside(self, p: Problem, seed: int) -> Tensor:
        """A random point of the ball around the sources."""
        return p.budget.project(p.x + p.budget.offset(uniform_noise(p.x, seed)), p.x)

    def _first_gradient_at(self, p: Problem) -> Tensor | None:
        """Where an attack that starts at the sources takes its first gradient: beside them, where it is zero at them."""
        return self._beside(p, self.seed) if p.flat_at_source else None

    def with_(self, **changes):
        """The same attack with other settings."""
        return dataclasses.replace(self, **changes)


def _plain(x: Tensor) -> Tensor:
    """x without a history, contiguous, and with a gradient to be had, whatever mode it was made in."""
    x = x.detach()
    return x.clone(memory_format=torch.contiguous_format) if x.is_inference() else x.contiguous()


def first_of(codec):
    """The codec, or of several the first."""
    return codec[0] if isinstance(codec, Sequence) else codec


def _at(codec, precision: str):
    """The codec (or each of several) as it is differentiated at a precision."""
    if isinstance(codec, Sequence):
        quick = [_at(c, precision) for c in codec]
        return codec if all(a is b for a, b in zip(codec, quick, strict=True)) else quick
    return codec.quick(precision)


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """Attacks of several steps. ``alpha``: the step, on [0, 1]; None (default): eps at first, decayed linearly to
    eps/steps."""

    alpha: float | None = None
    steps: int = 10

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("steps")
        if self.alpha is not None and not 0 < self.alpha <= 2 * self.eps:
            raise ValueError(f"alpha must be in (0, 2·eps] = (0, {2 * self.eps:.4g}], got {self.alpha!r}")

    @property
    def step_sizes(self) -> list[float]:
        """The size of each step."""
        return [self.alpha or self.eps * (self.steps - t) / self.steps for t in range(self.steps)]
