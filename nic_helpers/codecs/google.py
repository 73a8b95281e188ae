"""Ballé's and Minnen's architectures: convolutions with GDN, and entropy models from a factorised one to one with a context model."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from compressai.models import (
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
)
from compressai.models import ScaleHyperprior as CompressAIScaleHyperprior
from torch import Tensor

from nic_helpers.codecs.architecture import Architecture

_BALLE = "Ballé et al., Variational image compression with a scale hyperprior, ICLR 2018, arXiv 1802.01436"
_MINNEN = "Minnen et al., Joint autoregressive and hierarchical priors, NeurIPS 2018, arXiv 1809.02736"


def by_quality(low: tuple[int, ...], high: tuple[int, ...], first_high: int, last: int) -> dict[int, tuple[int, ...]]:
    """The zoo's widths: ``low`` up to a quality, ``high`` from ``first_high`` to ``last``."""
    return {q: (low if q < first_high else high) for q in range(1, last + 1)}


class Factorized(Architecture):
    """No side information: every latent channel has one distribution."""

    name, paper, module = "bmshj2018-factorized", _BALLE, FactorizedPrior
    qualities = tuple(range(1, 9))
    published_widths = by_quality((128, 192), (192, 320), 6, 8)
    stride: ClassVar[int] = 16
    branches: ClassVar = {"y": 16}
    bottlenecks = ("y",)

    def hyper(self, y):
        """None."""
        return None

    def code(self, coder, y=None, z=None):
        """The bottleneck codes y itself."""
        return coder.bottleneck("y", y)

    def latents(self, y, quantise):
        """Rounded around the medians."""
        return quantise(y, self.medians())


class ScaleHyperprior(Architecture):
    """Side information z says how far each latent lies from zero."""

    name, paper, module = "bmshj2018-hyperprior", _BALLE, CompressAIScaleHyperprior
    qualities = tuple(range(1, 9))
    published_widths = by_quality((128, 192), (192, 320), 6, 8)

    def hyper(self, y):
        """Of the magnitudes alone."""
        return self.h_a(torch.abs(y))

    def code(self, coder, y=None, z=None):
        """Scales from z."""
        scales = coder.tap("side", self.h_s(coder.bottleneck("z", z)))
        return coder.gaussian("y", y, scales)

    def latents(self, y, quantise):
        """Rounded."""
        return quantise(y, 0.0)


class MeanScale(Architecture):
    """Side information says where each latent lies, and how far from there."""

    name, paper, module = "mbt2018-mean", _MINNEN, MeanScaleHyperprior
    qualities = tuple(range(1, 9))
    published_widths = by_quality((128, 192), (192, 320), 5, 8)

    def code(self, coder, y=None, z=None):
        """Scales and means from z."""
        scales, means = coder.tap("side", self.h_s(coder.bottleneck("z", z))).chunk(2, 1)
        return coder.gaussian("y", y, scales, means)


class Autoregressive(Architecture):
    """Side information and the 5×5 latents before each one, in raster order, say where it lies.

    With the sequential coders positions along a wavefront go together. The parallel form, as in CompressAI's forward, shows the context
    model y rounded around zero, where the decoder rounds around the means: what is reported is the decoder's.
    """

    name, paper, module = "mbt2018", _MINNEN, JointAutoregressiveHierarchicalPriors
    qualities = tuple(range(1, 9))
    published_widths = by_quality((192, 192), (192, 320), 5, 8)
    parallel_is_exact = False

    def code(self, coder, y=None, z=None):
        """Scales and means from z and the context."""
        side = coder.tap("side", self.h_s(coder.bottleneck("z", z)))
        if not coder.parallel:
            return self._wavefront(coder, y, side)
        y_hat = coder.quantise(y)
        context = coder.tap("context", self.context_prediction(y_hat))
        scales, means = self.entropy_parameters(torch.cat((side, context), dim=1)).chunk(2, 1)
        coder.rate("y", y_hat if coder.noisy else coder.quantise(y, means), scales, means)
        return coder.seen(y_hat, y, means)  # the decoder rounds around them

    def latents(self, y, quantise):
        """Rounded: of the parallel form."""
        return quantise(y, 0.0)

    def _wavefront(self, coder, y: Tensor | None, side: Tensor) -> Tensor:
        """The 5×5 context of position (i, j) reaches back two rows and, in the rows above, two columns ahead; so all positions with
        the same j + 3·i depend on earlier ones only: W + 3·(H − 1) steps instead of H·W. Symbols are coded in that order."""
        kernel = self.context_prediction.weight * self.context_prediction.mask
        taps = [(i, j) for i in range(5) for j in range(5) if (i, j) < (2, 2)]  # what is decoded already
        weight = torch.cat([kernel[:, :, i, j] for i, j in taps], dim=1)  # [2M, 12·M]
        bias = self.context_prediction.bias[:, None]
        (height, width), channels = side.shape[2:], side.size(1) // 2
        y_hat = F.pad(side.new_zeros(channels, height, width), (2, 2, 2, 2))
        rows = torch.arange(height)
        for step in range(width + 3 * (height - 1)):
            i = rows[(step - 3 * rows >= 0) & (step - 3 * rows < width)]
            j = step - 3 * i
            context = weight @ torch.cat([y_hat[:, i + a, j + b] for a, b in taps]) + bias
            merged = torch.cat((side[0][:, i, j], context))[None, :, :, None]
            scales, means = self.entropy_parameters(merged)[0, :, :, 0].chunk(2)
            part = None if y is None else y[0][:, i, j].T
            y_hat[:, i + 2, j + 2] = coder.gaussian("y", part, scales.T, means.T).T
        return y_hat[None, :, 2:-2, 2:-2]
