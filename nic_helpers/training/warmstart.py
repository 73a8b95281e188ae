"""Where a training run begins from another one's weights: at another λ, narrower, wider, or with another entropy model.

A narrowed or converted codec is close to the one it came from before its first step: training goes on from there.
"""

from __future__ import annotations

import math

import scipy.linalg
import torch
import torch.nn.functional as F
from compressai.layers import GDN, AttentionBlock, ResidualBlock, ResidualBlockUpsample
from torch import Tensor, nn

from nic_helpers.codecs.kamisli2024 import gain
from nic_helpers.training.kinds import Kind, context, means, quality_of, residual, side_information
from nic_helpers.training.start import CONVOLUTIONS, close_gate, first_of, neutral_variable_rate, shrink, start_entropy_model


@torch.no_grad()
def begin_from(arch: Kind, model: nn.Module, lmbda: float, start: Kind, old: nn.Module, old_lmbda: float, x: Tensor) -> None:
    """Start ``model`` (of ``arch``, for λ) from the trained ``old`` one (of ``start``, for its own λ).

    What fits is taken over: the transforms always (narrowed where ``model`` is), the entropy model where both have the
    same; Cheng2020's attention blocks start all but closed; mbt2018's context model starts by passing the hyperprior's
    parameters of mbt2018-mean through. The rest starts as in :func:`pca_initialise`, from the latents that the
    transforms now give on the images x [B, 3, H, W]. Raises ValueError where the transforms do not match.
    """
    if residual(arch) != residual(start):
        raise ValueError(f"{arch.name} cannot begin from {start.name}: their transforms have no layer in common")
    if arch.variable and not start.variable and _widths(old) != _widths(model):
        narrow = start.build(*_widths(model))
        begin_from(start, narrow, old_lmbda, start, old, old_lmbda, x)
        old = narrow
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
    n, m = _widths(model)
    more = m - _widths(old)[1]
    if more > 0 and not (residual(arch) and same_entropy_model and n <= _widths(old)[0]):
        raise ValueError(f"{arch.name} with {m} latents cannot begin from {start.name} with {_widths(old)[1]}")
    if more > 0:
        narrow = arch.build(n, m - more)
        begin_from(arch, narrow, lmbda, start, old, lmbda, x)
        _widen(narrow, model, x)
    elif _widths(old) != _widths(model):
        _narrow(start, old, model, x, same_entropy_model)
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
    if context(arch) and means(start) and not residual(arch) and _widths(old) == _widths(model):
        for part in ("h_a", "h_s", "entropy_bottleneck"):
            nn.Module.load_state_dict(getattr(model, part), dict(getattr(old, part).named_parameters()), strict=False)
        _pass_through(model, y)
    else:
        start_entropy_model(arch, model, y)


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
    n, m = _widths(model)
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


def _widths(model: nn.Module) -> list[int]:
    first = next(m for m in model.g_a.modules() if isinstance(m, nn.Conv2d))
    return [first.out_channels, _latent_channels(model)]


def _copy_matching(old: nn.Sequential, new: nn.Sequential) -> None:
    """Layer by layer, passing over the attention blocks that only one of the two has."""
    theirs, ours = list(old), list(new)
    if sum(isinstance(m, AttentionBlock) for m in theirs) != sum(isinstance(m, AttentionBlock) for m in ours):
        theirs, ours = ([m for m in side if not isinstance(m, AttentionBlock)] for side in (theirs, ours))
        for m in new:
            if isinstance(m, AttentionBlock):
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
    chosen = _largest(means.var((0, 2, 3)), min(pairs, m))
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


# At each hidden layer those channels are kept that best span all of them (QR with pivoting); what reads the layer makes
# up for the others by least squares. ``mix`` [kept, all] always gives every channel of the wide codec from those kept.


def _narrow(arch: Kind, old: nn.Module, new: nn.Module, x: Tensor, with_entropy_model: bool) -> None:
    """Fill a narrower codec from a wider one of the same transforms: the latents that carry most, layers that span."""
    y = old.g_a(x)
    y_hat, m = torch.round(y), _latent_channels(new)
    keep = _largest(y_hat.var((0, 2, 3)), m)
    pick = torch.eye(y.size(1))[keep]
    narrow = _narrow_residual if residual(arch) else _narrow_chain
    narrow(old.g_a, new.g_a, x, torch.eye(3), keep)
    narrow(old.g_s, new.g_s, y_hat, pick, torch.arange(3))
    if not (with_entropy_model and side_information(arch)):
        return
    y = y if means(arch) else y.abs()
    z = old.h_a(y)
    keep_z = _largest(torch.round(z).var((0, 2, 3)), new.h_a[-1].out_channels)
    _narrow_chain(old.h_a, new.h_a, y, pick, keep_z)
    both = torch.cat((keep, keep + y.size(1))) if means(arch) else keep
    z_hat = torch.round(z)
    _narrow_chain(old.h_s, new.h_s, z_hat, torch.eye(z.size(1))[keep_z], both)
    for a, b in zip(old.entropy_bottleneck.parameters(), new.entropy_bottleneck.parameters(), strict=True):
        b.copy_(a[keep_z])
    if context(arch):
        _copy_rows(old.context_prediction, new.context_prediction, both, pick)
        merged = torch.cat((old.h_s(z_hat), old.context_prediction(y_hat)), 1)
        picked = torch.eye(merged.size(1))[torch.cat((both, both + 2 * y.size(1)))]
        _narrow_chain(old.entropy_parameters, new.entropy_parameters, merged, picked, both)


def _widen(old: nn.Module, new: nn.Module, x: Tensor) -> None:
    """Give a codec of residual blocks more latents, the pictures unchanged at first.

    The new latents are the principal components of what the old ones cannot tell of the last analysis layer's input,
    scaled to the spread of the weaker old latents. The synthesis and the entropy model start without a use for them.
    """
    (n, m), more = _widths(old), _widths(new)[1] - _widths(old)[1]
    if any(isinstance(layer, AttentionBlock) for layer in (*old.g_a, *old.g_s)):
        raise ValueError("a codec with attention blocks cannot be widened: begin from one without them")
    theirs, ours = dict(old.named_parameters()), dict(new.named_parameters())
    for name, p in ours.items():  # the old codec in a corner of the new one, the rest of it silent
        if p.shape != theirs[name].shape:
            p.mul_(0.1 if name.startswith("entropy_parameters") else 0.0)
        if p.shape == theirs[name].shape or not name.startswith(("h_s.", "context_", "entropy_")):
            p[tuple(slice(k) for k in theirs[name].shape)] = theirs[name]
    # scales and means lie one after the other: [M scales, M means], and so for what the context says
    new_pairs = torch.cat([torch.arange(m) + k * (m + more) for k in (0, 1)])
    layers = [f"entropy_parameters.{i}" for i, layer in enumerate(old.entropy_parameters) if isinstance(layer, nn.Conv2d)]
    for name in [f"h_s.{len(old.h_s) - 1}", "context_prediction", *layers]:
        w, v = ours[name + ".weight"], theirs[name + ".weight"]
        rows = new_pairs if len(v) == 2 * m else torch.arange(len(v))
        columns = torch.arange(v.size(1))
        if name == layers[0]:
            columns = torch.cat((new_pairs, new_pairs + 2 * (m + more)))
        w[rows] = 0
        w[rows[:, None], columns] = v
        ours[name + ".bias"][rows] = theirs[name + ".bias"]
    v = x
    for layer in old.g_a[:-1]:
        v = layer(v)
    blocks = v.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * n).double()
    blocks = blocks - blocks.mean(0)
    y = old.g_a[-1](v).permute(0, 2, 3, 1).reshape(-1, m).double()
    rest = blocks - y @ torch.linalg.lstsq(y, blocks).solution
    variances, vectors = torch.linalg.eigh(torch.cov(rest.T))
    parts = vectors[:, -more:].T.reshape(more, n, 2, 2).float()
    spread = y.std(0).quantile(0.5).float()
    conv = new.g_a[-1]
    conv.weight[m:, :, 1:3, 1:3] = parts * spread / variances[-1].sqrt().float()
    raw = conv(v)
    conv.bias[m:] = -raw.mean((0, 2, 3))[m:]
    ours[layers[-1] + ".bias"][m : m + more] = raw.std((0, 2, 3))[m:].clamp_min(0.11)
    ours[layers[-1] + ".bias"][2 * m + more :] = 0


def _latent_channels(model: nn.Module) -> int:
    return next(m for m in model.g_s.modules() if isinstance(m, CONVOLUTIONS)).in_channels


def _largest(values: Tensor, count: int) -> Tensor:
    return torch.argsort(values, descending=True)[:count].sort().values


def _narrow_chain(old: nn.Sequential, new: nn.Sequential, v: Tensor, mix: Tensor, outputs: Tensor) -> None:
    """Convolutions and activations; ``outputs``: which channels of the last convolution are kept."""
    places = [i for i, layer in enumerate(old) if _convolution(layer) is not None]
    for i, (a, b) in enumerate(zip(old, new, strict=True)):
        out = a(v)
        if i in places:
            keep, before = outputs, mix
            if i != places[-1]:
                after = places[places.index(i) + 1]
                activations = out.clone()
                for layer in old[i + 1 : after]:
                    activations = layer(activations)
                keep, mix = _span(activations, _convolution(old[after]), _channels(b))
            _copy_rows(a, b, keep, before)
        elif isinstance(a, GDN):
            _narrow_gdn(a, b, v, keep)
        v = out


def _narrow_residual(old: nn.Sequential, new: nn.Sequential, v: Tensor, mix: Tensor, outputs: Tensor) -> None:
    """Cheng2020's blocks: a skip connection without a convolution keeps the same channels on both its sides."""
    keep = mix.argmax(1)
    for a, b in zip(old, new, strict=True):
        out = a(v)
        if isinstance(a, AttentionBlock):
            if len(keep) != out.size(1):
                raise ValueError("attention blocks cannot be narrowed: begin from a codec without them")
            b.load_state_dict(a.state_dict())
        elif isinstance(a, (nn.Conv2d, nn.Sequential)):
            _copy_rows(a, b, outputs, mix)
        else:
            parts = (("conv1", "conv2", "skip", "gdn"), ("subpel_conv", "conv", "upsample", "igdn"))
            first, second, side, gdn = parts[isinstance(a, ResidualBlockUpsample)]
            hidden = a.leaky_relu(getattr(a, first)(v))
            seen, hidden_mix = _span(hidden, getattr(a, second), _channels(getattr(b, second)))
            if not isinstance(a, ResidualBlock):
                keep, _ = _span(out, None, _channels(getattr(b, second)))
                _narrow_gdn(getattr(a, gdn), getattr(b, gdn), getattr(a, second)(hidden), keep)
                _copy_rows(getattr(a, side), getattr(b, side), keep, mix)
            _copy_rows(getattr(a, first), getattr(b, first), seen, mix)
            _copy_rows(getattr(a, second), getattr(b, second), keep, hidden_mix)
            mix = _least_squares(_rows(out), keep)
        v = out


def _convolution(layer: nn.Module) -> nn.Module | None:
    """The convolution in a layer: itself, or the one before a pixel shuffle."""
    inner = first_of(layer)
    return inner if isinstance(inner, CONVOLUTIONS) else None


def _channels(layer: nn.Module) -> int:
    """How many channels a convolution gives, counted after the pixel shuffle that may follow."""
    return _convolution(layer).out_channels // (4 if isinstance(layer, nn.Sequential) else 1)


def _out_in(layer: nn.Module) -> Tensor:
    """A convolution's weight as [out, in, kh, kw]."""
    inner = _convolution(layer)
    return inner.weight.transpose(0, 1) if isinstance(inner, nn.ConvTranspose2d) else inner.weight


def _copy_rows(old: nn.Module, new: nn.Module, keep: Tensor, mix: Tensor) -> None:
    """The rows of a convolution that give the channels ``keep``, reading the kept inputs in place of all."""
    rows = (4 * keep[:, None] + torch.arange(4)).flatten() if isinstance(old, nn.Sequential) else keep
    weight = torch.einsum("oikl,ni->onkl", _out_in(old)[rows], mix)
    inner = _convolution(new)
    inner.weight.copy_(weight.transpose(0, 1) if isinstance(inner, nn.ConvTranspose2d) else weight)
    inner.bias.copy_(_convolution(old).bias[rows])


def _narrow_gdn(old: GDN, new: GDN, v: Tensor, keep: Tensor) -> None:
    beta, gamma = old.beta_reparam(old.beta), old.gamma_reparam(old.gamma)[keep]
    power = v.pow(2).mean((0, 2, 3))
    power[keep] = 0  # what is left out still divides, by its mean
    new.beta.copy_(new.beta_reparam.init(beta[keep] + gamma @ power))
    new.gamma.copy_(new.gamma_reparam.init(gamma[:, keep]))


def _rows(v: Tensor) -> Tensor:
    rows = v.permute(0, 2, 3, 1).reshape(-1, v.size(1)).double()
    return rows[:: max(1, len(rows) // 20_000)]


def _least_squares(rows: Tensor, keep: Tensor) -> Tensor:
    return torch.linalg.lstsq(rows[:, keep], rows).solution.float()


def _span(v: Tensor, reader: nn.Module | None, count: int) -> tuple[Tensor, Tensor]:
    """(indexes [count] of the channels that span v's best, weighted by what ``reader`` makes of them; their mix)."""
    if count >= v.size(1):
        return torch.arange(v.size(1)), torch.eye(v.size(1))
    rows = _rows(v)
    weights = 1.0 if reader is None else _out_in(reader).pow(2).sum((0, 2, 3)).sqrt().double()
    _, order = scipy.linalg.qr((rows * weights).numpy(), mode="r", pivoting=True)
    keep = torch.from_numpy(order[:count].copy()).long().sort().values
    return keep, _least_squares(rows, keep)
