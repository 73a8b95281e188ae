"""Where a training run begins from another one's weights: at another λ, narrower, wider, or with another entropy model.

A narrowed or converted codec is close to the one it came from before its first step: training goes on from there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from compressai.layers import AttentionBlock, ResidualBlockUpsample
from torch import Tensor, nn

from nic_helpers.codecs.kamisli2024 import gain
from nic_helpers.codecs.zou2022 import Gate, Wacnn
from nic_helpers.training.entropy_start import CONVOLUTIONS, expect_latents, start_entropy_model
from nic_helpers.training.kinds import Kind, context, has_other_transforms, means, quality_of, residual, side_information
from nic_helpers.training.narrow import largest, narrow, widths_of
from nic_helpers.training.start import close_gate, neutral_variable_rate, shrink
from nic_helpers.training.widen import widen

GATES = (AttentionBlock, Gate)


@torch.no_grad()
def begin_from(arch: Kind, model: nn.Module, lmbda: float, start: Kind, old: nn.Module, old_lmbda: float, x: Tensor) -> None:
    """Start ``model`` (of ``arch``, for λ) from the trained ``old`` one (of ``start``, for its own λ).

    What fits is taken over: the transforms always (narrowed where ``model`` is), the entropy model where both have the
    same; Cheng2020's attention blocks start all but closed; mbt2018's context model starts by passing the hyperprior's
    parameters of mbt2018-mean through. The rest starts as in :func:`pca_initialise`, from the latents that the
    transforms now give on the images x [B, 3, H, W]. WACNN's convolutions and GDNs are those of a plain codec, whose it takes over, too.
    A codec with transforms of its own is taken over as it is, whatever the λ. Raises ValueError where the transforms do not match.
    """
    if has_other_transforms(arch) or has_other_transforms(start):
        _begin_other(arch, model, math.sqrt(lmbda / old_lmbda), start, old, x)
        return
    if residual(arch) != residual(start):
        raise ValueError(f"{arch.name} cannot begin from {start.name}: their transforms have no layer in common")
    if arch.variable and not start.variable and widths_of(old) != widths_of(model):
        smaller = start.build(*widths_of(model))
        begin_from(start, smaller, old_lmbda, start, old, old_lmbda, x)
        old = smaller
    same_entropy_model = (side_information(arch), means(arch), context(arch), residual(arch), arch.variable) == (
        side_information(start),
        means(start),
        context(start),
        residual(start),
        start.variable,
    )
    if not start.variable:  # whose gain has the factor
        factor = math.sqrt(lmbda / old_lmbda)
        _rescale_latents(start, old, factor / float(gain(model, quality_of(lmbda))) if arch.variable else factor)
    n, m = widths_of(model)
    more = m - widths_of(old)[1]
    if more > 0 and not (residual(arch) and same_entropy_model and n <= widths_of(old)[0]):
        raise ValueError(f"{arch.name} with {m} latents cannot begin from {start.name} with {widths_of(old)[1]}")
    if more > 0:
        smaller = arch.build(n, m - more)
        begin_from(arch, smaller, lmbda, start, old, lmbda, x)
        widen(smaller, model, x)
    elif widths_of(old) != widths_of(model):
        narrow(start, old, model, x, same_entropy_model)
    else:
        for transform in ("g_a", "g_s"):
            _copy_matching(getattr(old, transform), getattr(model, transform))
        if same_entropy_model:
            rest = {k: v for k, v in old.named_parameters() if not k.startswith(("g_a.", "g_s."))}
            nn.Module.load_state_dict(model, rest, strict=False)
    if same_entropy_model:
        return
    if arch.variable and not (means(start) or context(start)) and side_information(start):
        for part in ("h_a", "h_s"):
            getattr(model, part).load_state_dict(getattr(old, part).state_dict())
        _start_variable_rate(old, model)
        return
    y = model.g_a(x)
    if context(arch) and means(start) and not residual(arch) and widths_of(old) == widths_of(model):
        for part in ("h_a", "h_s", "entropy_bottleneck"):
            nn.Module.load_state_dict(getattr(model, part), dict(getattr(old, part).named_parameters()), strict=False)
        _pass_through(model, y)
    else:
        start_entropy_model(arch, model, y)


def _begin_other(arch: Kind, model: nn.Module, factor: float, start: Kind, old: nn.Module, x: Tensor) -> None:
    """A codec with transforms of its own from one of the same architecture and widths; WACNN from a plain one, too, its latents
    ``factor`` times as large: its gates start all but closed, and its entropy model expects the latents that x then has."""
    if arch is not Wacnn or has_other_transforms(start) or residual(start):
        theirs, ours = dict(old.named_parameters()), dict(model.named_parameters())
        if arch is not start or {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in ours.items()}:
            raise ValueError(f"{arch.name} can begin from itself at the same widths alone, not from {start.name} or at others")
        nn.Module.load_state_dict(model, theirs, strict=False)
        return
    if start.variable or widths_of(old) != [model.g_a[0].out_channels, model.g_a[-2].out_channels]:
        raise ValueError(f"{arch.name} can begin from a codec of one rate with the same N and M, not from {start.name} at others")
    _rescale_latents(start, old, factor)
    for transform in ("g_a", "g_s"):
        _copy_matching(getattr(old, transform), getattr(model, transform))
    expect_latents(model, model.g_a(x))


def _start_variable_rate(old: nn.Module, model: nn.Module) -> None:
    """The bottleneck of a fixed-rate codec, taken over."""
    new = dict(model.entropy_bottleneck.named_parameters())
    for name, p in old.entropy_bottleneck.named_parameters():
        kind, *index = name.split(".")
        single = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}.get(kind, kind)
        new[single + "".join(index)].copy_(p)
    neutral_variable_rate(model)


@torch.no_grad()
def begin_from_scales(old: nn.Module, model: nn.Module) -> None:
    """Put the scale hyperprior ``old`` into mbt2018-mean's entropy model: its scales, no means yet.

    Its bottleneck and synthesis are taken over, in a corner of the wider one, and its analysis but for the first layer,
    which reads |y| there and y here.
    """
    n, m = widths_of(model)
    ours, theirs = model.h_s, old.h_s
    ours[0].weight[:, :n], ours[0].bias[:n] = theirs[0].weight, theirs[0].bias
    ours[2].weight[:, :n] = 0  # the transposed convolutions' weights are [in, out, 5, 5]
    ours[2].weight[:n, :n], ours[2].bias[:n] = theirs[2].weight, theirs[2].bias
    ours[4].weight[:m] = 0
    ours[4].weight[:m, :n], ours[4].bias[:m] = theirs[4].weight, theirs[4].bias
    ours[4].weight[m:] *= 0.1
    ours[4].bias[m:] = 0
    for k in (2, 4):
        model.h_a[k].load_state_dict(old.h_a[k].state_dict())
    bottleneck = dict(old.entropy_bottleneck.named_parameters())
    nn.Module.load_state_dict(model.entropy_bottleneck, bottleneck, strict=False)


def _copy_matching(old: nn.Sequential, new: nn.Sequential) -> None:
    """Layer by layer, passing over the gates that only one of the two has."""
    theirs, ours = list(old), list(new)
    if sum(isinstance(m, GATES) for m in theirs) != sum(isinstance(m, GATES) for m in ours):
        theirs, ours = ([m for m in side if not isinstance(m, GATES)] for side in (theirs, ours))
        for m in new:
            if isinstance(m, GATES):
                close_gate(m)
    for a, b in zip(theirs, ours, strict=True):
        b.load_state_dict(a.state_dict())


def _pass_through(model: nn.Module, y: Tensor) -> None:
    """Make ``entropy_parameters`` hand on the hyperprior's scales and means, with the context hardly heard at first.

    Scales are positive and pass the leaky ReLUs; a mean takes two units, itself and its negative, whose difference is
    the mean again. The second layer's 8/3·M units hold five sixths of the means, so those that vary least start at 0.
    """
    m = y.size(1)
    layers = [layer for layer in model.entropy_parameters if isinstance(layer, nn.Conv2d)]
    pairs = (layers[1].out_channels - m) // 2
    means = model.h_s(torch.round(model.h_a(y)))[:, m:]
    chosen = largest(means.var((0, 2, 3)), min(pairs, m))
    scales, positive = torch.arange(m), m + torch.arange(len(chosen))
    negative = positive + len(chosen)
    used = m + 2 * len(chosen)
    for k, layer in enumerate(layers):
        layer.bias.data.zero_()
        if k == 2:
            nn.init.normal_(layer.weight, std=0.002)
            layer.weight.data[:, :used] = 0
        else:
            layer.weight.data[:used] = 0
        layer.weight.data[scales, scales] = 1.0
    layers[0].weight.data[:, 2 * m :] *= 0.3
    layers[0].weight.data[positive, m + chosen], layers[0].weight.data[negative, m + chosen] = 1.0, -1.0
    both = 1 / 1.01  # leaky ReLU's slope below 0 is 0.01: v = (f(v) − f(−v)) / 1.01
    for layer, rows, sign in ((layers[1], positive, 1), (layers[1], negative, -1), (layers[2], m + chosen, 1)):
        layer.weight.data[rows, positive], layer.weight.data[rows, negative] = sign * both, -sign * both


def _rescale_latents(arch: Kind, model: nn.Module, factor: float) -> None:
    """Make the latents larger by ``factor`` (the quantiser's step finer), everything else unchanged.

    The last analysis layer is scaled up and the first synthesis layer down; so are what reads or predicts latents.
    Blocks of convolutions and leaky ReLUs are homogeneous: with biases scaled by the factor, so is their output.
    """
    tail = [layer for layer in model.g_a if isinstance(layer, (nn.Conv2d, AttentionBlock))]
    shrink(next(layer for layer in reversed(tail) if isinstance(layer, nn.Conv2d)), factor)
    if isinstance(model.g_a[-1], AttentionBlock):
        _scale_biases(model.g_a[-1], factor)
    for layer in model.g_s:
        if isinstance(layer, CONVOLUTIONS):
            layer.weight.div_(factor)
            break
        if isinstance(layer, ResidualBlockUpsample):
            layer.subpel_conv[0].weight.div_(factor)
            layer.upsample[0].weight.div_(factor)
            break
        _scale_biases(layer, factor)
    if not side_information(arch):
        first = model.entropy_bottleneck.matrices[0]  # the density's first layer: softplus(first)·y
        first.copy_(torch.log(torch.expm1(F.softplus(first) / factor)))
        model.entropy_bottleneck.quantiles.mul_(factor)
        return
    model.h_a[0].weight.div_(factor)
    if context(arch):
        model.context_prediction.weight.div_(factor)
        shrink(model.entropy_parameters[-1], factor)
    else:
        shrink(model.h_s[-1] if means(arch) else model.h_s[-2], factor)


def _scale_biases(block: nn.Module, factor: float) -> None:
    for name, p in block.named_parameters():
        if name.endswith("bias"):
            p.mul_(factor)
    if isinstance(block, AttentionBlock):  # its gate is a sigmoid: what goes in there stays as it was
        block.conv_b[-1].weight.div_(factor)
        block.conv_b[-1].bias.div_(factor)
