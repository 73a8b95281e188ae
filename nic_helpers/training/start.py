"""Where a training run begins from nothing: principal components, or random weights for comparison.

With CompressAI's own random weights Adam loses thousands of steps, in which the latents round to zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from compressai.layers import GDN, AttentionBlock, ResidualBlock, ResidualBlockUpsample, ResidualBlockWithStride
from torch import Tensor, nn

from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.cai2022 import Cai2022
from nic_helpers.codecs.coders import walk
from nic_helpers.codecs.kamisli2024 import gain
from nic_helpers.codecs.liu2023 import MixedBlock, Tcm
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.song2021 import Song2021
from nic_helpers.codecs.zou2022 import Stf
from nic_helpers.training.entropy_start import CONVOLUTIONS, expect_latents, start_entropy_model, unit_variance
from nic_helpers.training.invertible_start import invertible_components
from nic_helpers.training.kinds import channel_wise, has_other_transforms, quality_of, residual
from nic_helpers.training.song_start import carry_quality, expect, hand_on_colours, quiet_conditions
from nic_helpers.training.swin_start import swin_components


def _near_identity_gdn(model: nn.Module, gamma: float) -> None:
    """(I)GDN layers with a small diagonal γ: the activations pass almost unchanged at first."""
    for m in model.modules():
        if isinstance(m, GDN):
            m.gamma.data.copy_(m.gamma_reparam.init(gamma * torch.eye(m.gamma.size(0))))


def _principal_components(v: Tensor, active: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top ``count`` principal components of the 2×2 blocks of v [B, C, H, W], first ``active`` channels.

    Returns (components [count, active, 2, 2], mean [active, 2, 2], standard deviations [count]).
    """
    v = v[:, :active]
    blocks = v.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, active * 4).double()
    mean = blocks.mean(0)
    variances, vectors = torch.linalg.eigh(torch.cov((blocks - mean).T))
    order = torch.argsort(variances, descending=True)[:count]
    parts = vectors[:, order].T.reshape(-1, active, 2, 2)
    return parts.float(), mean.reshape(active, 2, 2).float(), variances[order].clamp_min(0).sqrt().float()


def _set_analysis(conv: nn.Conv2d, parts: Tensor, mean: Tensor, gain: float = 1.0) -> None:
    """Make a stride-2 convolution compute the principal components of the 2×2 block that it starts at."""
    count, active = parts.shape[:2]
    first = conv.kernel_size[0] // 2  # output i looks at inputs 2i − k//2 …, so the block (2i, 2i+1) starts there
    nn.init.normal_(conv.weight, std=0.02)
    conv.weight.data[:count] = 0
    conv.weight.data[:count, :active, first : first + 2, first : first + 2] = gain * parts
    conv.bias.data.zero_()
    conv.bias.data[:count] = -gain * (parts * mean).sum((1, 2, 3))


def _set_transposed(deconv: nn.ConvTranspose2d, parts: Tensor, mean: Tensor, gain: float = 1.0) -> None:
    """The inverse of :func:`_set_analysis` as a transposed convolution: blocks from their components."""
    count, active = parts.shape[:2]
    first = deconv.kernel_size[0] // 2
    nn.init.normal_(deconv.weight, std=0.005)
    deconv.weight.data[:count, :active] = 0
    deconv.weight.data[:count, :active, first : first + 2, first : first + 2] = parts / gain
    deconv.bias.data.zero_()
    deconv.bias.data[:active] = mean.mean((1, 2))


def _set_subpel(conv: nn.Conv2d, parts: Tensor, mean: Tensor, gain: float = 1.0) -> None:
    """The inverse of :func:`_set_analysis` as a convolution followed by PixelShuffle(2)."""
    count, active = parts.shape[:2]
    middle = conv.kernel_size[0] // 2
    nn.init.normal_(conv.weight, std=0.005)
    conv.weight.data[: 4 * active, :count] = 0
    conv.weight.data[: 4 * active, :count, middle, middle] = (parts / gain).reshape(count, -1).T
    conv.bias.data.zero_()
    conv.bias.data[: 4 * active] = mean.reshape(-1)


def close_gate(block: nn.Module) -> None:
    """Cheng2020's attention block, or WACNN's, that starts all but closed, and can still open: sigmoid(−4) = 0.02."""
    shrink(block.conv_b[-1], 0.1)
    block.conv_b[-1].bias.data.fill_(-4.0)


def shrink(conv: nn.Module, factor: float) -> None:
    """Scale a layer's weight and bias."""
    conv.weight.data.mul_(factor)
    conv.bias.data.mul_(factor)


@torch.no_grad()
def pca_initialise(arch_name: str, model: nn.Module, x: Tensor, lmbda: float) -> None:
    """Start the transforms as a four-level Karhunen–Loève transform of the training images, and its inverse.

    With random weights the latents round to zero and thousands of steps are lost. Here each stride-2 layer computes the
    principal components of 2×2 blocks of its input, the synthesis mirrors it, and the last gain sets the quantiser's
    step to what λ asks for (8 at λ = 0.013, growing as √λ). In Cheng2020's blocks, which Liu's codec has too, the analysis
    runs through the main branch, lifted by a bias into LeakyReLU's linear part; the synthesis through the linear
    ``upsample`` branch; every other residual branch starts small. STF: see :func:`swin_components`; Cai:
    :func:`invertible_components`; Song: :func:`carry_quality`.

    Parameters: x [B, 3, H, W] in [0, 1], a few hundred crops' worth of pixels.
    """
    arch = ARCHITECTURES[arch_name]
    if has_other_transforms(arch) and arch not in (Stf, Tcm, Cai2022, Song2021):
        raise ValueError(f"{arch_name} has no principal-component start: begin from 'random', 'default', or from a run of its own")
    in_blocks = residual(arch) or arch is Tcm
    scale = 8.0 * math.sqrt(lmbda / 0.013)
    if arch is Cai2022:
        invertible_components(model, x, scale, lmbda)
        start_entropy_model(arch, model, arch(model, quality_of(lmbda)).analysis(x))
        return
    if arch is Song2021:
        _near_identity_gdn(model, 0.01)
        y = _pca_song(model, x, scale)
        model.h_a[-3].weight.mul_(2.0 / _deviation(arch(model, quality_of(lmbda)).hyper(y)))
        carry_quality(model)
        return
    # GDN and IGDN undo each other in the plain codecs; in Cheng2020's the linear branch has no IGDN to undo a GDN
    _near_identity_gdn(model, 1e-4 if in_blocks else 0.01)
    if arch.variable:
        scale /= float(gain(model, quality_of(lmbda)))
        neutral_variable_rate(model)
    stages = swin_components if arch is Stf else _pca_residual if in_blocks else _pca_plain
    latents = stages(model, x, scale)
    if channel_wise(arch):
        expect_latents(model, latents)
    else:
        start_entropy_model(arch, model, latents)


def _pca_plain(model: nn.Module, x: Tensor, gain: float, analysis: Sequence[nn.Module] = ()) -> Tensor:
    """``analysis``: layers of g_a that halve the resolution, and what stands between them; all of g_a, where none are given."""
    v, active = x, 3
    ups = [m for m in model.g_s if isinstance(m, nn.ConvTranspose2d)]
    for module in analysis or model.g_a:
        if isinstance(module, nn.Conv2d):
            scale, up = 1.0 if len(ups) > 1 else gain, ups.pop()
            parts, mean, _ = _principal_components(v, active, min(module.out_channels, 4 * active))
            _set_analysis(module, parts, mean, scale)
            _set_transposed(up, parts, mean, scale)
            active = len(parts)
        v = module(v)
    return v


def _pca_song(model: nn.Module, x: Tensor, gain: float) -> Tensor:
    """As the plain ones, between two layers at full resolution that hand on the colours."""
    quiet_conditions(model)
    hand_on_colours(model)
    first, normalised, *rest = (m for m in model.g_a if isinstance(m, (nn.Conv2d, GDN)))
    y = _pca_plain(model, normalised(first(x)), gain, rest)
    expect(model, y)
    return y


def _pca_residual(model: nn.Module, x: Tensor, gain: float) -> Tensor:
    v, active = x, 3
    downs = [m for m in model.g_a if isinstance(m, (ResidualBlockWithStride, nn.Conv2d))]
    ups = [m for m in model.g_s if isinstance(m, (ResidualBlockUpsample, nn.Sequential))][::-1]
    for m in [*model.g_a, *model.g_s]:
        if isinstance(m, ResidualBlock):
            shrink(m.conv2, 0.01)
        elif isinstance(m, AttentionBlock):
            close_gate(m)
        elif isinstance(m, MixedBlock):
            shrink(m.conv1_2, 0.01)
    for module in model.g_a:
        if module in downs:
            k = downs.index(module)
            last = k == len(downs) - 1
            width = module.out_channels if last else module.conv1.out_channels
            parts, mean, spread = _principal_components(v, active, min(width, 4 * active))
            up = ups[k][0] if isinstance(ups[k], nn.Sequential) else ups[k].upsample[0]
            _set_subpel(up, parts, mean, gain if last else 1.0)
            if last:
                _set_analysis(module, parts, mean, gain)
            else:
                _set_analysis(module.conv1, parts, mean)
                lift = torch.zeros(width)
                lift[: len(parts)] = 5 * spread
                module.conv1.bias.data.add_(lift)
                nn.init.normal_(module.conv2.weight, std=0.005)
                module.conv2.weight.data[: len(parts)] = 0
                index = torch.arange(len(parts))
                module.conv2.weight.data[index, index, 1, 1] = 1.0
                module.conv2.bias.data.copy_(-lift)
                shrink(module.skip, 0.002)
            active = len(parts)
        v = module(v)
    for up in ups:
        if isinstance(up, ResidualBlockUpsample):
            shrink(up.conv, 0.01)
    return v


def neutral_variable_rate(model: nn.Module) -> None:
    """z's step starts at 1 for every gain, the reconstruction offsets at 0."""
    shrink(model.gayn2zqstep[-2], 0.01)
    model.gayn2zqstep[-2].bias.fill_(math.log(math.e - 1))  # softplus gives 1
    shrink(model.QuantABCD[-1], 0.01)


@torch.no_grad()
def random_initialise(arch_name: str, model: nn.Module, x: Tensor, lmbda: float) -> None:
    """Random weights that keep the variance from layer to layer, for comparison with :func:`pca_initialise`.

    In the plain (GDN) codecs every convolution is Gaussian and scaled so that its output has unit variance on the images x [B, 3, H, W]
    (layer-sequential unit variance: Mishkin & Matas, ICLR 2016); the last one of the analysis is scaled to the spread
    that λ asks for, the last one of the synthesis to the images' own. In the architectures with transforms of their own the weights
    are their own random ones, and only what comes out is scaled (:func:`_right_size`, :func:`_spread_latents`). Not for Cheng2020.
    """
    arch, spread = ARCHITECTURES[arch_name], 8.0 * math.sqrt(lmbda / 0.013)
    if channel_wise(arch):
        _right_size(arch, model, x, spread)
        return
    if residual(arch):
        raise ValueError(f"the random start is for the plain codecs, not {arch_name}")
    if has_other_transforms(arch):
        _spread_latents(arch(model, quality_of(lmbda)), x, spread)
        return
    latents = unit_variance(model.g_a, x, spread)
    unit_variance(model.g_s, latents, float(x.std()))
    model.g_s[-1].bias.data.fill_(float(x.mean()))
    start_entropy_model(arch, model, latents)


def _spread_latents(arch: Architecture, x: Tensor, spread: float) -> None:
    """Song's or Cai's own random weights, with outputs of the size that they should have on the images x.

    Latents vary by ``spread`` around their channels' means, side information by 2; the entropy model expects such latents; Song's
    synthesis, whose gains grow with what it sees, sees them as if they varied by 1, and its pictures vary as the images do.
    """
    model, up = arch.model, spread / _deviation(arch.analysis(x))
    if isinstance(arch, Cai2022):
        model.g_a[-1].affine.mlp_gamma[-1].bias.fill_(up - 1)
        predicted, side = model.entropy_parameters[-1], model.h_a[-1]
    else:
        model.g_a[-3].weight.mul_(up)
        predicted, side = model.h_s[-1], model.h_a[-3]
    y = arch.analysis(x)
    predicted.bias.add_(torch.cat((y.new_full((model.M,), spread), y.mean((0, 2, 3)))))
    side.weight.mul_(2.0 / _deviation(arch.hyper(y)))
    if not isinstance(arch, Cai2022):
        for first in (model.condition_s["1"][0], model.g_s[2]):
            first.weight.div_(spread)
        x_hat = walk(arch, x, rate=False).x_hat
        model.g_s[-1].weight.mul_(x.std() / x_hat.std())
        model.g_s[-1].bias.fill_(float(x.mean()))


def _deviation(v: Tensor) -> Tensor:
    """The standard deviation of features [B, C, h, w] around their channels' means."""
    return (v - v.mean((0, 2, 3), keepdim=True)).std()


def _right_size(arch, model: nn.Module, x: Tensor, spread: float) -> None:
    """A channel-wise codec's own random weights, with outputs of the size that they should have on the images x.

    Latents get the given spread, side information one of 2; the entropy model starts at each channel's mean and spread;
    pictures have the images' own.
    """
    factor = spread / model.g_a(x).std((0, 2, 3)).mean()
    for p in model.get_submodule(arch.latent_gain).parameters():
        p.mul_(factor)
    y = model.g_a(x)
    expect_latents(model, y)
    last = [layer for layer in model.g_s.modules() if isinstance(layer, CONVOLUTIONS)][-1]
    last.weight.mul_(x.std() / model.g_s(y).std())
    last.bias.zero_().add_(x.mean())


def default_initialise(arch_name: str, model: nn.Module, x: Tensor, lmbda: float) -> None:
    """CompressAI's own random weights, as they are: what everybody else begins from."""


#: Where a run that begins from nothing begins: name -> a function of (architecture, model, images, λ).
INITIALISE = {"pca": pca_initialise, "random": random_initialise, "default": default_initialise}
