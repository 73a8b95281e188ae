"""Song's principal components, and the quality from end to end: through the conditions into the gain of the latents, through z to the
decoder, which finds it there and takes the gain back."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.song2021 import LAMBDAS_RANGE, SFT, ResidualSFT, SongModel, level_of

KNOTS = tuple(k / 8 for k in range(8))  # the gain is a curve of straight pieces between them, and to one
STEPS_OF_Z = 100.0  # of z's first channel, from quality 0 to 1


@torch.no_grad()
def quiet_conditions(model: SongModel) -> None:
    """What conditions say does little at first."""
    for m in model.modules():
        for layer in (m.conv_1,) if isinstance(m, ResidualSFT) else (m.mlp_gamma, m.mlp_beta) if isinstance(m, SFT) else ():
            layer.weight.mul_(0.01)
            layer.bias.mul_(0.01)


@torch.no_grad()
def hand_on_colours(model: SongModel) -> None:
    """The two layers at full resolution do hardly more than that."""
    for layer, colours in ((model.g_a[0], model.g_a[0].weight[:3]), (model.g_s[-1], model.g_s[-1].weight[:, :3])):
        layer.weight.mul_(0.1)
        layer.bias.mul_(0.1)
        colours.zero_()
        colours[range(3), range(3), 2, 2] = 1


@torch.no_grad()
def expect(model: SongModel, y: Tensor) -> None:
    """An entropy model, and conditions, for latents y [B, M, h, w] of the finest quality."""
    spread = y.std((0, 2, 3)).clamp_min(0.11)
    for layer in (model.h_a[0], model.condition_a["h1"][0], model.condition_s["1"][0]):
        layer.weight[:, -model.M :].div_(spread[:, None, None])  # latents come last in what it sees
    predicted, sizes = model.h_s[-1], torch.cat((spread, spread))
    predicted.weight.mul_(0.1 * sizes[:, None, None, None])
    predicted.bias.copy_(torch.cat((spread, y.mean((0, 2, 3)))))


@torch.no_grad()
def carry_quality(model: SongModel) -> None:
    """Channel 0 of every condition is the quality. It scales the latents as √λ would (one at quality 6), the scales and means that are
    expected of them, and, found again in z, the synthesis' first features by the inverse."""
    for part in (*model.condition_a.values(), *model.condition_s.values()):
        _pass_on(part)
    at_one = math.exp(LAMBDAS_RANGE / 2 * (1 - level_of(LAMBDAS[6])))
    curve = [at_one * math.exp(LAMBDAS_RANGE / 2 * (q - 1)) for q in (*KNOTS, 1.0)]
    _set_curve(model.g_a[11], curve)
    _set_curve(model.g_s[4], [1 / v for v in curve])
    _send(model)
    _receive(model.prior[0], model.prior[2], model.prior[4])
    _receive(model.h_s[0], model.h_s[2])
    hinges, predicted, (start, bends) = model.h_s[2], model.h_s[4], _pieces(curve)
    for k, knot in enumerate(KNOTS):
        _nearest(hinges, 0, k)
        hinges.bias[k] = -knot
        predicted.weight[:, k] = 0
        predicted.weight[:, k, 1, 1] = bends[k] * predicted.bias
    predicted.bias.mul_(start)


def _pieces(curve: list[float]) -> tuple[float, list[float]]:
    """A curve of straight pieces, by its values at the knots and at one, as its start and what each max(0, q − knot) adds."""
    slopes = [(b - a) * len(KNOTS) for a, b in itertools.pairwise(curve)]
    return curve[0], [now - before for before, now in itertools.pairwise([0.0, *slopes])]


def _set_curve(layer: SFT, curve: list[float]) -> None:
    """Let an SFT multiply by a curve of its condition's channel 0."""
    start, bends = _pieces(curve)
    inside = layer.mlp_shared[0]
    for k, (knot, bend) in enumerate(zip(KNOTS, bends, strict=True)):
        inside.weight[k] = 0
        inside.weight[k, 0, 1, 1] = 1
        inside.bias[k] = -knot
        layer.mlp_gamma.weight[:, k] = 0
        layer.mlp_gamma.weight[:, k, 1, 1] = bend
        layer.mlp_beta.weight[:, k] = 0
    layer.mlp_gamma.bias.fill_(start - 1)
    layer.mlp_beta.bias.zero_()


def _pass_on(part: nn.Sequential) -> None:
    """Channel 0 of what comes in is channel 0 of what goes out."""
    for layer in part:
        if isinstance(layer, nn.ConvTranspose2d):
            _nearest(layer, 0, 0)
        elif isinstance(layer, nn.Conv2d):
            _copy(layer, 0, 0)


def _copy(layer: nn.Conv2d, before: int, after: int, by: float = 1.0) -> None:
    """One channel of a convolution's output is a channel of its input, times ``by``."""
    middle = layer.kernel_size[0] // 2
    layer.weight[after] = 0
    layer.weight[after, before, middle, middle] = by
    layer.bias[after] = 0


def _nearest(layer: nn.ConvTranspose2d, before: int, after: int, by: float = 1.0) -> None:
    """One channel of a transposed convolution's output is a channel of its input at twice the resolution, times ``by``."""
    at = layer.kernel_size[0] // 2  # output 2i + k − at of input i: it goes to 2i and 2i + 1
    layer.weight[:, after] = 0
    layer.weight[before, after, at : at + 2, at : at + 2] = by
    layer.bias[after] = 0


def _send(model: SongModel) -> None:
    """Channel 0 of z is the quality that the sender was asked for, in steps, around zero."""
    half, last = model.h_a[3], model.h_a[6]
    half.weight[0] = 0
    half.bias[0] = 0
    condition = model.h_a[4]
    inside = condition.mlp_shared[0]
    inside.weight[0] = 0
    inside.weight[0, 0, 1, 1] = 1
    inside.bias[0] = 0
    condition.mlp_beta.weight[0] = 0
    condition.mlp_beta.weight[0, 0, 1, 1] = 1
    condition.mlp_beta.bias[0] = 0
    _copy(last, 0, 0, STEPS_OF_Z)
    last.bias[0] = -STEPS_OF_Z / 2
    for block in (model.h_a[7], model.h_a[8]):  # which add something to their input
        block.conv_1.weight[0] = 0
        block.conv_1.bias[0] = 0
    bottleneck = model.entropy_bottleneck
    wide = math.log(20 / STEPS_OF_Z)
    bottleneck.matrices[0][0].add_(wide)
    bottleneck.quantiles[0, 0, 0], bottleneck.quantiles[0, 0, 2] = -STEPS_OF_Z, STEPS_OF_Z


def _receive(first: nn.ConvTranspose2d, *rest: nn.Module) -> None:
    """Channel 0 of z as the quality again, handed on by the layers that follow; to the other channels z's is one among others."""
    first.weight[0] /= STEPS_OF_Z
    _nearest(first, 0, 0, 1 / STEPS_OF_Z)
    first.bias[0] = 0.5
    for layer in rest:
        _nearest(layer, 0, 0) if isinstance(layer, nn.ConvTranspose2d) else _copy(layer, 0, 0)
