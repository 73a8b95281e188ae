"""An entropy model that begins by expecting the latents it is given, and random layers that keep sizes as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nic_helpers.training.kinds import context, means, side_information

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def start_entropy_model(arch, model: nn.Module, latent: Tensor) -> None:
    """Scales start at the latents' standard deviations, means at zero, z at a spread of about 2."""
    spread = latent.std((0, 2, 3)).clamp_min(0.11)
    if not side_information(arch):
        # the bottleneck's density is about init_scale wide: scale its input by the latents' own spread
        model.entropy_bottleneck.matrices[0].data.add_(torch.log(10.0 / (2 * spread))[:, None, None].clamp(-2, 4))
        wide = (5 * spread).clamp_min(2)
        model.entropy_bottleneck.quantiles.data[:, 0, 0] = -wide
        model.entropy_bottleneck.quantiles.data[:, 0, 2] = wide
        return
    # latents differ in size by a factor of hundreds: every layer starts with inputs and outputs of about the same size
    whitened = latent / spread[:, None, None]
    z = unit_variance(model.h_a, whitened if means(arch) else whitened.abs(), 2.0)
    model.h_a[0].weight.data.div_(spread[:, None, None])
    hidden = unit_variance(model.h_s, torch.round(z), 0.1)
    last = [layer for layer in model.h_s if isinstance(layer, CONVOLUTIONS)][-1]
    if context(arch):
        nn.init.normal_(model.context_prediction.weight)
        model.context_prediction.weight.data.mul_(0.3 / model.context_prediction(whitened).std())
        model.context_prediction.weight.data.div_(spread[:, None, None])
        unit_variance(model.entropy_parameters, torch.cat((hidden, model.context_prediction(latent)), 1), 0.1)
        last = model.entropy_parameters[-1]
    sizes = torch.cat((spread, spread)) if means(arch) else spread
    rows = (slice(None), None, None, None) if isinstance(last, nn.Conv2d) else (None, slice(None), None, None)
    last.weight.data.mul_(sizes[rows])
    last.bias.data[: len(spread)] = spread


def expect_latents(model: nn.Module, y: Tensor) -> None:
    """A channel-wise entropy model's own random weights, with outputs for such latents: side information varies by 2, and each channel
    is expected at its mean and spread."""
    model.h_a[-1].bias.zero_()
    model.h_a[-1].weight.mul_(2.0 / model.h_a(y).std((0, 2, 3)).mean())
    for mean, scale, part in zip(
        model.cc_mean_transforms, model.cc_scale_transforms, y.chunk(len(model.cc_mean_transforms), 1), strict=True
    ):
        mean[-1].bias.copy_(part.mean((0, 2, 3)))
        scale[-1].bias.copy_(part.std((0, 2, 3)))


@torch.no_grad()
@torch.no_grad()
def asleep(coding, y: Tensor) -> bool:
    """Whether side information says nothing about the latents y [B, M, h, w]: hardly anything of z rounds to another value."""
    return side_information(type(coding)) and float(coding.hyper(y).std((0, 2, 3)).max()) < 0.3


@torch.no_grad()
def awaken(arch, model: nn.Module, y: Tensor) -> bool:
    """Side information that says nothing about the latents y, all of it rounding to one value, gets a new analysis, whose z varies by 2,
    and a new bottleneck; its synthesis hardly hears it at first. Whether that was so.

    Where bits of z cost their full price before they are of use, training may leave them all zero, and there they stay.
    """
    if not asleep(arch(model), y):
        return False
    spread = y.std((0, 2, 3)).clamp_min(0.11)
    whitened = y / spread[:, None, None]
    unit_variance(model.h_a, whitened if means(arch) else whitened.abs(), 2.0)
    model.h_a[0].weight.div_(spread[:, None, None])
    old = model.entropy_bottleneck
    for mine, fresh in zip(old.parameters(), type(old)(old.channels).parameters(), strict=True):
        mine.copy_(fresh)
    model.h_s[0].weight.mul_(0.1)
    return True


def unit_variance(chain: nn.Sequential, v: Tensor, last: float) -> Tensor:
    """Random weights with outputs of unit variance on v, of standard deviation ``last`` at the end; what comes out."""
    convolutions = [inner for layer in chain if isinstance(inner := first_of(layer), CONVOLUTIONS)]
    for layer in chain:
        inner = first_of(layer)
        if inner in convolutions:
            nn.init.normal_(inner.weight)
            nn.init.zeros_(inner.bias)
            inner.weight.mul_((last if inner is convolutions[-1] else 1.0) / inner(v).std())
        v = layer(v)
    return v


def first_of(layer: nn.Module) -> nn.Module:
    """The layer itself, or the convolution before a pixel shuffle."""
    return layer[0] if isinstance(layer, nn.Sequential) else layer
