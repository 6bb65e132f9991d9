"""Pure functions: per-sample numbers of a network on a batch."""

from lightning_tansens.functional.active_nodes import active_nodes, preactivations
from lightning_tansens.functional.layer_norms import log_max_weights, weight_layers
from lightning_tansens.functional.moments import log_absolute_moment, log_psi
from lightning_tansens.functional.tangent_sensitivity import (
    chosen_method,
    tangent_sensitivity,
    tangent_sensitivity_blocks,
)

__all__ = [
    "active_nodes",
    "chosen_method",
    "log_absolute_moment",
    "log_max_weights",
    "log_psi",
    "preactivations",
    "tangent_sensitivity",
    "tangent_sensitivity_blocks",
    "weight_layers",
]
