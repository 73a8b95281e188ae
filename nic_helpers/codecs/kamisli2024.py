"""Kamisli's variable-rate scale hyperprior: a gain on the latents instead of another set of weights."""

from __future__ import annotations

import torch
from compressai.models.vbr import ScaleHyperpriorVbr
from torch import Tensor, nn

from nic_helpers.codecs.google import ScaleHyperprior, by_quality
from nic_helpers.codecs.likelihoods import SMALLEST_SCALE


def gain(model: nn.Module, quality: int) -> Tensor:
    """By how much a variable-rate codec multiplies its latents at a quality (the inverse of the step), [1]."""
    return model.Gain[quality - 1].detach().abs().reshape(1)


def dequantise(offsets: nn.Module, q: Tensor, scales: Tensor, gain: Tensor) -> Tensor:
    """Latents from quantised ones q, at ``scales`` times the gain: away from zero values move towards it by a learned
    offset of (scale, gain) (Kamisli et al. 2024)."""
    stdev = scales.clamp_min(SMALLEST_SCALE)
    offset = -offsets(torch.stack((stdev, gain.expand(stdev.shape)), dim=-1)).squeeze(-1)
    return (q + torch.where(q.abs() > 0.5, torch.sign(q) * offset, 0.0)) / gain


class VariableRate(ScaleHyperprior):
    """One set of weights for every quality, by a gain on the latents and a step of z that follows from it."""

    name, module = "bmshj2018-hyperprior-vbr", ScaleHyperpriorVbr
    paper = (
        "Kamisli et al., Variable-rate learned image compression with multi-objective optimization and "
        "quantization-reconstruction offsets, DCC 2024, arXiv 2402.18930"
    )
    published_widths = by_quality((192, 320), (192, 320), 8, 8)
    variable = True

    @classmethod
    def build(cls, *widths):
        """N, M."""
        return cls.module(*widths, vr_entbttlnck=True).float()

    def gain(self) -> Tensor:
        """At this quality, [1]."""
        return gain(self.model, self.quality)

    def step(self):
        """Of z, from the gain, [1]."""
        return self.model.lower_bound_zqstep(self.model.gayn2zqstep(1 / self.gain()))

    def code(self, coder, y=None, z=None):
        """As the scale hyperprior, on latents times the gain."""
        by = self.gain()
        scales = coder.tap("side", self.h_s(coder.bottleneck("z", z))) * by
        q = coder.gaussian("y", None if y is None else y * by, scales)
        return dequantise(self.QuantABCD, q, scales, by)

    def latents(self, y, quantise):
        """None: the offsets depend on the scales."""
        return None
