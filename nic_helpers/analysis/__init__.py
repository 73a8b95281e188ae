"""Looking inside: whether an attack's gradients can be trusted, which branch, layer and place an attack works through."""

from nic_helpers.analysis.entropy import eci
from nic_helpers.analysis.exact import worst_case
from nic_helpers.analysis.generations import Repeated, again, recompress, settled
from nic_helpers.analysis.gradients import check_gradient, gains, gradient_near, randomness
from nic_helpers.analysis.growth import growth_exponent
from nic_helpers.analysis.jacobian import singular_values
from nic_helpers.analysis.layers import ldmr
from nic_helpers.analysis.maps import bit_map, error_change, rate_change

__all__ = [
    "Repeated",
    "again",
    "bit_map",
    "check_gradient",
    "eci",
    "error_change",
    "gains",
    "gradient_near",
    "growth_exponent",
    "ldmr",
    "randomness",
    "rate_change",
    "recompress",
    "settled",
    "singular_values",
    "worst_case",
]
