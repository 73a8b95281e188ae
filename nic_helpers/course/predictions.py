"""Predictions: typed before a figure, locked, answered after it, counted at the notebook's end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real


@dataclass
class _Prediction:
    options: tuple[str, ...]  # none: a number is asked for
    unit: str
    guess: str | float | None = None
    right: bool | None = None  # None: not answered yet

    def asks(self) -> str:
        return (
            "one of " + ", ".join(f'"{o}"' for o in self.options) if self.options else f"a number{self.unit and f' ({self.unit})'}"
        )

    def said(self, value: str | float) -> str:
        return f"“{value}”" if self.options else f"{value:.3g}{self.unit and f' {self.unit}'}"

    def read(self, guess) -> str | float | None:
        """A guess as an option or a number; None for what is neither."""
        if self.options:
            wanted = guess.strip().casefold() if isinstance(guess, str) else None
            return next((o for o in self.options if o.casefold() == wanted), None)
        if isinstance(guess, bool) or not isinstance(guess, Real) or not math.isfinite(guess):
            return None
        return float(guess)


class Predictions:
    """A notebook's predictions by key. A reader's slip is answered in words; only a notebook's own mistake raises ValueError."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Prediction] = {}

    def predict(self, key: str, guess, options: Sequence[str] | None = None, unit: str = "") -> None:
        """Take a guess: one of ``options``, or a number in ``unit``. ``...`` is none, and the first that is one counts."""
        asked = _Prediction(tuple(options or ()), unit)
        p = self._by_key.setdefault(key, asked)
        if (p.options, p.unit) != (asked.options, asked.unit):
            raise ValueError(f"two different predictions are called {key!r}")
        value = p.read(guess)
        if p.guess is not None:
            changed = value != p.guess and guess is not ...
            print(f"Locked: you said {p.said(p.guess)}" + " first, and that one counts." * changed + "." * (not changed))
        elif p.right is not None:
            print("The answer is out already; a prediction comes before it. Restart the kernel to try again.")
        elif guess is ...:
            print(f"Your prediction? Put {p.asks()} in place of the dots, and run the cell again.")
        elif value is None:
            print(f"{guess!r} cannot be taken: a prediction here is {p.asks()}.")
        else:
            p.guess = value
            print(f"Locked: you say {p.said(value)}.")

    def answer(self, key: str, value: str | float, sentence: str, within: float | None = None) -> None:
        """Say what came out, computed from the run, beside what was predicted. A number is right if it is ``within`` so much."""
        if key not in self._by_key:
            raise ValueError(f"nothing was predicted as {key!r}: there are {', '.join(self._by_key) or 'none'}")
        p = self._by_key[key]
        value = p.read(value if p.options else float(value))
        if value is None:
            raise ValueError(f"the answer to {key!r} must be {p.asks()}")
        if not p.options and within is None:
            raise ValueError(f"say how near a guess of {key!r} must come: within=…")
        p.right = p.guess is not None and (p.guess == value if p.options else abs(p.guess - value) <= within)
        if p.guess is None:
            print(f"It is {p.said(value)}. {sentence}")
        else:
            print(f"{'✓' if p.right else '✗'} You said {p.said(p.guess)}. It is {p.said(value)}. {sentence}")

    def score(self) -> None:
        """How many of the predictions were right."""
        made = [p for p in self._by_key.values() if p.guess is not None and p.right is not None]
        if not made:
            print(
                f"You typed none of the {len(self._by_key)} predictions. Being wrong first is the best way to remember: try it once."
            )
            return
        right, left = sum(p.right for p in made), len(self._by_key) - len(made)
        print(f"Your predictions: {right} of {len(made)} right" + f", {left} not made" * bool(left) + ".")
        for key, p in self._by_key.items():
            if p.guess is not None and p.right is False:
                print(f"  worth another look: {key.replace('_', ' ')}")
