"""The channel-wise entropy model: latents in slices of channels, each predicted from side information and the slices before it.

After Minnen & Singh, Channel-wise autoregressive entropy models (ICIP 2020, arXiv 2007.08739), in the form that Zou 2022 and Liu 2023
share: separate networks for means and scales, a bounded number of slices to predict from, and what rounding took away predicted too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import conv3x3
from compressai.models import CompressionModel
from torch import Tensor, nn

from nic_helpers.codecs.architecture import Architecture


def no_attention(channels: int) -> nn.Module:
    """What stands where Liu 2023 has attention before the networks that predict."""
    return nn.Identity()


class SliceModel(CompressionModel):
    """The parts of the entropy model behind the side information; a derived class adds g_a, g_s, h_a, h_mean_s and h_scale_s.

    ``m``: latent channels, in ``slices`` equal slices; ``z``: channels of the side information; ``hidden``: widths of each predicting
    network's hidden layers; ``support``: from how many slices, the first ones, a later one is predicted; ``attention``: given the
    channels, a layer through which what predicts means, and what predicts scales, goes first.
    """

    def __init__(
        self, m: int, z: int, slices: int, hidden: Sequence[int], support: int, attention: Callable[[int], nn.Module] = no_attention
    ):
        super().__init__()
        if m % slices:
            raise ValueError(f"{m} latent channels cannot be cut into {slices} equal slices: choose a multiple")
        c = m // slices
        known = [m + c * min(i, support) for i in range(slices)]
        self.M, self.support = m, support
        self.entropy_bottleneck, self.gaussian_conditional = EntropyBottleneck(z), GaussianConditional(None)
        self.atten_mean, self.atten_scale = (nn.ModuleList(map(attention, known)) for _ in range(2))
        self.cc_mean_transforms, self.cc_scale_transforms = (
            nn.ModuleList(_network(k, *hidden, c) for k in known) for _ in range(2)
        )
        self.lrp_transforms = nn.ModuleList(_network(k + c, *hidden, c) for k in known)


def _network(*channels: int) -> nn.Sequential:
    """3×3 convolutions from each number of channels to the next, GELU between."""
    layers = [layer for a, b in itertools.pairwise(channels) for layer in (conv3x3(a, b), nn.GELU())]
    return nn.Sequential(*layers[:-1])


def hidden_widths(shares: Sequence[int], first: int, slice_width: int) -> list[int]:
    """Widths of hidden layers: the ``first``, then in the proportions ``shares`` to it, but none narrower than a slice."""
    return [first, *(max(slice_width, round(first * share / shares[0])) for share in shares[1:])]


def _alone(transform: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """A transform of each image for itself, unless a gradient is taken: the last digits of attention's matrix products depend on how many
    images there are, and a symbol here and there would be another in a batch than alone."""
    if torch.is_grad_enabled() or len(v) == 1:
        return transform(v)
    return torch.cat([transform(image) for image in v.split(1)])


class Slices(Architecture):
    """An architecture with this entropy model. Its branches: "side" are what predicts the means and what predicts the scales, M channels
    each, one after the other; "context", for each slice but the first, the slices that it is predicted from."""

    module: ClassVar[type[SliceModel]]
    #: The layer whose weights say how large the latents are: the last one that changes the resolution.
    latent_gain: ClassVar[str]

    def analysis(self, x):
        """Latents y of padded images x, image by image where no gradient is taken (:func:`_alone`)."""
        return _alone(self.g_a, x)

    def hyper(self, y):
        """Side information z of y, image by image where no gradient is taken."""
        return _alone(self.h_a, y)

    def code(self, coder, y=None, z=None):
        """Slice by slice; later slices and the synthesis see a rounded slice and, added, a network's guess at what rounding took."""
        z_hat = coder.bottleneck("z", z)
        side = coder.tap("side", torch.cat((self.h_mean_s(z_hat), self.h_scale_s(z_hat)), 1))
        for_means, for_scales = side.chunk(2, 1)
        done: list[Tensor] = []
        slices = len(self.cc_mean_transforms)
        for i, part in enumerate([None] * slices if y is None else y.chunk(slices, 1)):
            context = [coder.tap("context", torch.cat(done[: self.model.support], 1))] if done else []
            seen = self.atten_mean[i](torch.cat((for_means, *context), 1))
            means = self.cc_mean_transforms[i](seen)
            scales = self.cc_scale_transforms[i](self.atten_scale[i](torch.cat((for_scales, *context), 1)))
            part = coder.gaussian("y", part, scales, means)
            done.append(part + 0.5 * torch.tanh(self.lrp_transforms[i](torch.cat((seen, part), 1))))
        return torch.cat(done, 1)

    @classmethod
    def slices_of(cls, state: dict[str, Tensor]) -> tuple[int, int]:
        """How many slices, and the width of the predicting networks' first hidden layer, read off a model's parameters."""
        count = len({k.split(".")[1] for k in state if k.startswith("cc_mean_transforms.")})
        return count, state["cc_mean_transforms.0.0.weight"].size(0)
