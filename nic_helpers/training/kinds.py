"""What training must know of an architecture to begin one: which transforms it has, and what its entropy model predicts from what."""

from __future__ import annotations

from nic_helpers.codecs.architecture import LAMBDAS, Architecture
from nic_helpers.codecs.cai2022 import Cai2022
from nic_helpers.codecs.cheng2020 import Anchor
from nic_helpers.codecs.google import Autoregressive, MeanScale
from nic_helpers.codecs.slices import Slices
from nic_helpers.codecs.song2021 import Song2021

Kind = type[Architecture]


def residual(arch: Kind) -> bool:
    """Whether the transforms are Cheng2020's residual blocks (else convolutions with GDN)."""
    return issubclass(arch, Anchor)


def channel_wise(arch: Kind) -> bool:
    """Whether the entropy model goes slice by slice."""
    return issubclass(arch, Slices)


def has_other_transforms(arch: Kind) -> bool:
    """Whether the transforms are neither, so that a run takes them over from none but the same architecture's (WACNN: and from GDN's)."""
    return channel_wise(arch) or issubclass(arch, (Song2021, Cai2022))


def side_information(arch: Kind) -> bool:
    """Whether there is a hyperprior z."""
    return "z" in arch.branches


def means(arch: Kind) -> bool:
    """Whether means are predicted as well as scales."""
    return issubclass(arch, (MeanScale, Autoregressive))


def context(arch: Kind) -> bool:
    """Whether the entropy parameters depend on latents that are decoded already."""
    return issubclass(arch, Autoregressive)


def quality_of(lmbda: float) -> int:
    """The quality number of a λ."""
    return min(LAMBDAS, key=lambda quality: abs(LAMBDAS[quality] - lmbda))
