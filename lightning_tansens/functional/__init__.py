"""Pure functions: per-sample numbers of a network on a batch."""

from lightning_tansens.bounds.active_nodes import (
    hoeffding_half_width,
    log_absolute_moment,
    log_active_node_bound,
    log_mean_exp,
    log_psi,
)
from lightning_tansens.bounds.chain_bounds import (
    log_active_node_bound_of,
    log_norm_bound,
    log_region_bounds,
    log_sample_norm_bounds,
)
from lightning_tansens.bounds.generalization import Theorem5Bound, lipschitz_constant, theorem5_bound
from lightning_tansens.functional.active_nodes import active_nodes, preactivations
from lightning_tansens.functional.fisher_rao import fisher_rao_norms
from lightning_tansens.functional.gradient_difference import AdversarialSign, Gaussian, gradient_differences, gradient_norms
from lightning_tansens.functional.information import entropy, mutual_information
from lightning_tansens.functional.input_output import input_output_norms
from lightning_tansens.functional.layer_norms import log_max_weights, spectral_norms, weight_layers
from lightning_tansens.functional.mean_tangent import mean_tangent_norm, tangent_matrix, tangent_matrix_sum
from lightning_tansens.functional.regions import (
    activation_patterns,
    activation_regions,
    count_patterns,
    log_max_active_weights,
    neuron_margins,
    pattern_hashes,
)
from lightning_tansens.functional.sketches import tangent_sketches
from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
from lightning_tansens.tangent.sensitivity import chosen_method, tangent_sensitivity, tangent_sensitivity_blocks

__all__ = [
    "AdversarialSign",
    "Gaussian",
    "Theorem5Bound",
    "activation_patterns",
    "activation_regions",
    "active_nodes",
    "chosen_method",
    "count_patterns",
    "entropy",
    "fisher_rao_norms",
    "gradient_differences",
    "gradient_norms",
    "hoeffding_half_width",
    "input_output_norms",
    "lipschitz_constant",
    "log_absolute_moment",
    "log_active_node_bound",
    "log_active_node_bound_of",
    "log_max_active_weights",
    "log_max_weights",
    "log_mean_exp",
    "log_norm_bound",
    "log_psi",
    "log_region_bounds",
    "log_sample_norm_bounds",
    "mean_tangent_norm",
    "mutual_information",
    "neuron_margins",
    "pattern_hashes",
    "preactivations",
    "relu_chain",
    "spectral_norms",
    "tangent_matrix",
    "tangent_matrix_sum",
    "tangent_sensitivity",
    "tangent_sensitivity_blocks",
    "tangent_sketches",
    "theorem5_bound",
    "weight_layers",
]
