"""What an exercise is. ``Number`` asks for a number, ``Write`` for anything that a judge can look at: a function, a dict, a word."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor


class ReaderError(Exception):
    """What a reader's own function raised, or that it gave nothing: a sentence for the reader."""


def no_example() -> dict:
    """For an exercise that is handed nothing."""
    return {}


@dataclass(frozen=True)
class Number:
    """A number to find. ``solution(**given)`` computes it; an answer may be off by ``tolerance``. ``example()`` gives small givens."""

    number: str
    solution: Callable[..., float]
    tolerance: float  # absolute
    hints: tuple[str, ...]
    example: Callable[[], dict] = no_example

    def verdict(self, answer, **given) -> str | None:
        """None if the answer is right, else a sentence that says what is wrong."""
        if callable(answer) and not isinstance(answer, Tensor):
            return "a number is asked for, and this is a function; call it"
        if isinstance(answer, Tensor):
            if answer.numel() != 1:
                return f"one number is asked for, and this is a tensor of shape {tuple(answer.shape)}; take its mean, or one entry"
            answer = answer.detach().item()
        try:
            value = float(answer) if isinstance(answer, Real) or hasattr(answer, "__float__") else None
        except (TypeError, ValueError):
            value = None
        if value is None or isinstance(answer, bool):
            return f"a number is asked for, and {answer!r} is a {type(answer).__name__}"
        if not math.isfinite(value):
            return f"{value} is no finite number; something was divided by zero, or never set"
        right = float(self.solution(**given))
        return None if abs(value - right) <= self.tolerance else f"{value:.4g} is not it"


@dataclass(frozen=True)
class Write:
    """Something to write. ``judge(answer, **given)`` gives None if it is right, else a sentence that says what is wrong.

    ``solution`` is a right answer, ``wrong`` has typical wrong ones by name: tests run the judge on all of them.
    """

    number: str
    solution: Any
    judge: Callable[..., str | None]
    hints: tuple[str, ...]
    wrong: Mapping[str, Any] = field(default_factory=dict)
    example: Callable[[], dict] = no_example

    def verdict(self, answer, **given) -> str | None:
        """None if the answer is right, else a sentence that says what is wrong."""
        kind = _kind(self.solution)
        if _kind(answer) != kind:
            return f"a {kind} is asked for, and this is a {_kind(answer)}"
        try:
            return self.judge(_watched(answer) if inspect.isfunction(answer) else answer, **given)
        except ReaderError as error:
            return str(error)
        except Exception as error:  # the judge met something that it had not expected of an answer
            return f"the check could not use this answer ({type(error).__name__}: {error})"


Exercise = Number | Write


def _kind(value) -> str:
    if inspect.isclass(value):
        return "class"
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return "function"
    for kinds, name in (((Tensor,), "tensor"), ((str,), "text"), ((Mapping,), "dict"), ((list, tuple), "list"), ((set,), "set")):
        if isinstance(value, kinds):
            return name
    return "number" if isinstance(value, Real) else type(value).__name__


def _watched(function: Callable) -> Callable:
    """A reader's function whose errors, and whose giving nothing, are told as the reader's, not as the judge's."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            found = function(*args, **kwargs)
        except Exception as error:
            raise ReaderError(f"your function raises {type(error).__name__}: {error}") from error
        if found is None or found is ...:
            raise ReaderError("your function returns nothing yet; end it with `return …`")
        return found

    return call


def image_like(answer, x: Tensor, *, unit: bool = True) -> str | None:
    """What keeps an answer from being images as ``x`` [B, 3, H, W] is (``unit``: in [0, 1]), in a sentence; None if nothing does."""
    if not isinstance(answer, Tensor):
        return f"a tensor of images is asked for, and this is a {_kind(answer)}"
    if answer.shape != x.shape:
        return f"the shape must be {tuple(x.shape)} as the source's, and is {tuple(answer.shape)}"
    if not answer.is_floating_point():
        return f"images are floating-point numbers here, and these are {answer.dtype}"
    if answer.requires_grad:
        return "the result still carries a gradient; give it back with .detach()"
    if not torch.isfinite(answer).all():
        return "some pixels are NaN or infinite"
    if unit and (answer.min() < 0 or answer.max() > 1):
        return f"pixels must stay in [0, 1], and go from {answer.min():.3f} to {answer.max():.3f}; clamp them"
    return None
