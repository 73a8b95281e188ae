"""What stands for rounding while a gradient is taken, and rounding itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

Quantiser = Callable[[Tensor, Tensor | float], Tensor]


def round_ste(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """Round v − offset to integers and add the offset back; the gradient passes as if nothing had been rounded."""
    return v + (torch.round(v - offset) + offset - v).detach()


def round_true(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """What the codec really does: the gradient is zero almost everywhere."""
    return torch.round(v - offset) + offset


def add_noise(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """Uniform noise in ±½ instead of rounding, as in training (Ballé 2017)."""
    return v + torch.empty_like(v).uniform_(-0.5, 0.5)


# this thread's seed and its generators, one a device; None: torch's own, which all threads share
_NOISE: ContextVar[tuple[int, dict[torch.device, torch.Generator]] | None] = ContextVar("_NOISE", default=None)


@contextlib.contextmanager
def seeded_noise(seed: int) -> Iterator[None]:
    """Here, in this thread, :func:`share_noise` draws from generators of its own that begin at ``seed`` (a whole number, from 0).

    torch's generators stay as they are, and do not matter.
    """
    token = _NOISE.set((seed % 2**64, {}))  # torch takes 64 bits
    try:
        yield
    finally:
        _NOISE.reset(token)


def _own_generator(device: torch.device) -> torch.Generator | None:
    if _NOISE.get() is None:
        return None
    seed, generators = _NOISE.get()
    if device not in generators:
        generators[device] = torch.Generator(device).manual_seed(seed)
    return generators[device]


def share_noise(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """The same uniform noise in ±½ for every image, so that an image sees what it would see alone.

    Drawn from torch's generator, or as :func:`seeded_noise` says.
    """
    return v + torch.empty_like(v[:1]).uniform_(-0.5, 0.5, generator=_own_generator(v.device))


def identity(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """No quantisation at all (Chen & Ma 2023's attack code)."""
    return v


QUANTISERS: dict[str | None, Quantiser] = {
    None: round_true,
    "ste": round_ste,
    "noise": share_noise,
    "identity": identity,
}


def quantiser_of(surrogate: str | None) -> Quantiser:
    """The quantiser of a surrogate's name; ValueError, with the names there are, for another."""
    try:
        return QUANTISERS[surrogate]
    except KeyError:
        names = ", ".join(repr(k) for k in QUANTISERS)
        raise ValueError(f"unknown surrogate {surrogate!r}: there are {names}") from None
