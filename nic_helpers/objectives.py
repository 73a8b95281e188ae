"""What an attack maximises. An objective is bound to a codec and a source once, then asked for values per image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

REFERENCES = ("clean", "source", "own")


@dataclass(frozen=True)
class Distortion:
    """MSE between the attacked reconstruction C(x') and a reference.

    ``reference``: "clean" C(x), the default; "source" x; "own" x' itself. Never runs the entropy model.
    """

    reference: str = "clean"

    def __post_init__(self):
        if self.reference not in REFERENCES:
            raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {self.reference!r}")

    @property
    def flat_at_source(self) -> bool:
        """Whether the gradient at x' = x is zero: there the distance to the clean reconstruction has its minimum."""
        return self.reference == "clean"

    def bind(self, codec, x: Tensor, surrogate: str | None) -> Callable[[Tensor], Tensor]:
        """A function x' [B, 3, H, W] -> values [B]; the clean reconstruction is computed here, once.

        The reference is the rounding codec's output whatever the surrogate (in the parallel form for context models).
        """
        if self.reference == "clean":
            with torch.no_grad():
                target = codec(x, None, rate=False).x_hat
        else:
            target = x

        def value(x_adv: Tensor) -> Tensor:
            reference = x_adv if self.reference == "own" else target
            return (codec(x_adv, surrogate, rate=False).x_hat - reference).pow(2).mean((1, 2, 3))

        return value


@dataclass(frozen=True)
class Rate:
    """Estimated bits per pixel, all branches."""

    flat_at_source = False

    def bind(self, codec, x: Tensor, surrogate: str | None) -> Callable[[Tensor], Tensor]:
        """A function x' [B, 3, H, W] -> values [B]."""
        return lambda x_adv: codec(x_adv, surrogate).bpp
