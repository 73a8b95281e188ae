"""How likely quantised latents are under the two distributions of entropy models."""

from __future__ import annotations

from torch import Tensor, nn

SMALLEST_SCALE = 0.11  # of the Gaussians, CompressAI's


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
