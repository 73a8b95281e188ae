"""Looking inside: whether an attack's gradients can be trusted, and how a codec stretches what goes through it."""

from nic_helpers.analysis.gradients import check_gradient, gains, gradient_near, randomness
from nic_helpers.analysis.jacobian import singular_values

__all__ = ["check_gradient", "gains", "gradient_near", "randomness", "singular_values"]
