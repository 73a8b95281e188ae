"""The architectures: which CompressAI class a codec's name stands for, and how its entropy model is walked.

CompressAI's own ``forward`` rounds with ``torch.round`` (no gradient), computes everything every time and, for
context models, decodes with a different latent than ``decompress``. The functions here take the same modules apart, so
that a caller chooses the quantiser's surrogate and computes only what is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from compressai.layers import AttentionBlock, ResidualBlock, ResidualBlockUpsample, conv3x3
from compressai.models import (
    Cheng2020Anchor,
    Cheng2020Attention,
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from compressai.models.vbr import ScaleHyperpriorVbr
from torch import Tensor, nn

from nic_helpers.codecs.quantisers import Quantiser, add_noise, round_true, share_noise

#: λ of the rate–distortion loss R + λ·255²·MSE at CompressAI's quality numbers
#: (https://interdigitalinc.github.io/CompressAI/zoo.html).
LAMBDAS = {1: 0.0018, 2: 0.0035, 3: 0.0067, 4: 0.0130, 5: 0.0250, 6: 0.0483, 7: 0.0932, 8: 0.1800}
SMALLEST_SCALE = 0.11  # of the Gaussians, CompressAI's


@dataclass(frozen=True)
class Architecture:
    """What the rest of the package must know about a CompressAI model class."""

    name: str
    cls: type[nn.Module]
    qualities: tuple[int, ...]
    published_widths: dict[int, tuple[int, ...]]  # quality -> constructor arguments of the zoo's models
    stride: int  # the padded image's sides are multiples of this
    side_information: bool  # has a hyperprior z
    means: bool  # the hyperprior predicts means as well as scales
    context: bool  # the entropy parameters depend on already decoded latents
    paper: str

    @property
    def residual(self) -> bool:
        """Whether the transforms are Cheng2020's residual blocks (else convolutions with GDN)."""
        return issubclass(self.cls, Cheng2020Anchor)

    @property
    def variable(self) -> bool:
        """Whether one set of weights serves every quality, by a gain on the latents (``model.level`` = quality − 1)."""
        return issubclass(self.cls, ScaleHyperpriorVbr)

    def build(self, *widths: int) -> nn.Module:
        """A model with random weights: ``build(N, M)``; a Cheng2020 codec's M is N where it is left out.

        In float32, whatever torch's default is.
        """
        if self.variable:
            model = self.cls(*widths, vr_entbttlnck=True)
            model.level = 0
        elif not self.residual:
            model = self.cls(*widths)
        else:
            model = self.cls(widths[0])
            if len(widths) == 2 and widths[1] != widths[0]:
                _widen_latents(model, *widths)
        return model.float()


def _widen_latents(model: Cheng2020Anchor, n: int, m: int) -> None:
    """Give a Cheng2020 codec M ≠ N latent channels: every layer at the latents' resolution gets M, all others keep N.

    CompressAI's class has M = N, and M bounds the quality: a compact codec needs more latents than it can afford
    channels at full resolution.
    """
    k = max(i for i, layer in enumerate(model.g_a) if isinstance(layer, nn.Conv2d))
    model.g_a[k] = conv3x3(n, m, stride=2)
    for transform, ends in ((model.g_a, range(k + 1, len(model.g_a))), (model.g_s, (0,))):
        for i in ends:
            if isinstance(transform[i], AttentionBlock):
                transform[i] = AttentionBlock(m)
    k = min(i for i, layer in enumerate(model.g_s) if isinstance(layer, ResidualBlock))
    model.g_s[k], model.g_s[k + 1] = ResidualBlock(m, m), ResidualBlockUpsample(m, n, 2)
    model.h_a[0], model.h_s[-1] = conv3x3(m, n), conv3x3(n * 3 // 2, m * 2)
    joint = JointAutoregressiveHierarchicalPriors(1, m)
    model.context_prediction, model.entropy_parameters = joint.context_prediction, joint.entropy_parameters
    model.M = m


def _widths(low: tuple[int, ...], high: tuple[int, ...], first_high: int, last: int) -> dict[int, tuple[int, ...]]:
    return {q: (low if q < first_high else high) for q in range(1, last + 1)}


_BALLE = "Ballé et al., Variational image compression with a scale hyperprior, ICLR 2018, arXiv 1802.01436"
_MINNEN = "Minnen et al., Joint autoregressive and hierarchical priors, NeurIPS 2018, arXiv 1809.02736"
_CHENG = "Cheng et al., Learned image compression with discretized Gaussian mixture likelihoods, CVPR 2020"
_KAMISLI = (
    "Kamisli et al., Variable-rate learned image compression with multi-objective optimization and "
    "quantization-reconstruction offsets, DCC 2024, arXiv 2402.18930"
)
_BIG = (192, 320)
ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(
            "bmshj2018-factorized",
            FactorizedPrior,
            tuple(range(1, 9)),
            _widths((128, 192), _BIG, 6, 8),
            16,
            False,
            False,
            False,
            _BALLE,
        ),
        Architecture(
            "bmshj2018-hyperprior",
            ScaleHyperprior,
            tuple(range(1, 9)),
            _widths((128, 192), _BIG, 6, 8),
            64,
            True,
            False,
            False,
            _BALLE,
        ),
        Architecture(
            "mbt2018-mean", MeanScaleHyperprior, tuple(range(1, 9)), _widths((128, 192), _BIG, 5, 8), 64, True, True, False, _MINNEN
        ),
        Architecture(
            "mbt2018",
            JointAutoregressiveHierarchicalPriors,
            tuple(range(1, 9)),
            _widths((192, 192), _BIG, 5, 8),
            64,
            True,
            True,
            True,
            _MINNEN,
        ),
        Architecture(
            "cheng2020-anchor", Cheng2020Anchor, tuple(range(1, 7)), _widths((128,), (192,), 4, 6), 64, True, True, True, _CHENG
        ),
        Architecture(
            "cheng2020-attn", Cheng2020Attention, tuple(range(1, 7)), _widths((128,), (192,), 4, 6), 64, True, True, True, _CHENG
        ),
        Architecture(
            "bmshj2018-hyperprior-vbr",
            ScaleHyperpriorVbr,
            tuple(range(1, 9)),
            _widths(_BIG, _BIG, 8, 8),
            64,
            True,
            False,
            False,
            _KAMISLI,
        ),
    )
}


def bottleneck_likelihood(bottleneck: nn.Module, z: Tensor, step: Tensor | None = None) -> Tensor:
    """Likelihood of each element of z [B, C, h, w] under a factorised entropy bottleneck, floored at 1e-9.

    ``step``: the quantiser's step, where it is not 1 (variable-rate codecs).
    """
    values = z.transpose(0, 1).reshape(z.size(1), 1, -1)
    found = bottleneck._likelihood(values) if step is None else bottleneck._likelihood_variable(values, qs=step)
    likelihood = bottleneck.likelihood_lower_bound(found[0])
    return likelihood.reshape(z.size(1), z.size(0), *z.shape[2:]).transpose(0, 1)


def medians(bottleneck: nn.Module) -> Tensor:
    """The bottleneck's rounding offsets [1, C, 1, 1]."""
    return bottleneck._get_medians().detach().reshape(1, -1, 1, 1)


def gaussian_likelihood(conditional: nn.Module, y: Tensor, scales: Tensor, means: Tensor | None) -> Tensor:
    """Likelihood of each element of y [B, C, h, w] under N(means, scales²) integrated over ±½, floored at 1e-9."""
    return conditional.likelihood_lower_bound(conditional._likelihood(y, scales, means))


def gain(model: nn.Module) -> Tensor:
    """By how much a variable-rate codec multiplies its latents at ``model.level`` (the inverse of the step), [1]."""
    return model.Gain[model.level].detach().abs().reshape(1)


def bottleneck_step(model: nn.Module) -> Tensor:
    """The step at which a variable-rate codec quantises z at ``model.level``, [1]."""
    return model.lower_bound_zqstep(model.gayn2zqstep(1 / gain(model)))


def dequantise(offsets: nn.Module, q: Tensor, scales: Tensor, gain: Tensor) -> Tensor:
    """Latents from quantised ones q, at ``scales`` times the gain: away from zero values move towards it by a learned
    offset of (scale, gain) (Kamisli et al. 2024)."""
    stdev = scales.clamp_min(SMALLEST_SCALE)
    offset = -offsets(torch.stack((stdev, gain.expand(stdev.shape)), dim=-1)).squeeze(-1)
    return (q + torch.where(q.abs() > 0.5, torch.sign(q) * offset, 0.0)) / gain


@dataclass
class Walk:
    """What one pass through a codec produced. Tensors are [B, C, h, w]; those not asked for are None."""

    y: Tensor
    y_hat: Tensor
    x_hat: Tensor | None = None  # not clamped
    z: Tensor | None = None
    z_hat: Tensor | None = None
    scales: Tensor | None = None
    means: Tensor | None = None
    likelihoods: dict[str, Tensor] | None = None  # branch ("y", "z") -> likelihood of each element

    def bits(self) -> dict[str, Tensor]:
        """Estimated bits per image [B] of each branch: −Σ log2 likelihood."""
        return {k: -torch.log2(v).flatten(1).sum(1) for k, v in self.likelihoods.items()}


def walk(
    arch: Architecture,
    model: nn.Module,
    x: Tensor | None,
    quantise: Quantiser = round_true,
    *,
    y: Tensor | None = None,
    synthesis: bool = True,
    rate: bool = True,
    synthesise: Quantiser | None = None,
    amp: torch.dtype | None = None,
    exact_ends: bool = False,
) -> Walk:
    """Run the codec on padded images x [B, 3, H, W] in [0, 1], in its parallel (differentiable) form.

    ``y`` gives the latents [B, M, H/16, W/16] instead of the images. ``rate=False`` skips everything that the
    reconstruction does not depend on; ``synthesis=False`` skips the decoder's transform. ``synthesise`` (default:
    ``quantise``) gives the latents that the decoder's transform sees. ``amp`` runs g_a, g_s, h_a and h_s in that
    precision (context models and likelihoods always run in float32); with ``exact_ends`` all but the first layer of g_a
    and the last of g_s, which see the picture itself.
    For a context model the reconstruction is g_s(quantise(y)), as in CompressAI's forward; what its decoder really
    rebuilds is :meth:`nic_helpers.entropy.EntropyCoder.latents`.
    """

    def run(transform: nn.Module, v: Tensor) -> Tensor:
        if amp is None:
            return transform(v)
        first, last = (exact_ends and transform is end for end in (model.g_a, model.g_s))
        v = transform[0](v) if first else v
        with torch.autocast(v.device.type, dtype=amp):
            v = transform[int(first) : len(transform) - int(last)](v).float()
        return transform[-1](v) if last else v

    y = run(model.g_a, x) if y is None else y
    w = Walk(y=y, y_hat=None)
    if not arch.side_information:
        w.y_hat = quantise(y, medians(model.entropy_bottleneck))
        if rate:
            w.likelihoods = {"y": bottleneck_likelihood(model.entropy_bottleneck, w.y_hat)}
    else:
        step = bottleneck_step(model) if arch.variable else None
        if rate or arch.variable or (arch.means and not arch.context):
            w.z = run(model.h_a, y if arch.means else torch.abs(y))
            offset = medians(model.entropy_bottleneck)
            w.z_hat = quantise(w.z, offset) if step is None else quantise(w.z / step, offset / step) * step
            params = run(model.h_s, w.z_hat)
        if arch.variable:
            w.scales = params * gain(model)
            q = quantise(y * gain(model), 0.0)
            w.y_hat = dequantise(model.QuantABCD, q, w.scales, gain(model))
        elif arch.context or not arch.means:
            w.y_hat = quantise(y, 0.0)
        if arch.context and rate:
            context = model.context_prediction(w.y_hat)
            params = model.entropy_parameters(torch.cat((params, context), dim=1))
        if arch.means and (rate or not arch.context):
            w.scales, w.means = params.chunk(2, 1)
        elif rate and not arch.variable:
            w.scales = params
        if w.y_hat is None:
            w.y_hat = quantise(y, w.means)
        if rate:
            y_tilde = q if arch.variable else w.y_hat
            if arch.context and quantise not in (add_noise, share_noise):
                y_tilde = quantise(y, w.means)
            w.likelihoods = {
                "y": gaussian_likelihood(model.gaussian_conditional, y_tilde, w.scales, w.means),
                "z": bottleneck_likelihood(model.entropy_bottleneck, w.z_hat, step),
            }
    if synthesis:
        seen = w.y_hat
        if synthesise is not None and arch.variable:
            seen = dequantise(model.QuantABCD, synthesise(y * gain(model), 0.0), w.scales, gain(model))
        elif synthesise is not None:
            offset = 0.0 if arch.side_information else medians(model.entropy_bottleneck)
            seen = synthesise(y, w.means if arch.means and not arch.context else offset)
        w.x_hat = run(model.g_s, seen)
    return w
