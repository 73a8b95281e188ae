"""The architectures: which CompressAI class a codec's name stands for, and how its entropy model is walked.

CompressAI's own ``forward`` rounds with ``torch.round`` (no gradient), computes everything every time and, for
context models, decodes with a different latent than ``decompress``. The functions here take the same modules apart, so
that a caller chooses the quantiser's surrogate and computes only what is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from compressai.models import (
    Cheng2020Anchor,
    Cheng2020Attention,
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from torch import Tensor, nn

#: λ of the rate–distortion loss R + λ·255²·MSE at CompressAI's quality numbers
#: (https://interdigitalinc.github.io/CompressAI/zoo.html).
LAMBDAS = {1: 0.0018, 2: 0.0035, 3: 0.0067, 4: 0.0130, 5: 0.0250, 6: 0.0483, 7: 0.0932, 8: 0.1800}

Quantiser = Callable[[Tensor, Tensor | float], Tensor]


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

    def build(self, *widths: int) -> nn.Module:
        """A model with random weights: ``build(N, M)``, or ``build(N)`` for the Cheng2020 codecs."""
        return self.cls(*widths)


def _widths(low: tuple[int, ...], high: tuple[int, ...], first_high: int, last: int) -> dict[int, tuple[int, ...]]:
    return {q: (low if q < first_high else high) for q in range(1, last + 1)}


_BALLE = "Ballé et al., Variational image compression with a scale hyperprior, ICLR 2018, arXiv 1802.01436"
_MINNEN = "Minnen et al., Joint autoregressive and hierarchical priors, NeurIPS 2018, arXiv 1809.02736"
_CHENG = "Cheng et al., Learned image compression with discretized Gaussian mixture likelihoods, CVPR 2020"
_BIG = (192, 320)
ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture("bmshj2018-factorized", FactorizedPrior, tuple(range(1, 9)),
                     _widths((128, 192), _BIG, 6, 8), 16, False, False, False, _BALLE),
        Architecture("bmshj2018-hyperprior", ScaleHyperprior, tuple(range(1, 9)),
                     _widths((128, 192), _BIG, 6, 8), 64, True, False, False, _BALLE),
        Architecture("mbt2018-mean", MeanScaleHyperprior, tuple(range(1, 9)),
                     _widths((128, 192), _BIG, 5, 8), 64, True, True, False, _MINNEN),
        Architecture("mbt2018", JointAutoregressiveHierarchicalPriors, tuple(range(1, 9)),
                     _widths((192, 192), _BIG, 5, 8), 64, True, True, True, _MINNEN),
        Architecture("cheng2020-anchor", Cheng2020Anchor, tuple(range(1, 7)),
                     _widths((128,), (192,), 4, 6), 64, True, True, True, _CHENG),
        Architecture("cheng2020-attn", Cheng2020Attention, tuple(range(1, 7)),
                     _widths((128,), (192,), 4, 6), 64, True, True, True, _CHENG),
    )
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- quantisers
def round_ste(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """Round v − offset to integers and add the offset back; the gradient passes as if nothing had been rounded."""
    return v + (torch.round(v - offset) + offset - v).detach()


def round_true(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """What the codec really does: the gradient is zero almost everywhere."""
    return torch.round(v - offset) + offset


def add_noise(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """Uniform noise in ±½ instead of rounding, as in training (Ballé 2017)."""
    return v + torch.empty_like(v).uniform_(-0.5, 0.5)


def identity(v: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """No quantisation at all (Chen & Ma 2023's attack code)."""
    return v


QUANTISERS: dict[str | None, Quantiser] = {None: round_true, "ste": round_ste, "noise": add_noise, "identity": identity}


# ------------------------------------------------------------------------------------------------- entropy models
def bottleneck_likelihood(bottleneck: nn.Module, z: Tensor) -> Tensor:
    """Likelihood of each element of z [B, C, h, w] under a factorised entropy bottleneck, floored at 1e-9."""
    values = z.transpose(0, 1).reshape(z.size(1), 1, -1)
    likelihood = bottleneck.likelihood_lower_bound(bottleneck._likelihood(values)[0])
    return likelihood.reshape(z.size(1), z.size(0), *z.shape[2:]).transpose(0, 1)


def medians(bottleneck: nn.Module) -> Tensor:
    """The bottleneck's rounding offsets [1, C, 1, 1]."""
    return bottleneck._get_medians().detach().reshape(1, -1, 1, 1)


def gaussian_likelihood(conditional: nn.Module, y: Tensor, scales: Tensor, means: Tensor | None) -> Tensor:
    """Likelihood of each element of y [B, C, h, w] under N(means, scales²) integrated over ±½, floored at 1e-9."""
    return conditional.likelihood_lower_bound(conditional._likelihood(y, scales, means))


# ---------------------------------------------------------------------------------------------------------- walks
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
    x: Tensor,
    quantise: Quantiser = round_true,
    *,
    synthesis: bool = True,
    rate: bool = True,
    amp: torch.dtype | None = None,
) -> Walk:
    """Run the codec on padded images x [B, 3, H, W] in [0, 1], in its parallel (differentiable) form.

    ``rate=False`` skips everything that the reconstruction does not depend on; ``synthesis=False`` skips the decoder's
    transform. ``amp`` runs the transforms in that precision (the entropy models always run in float32).
    For a context model the reconstruction is g_s(quantise(y)), as in CompressAI's forward; what its decoder really
    rebuilds is :meth:`nic_helpers.entropy.EntropyCoder.latents`.
    """

    def run(transform: nn.Module, v: Tensor) -> Tensor:
        if amp is None:
            return transform(v)
        with torch.autocast(v.device.type, dtype=amp):
            return transform(v).float()

    y = run(model.g_a, x)
    w = Walk(y=y, y_hat=None)
    if not arch.side_information:
        w.y_hat = quantise(y, medians(model.entropy_bottleneck))
        if rate:
            w.likelihoods = {"y": bottleneck_likelihood(model.entropy_bottleneck, w.y_hat)}
    else:
        if rate or (arch.means and not arch.context):
            w.z = run(model.h_a, y if arch.means else torch.abs(y))
            w.z_hat = quantise(w.z, medians(model.entropy_bottleneck))
            params = run(model.h_s, w.z_hat)
        if arch.context or not arch.means:
            w.y_hat = quantise(y, 0.0)
        if arch.context and rate:
            context = model.context_prediction(w.y_hat)
            params = model.entropy_parameters(torch.cat((params, context), dim=1))
        if arch.means and (rate or not arch.context):
            w.scales, w.means = params.chunk(2, 1)
        elif rate:
            w.scales = params
        if w.y_hat is None:
            w.y_hat = quantise(y, w.means)
        if rate:
            y_tilde = quantise(y, w.means) if arch.context and quantise is not add_noise else w.y_hat
            w.likelihoods = {
                "y": gaussian_likelihood(model.gaussian_conditional, y_tilde, w.scales, w.means),
                "z": bottleneck_likelihood(model.entropy_bottleneck, w.z_hat),
            }
    if synthesis:
        w.x_hat = run(model.g_s, w.y_hat)
    return w
