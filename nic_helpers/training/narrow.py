"""A trained codec's transforms with fewer channels: those that carry least go, and the rest makes up for them."""

from __future__ import annotations

import scipy.linalg
import torch
from compressai.layers import GDN, AttentionBlock, ResidualBlock, ResidualBlockUpsample
from torch import Tensor, nn

from nic_helpers.training.entropy_start import CONVOLUTIONS, first_of
from nic_helpers.training.kinds import Kind, context, means, residual, side_information


def widths_of(model: nn.Module) -> list[int]:
    first = next(m for m in model.g_a.modules() if isinstance(m, nn.Conv2d))
    return [first.out_channels, _latent_channels(model)]


# At each hidden layer those channels are kept that best span all of them (QR with pivoting); what reads the layer makes
# up for the others by least squares. ``mix`` [kept, all] always gives every channel of the wide codec from those kept.


def narrow(arch: Kind, old: nn.Module, new: nn.Module, x: Tensor, with_entropy_model: bool) -> None:
    """Fill a narrower codec from a wider one of the same transforms: the latents that carry most, layers that span."""
    y = old.g_a(x)
    y_hat, m = torch.round(y), _latent_channels(new)
    keep = largest(y_hat.var((0, 2, 3)), m)
    pick = torch.eye(y.size(1))[keep]
    narrow = _narrow_residual if residual(arch) else _narrow_chain
    narrow(old.g_a, new.g_a, x, torch.eye(3), keep)
    narrow(old.g_s, new.g_s, y_hat, pick, torch.arange(3))
    if not (with_entropy_model and side_information(arch)):
        return
    y = y if means(arch) else y.abs()
    z = old.h_a(y)
    keep_z = largest(torch.round(z).var((0, 2, 3)), new.h_a[-1].out_channels)
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


def _latent_channels(model: nn.Module) -> int:
    return next(m for m in model.g_s.modules() if isinstance(m, CONVOLUTIONS)).in_channels


def largest(values: Tensor, count: int) -> Tensor:
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
