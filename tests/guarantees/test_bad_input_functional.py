"""Wrong arguments of every public function."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_tansens import functional as F
from tests.guarantees.test_bad_input import (
    FEW,
    Call,
    annotations_of,
    batch,
    draw_wrong,
    fail_as_known,
    known_failures,
    net,
    works_or_is_refused,
)


def of_network(**others):
    return lambda: {"model": net(), "inputs": batch(), **others}


def of_chain():
    return {"chain": F.relu_chain(net(), batch())}


def of_numbers(**numbers):
    return lambda: numbers


def perturb(perturbation, **fields):
    """Constructs a perturbation and applies it."""
    made = perturbation(**fields)
    return F.gradient_differences(net(), batch(), made)


PATTERNS = [[True, False], [False, True]]
MADE_OF = {
    **dict.fromkeys(F.__all__, of_network()),
    **dict.fromkeys(
        [name for name in F.__all__ if name.startswith("log_") and name.endswith(("bound", "bounds"))], of_chain
    ),
    "log_active_node_bound_of": of_chain,
    "AdversarialSign": of_numbers(scale=0.1),
    "Gaussian": of_numbers(scale=0.1),
    "count_patterns": lambda: {"patterns": torch.tensor(PATTERNS)},
    "pattern_hashes": lambda: {"patterns": torch.tensor(PATTERNS)},
    "entropy": lambda: {"series": torch.tensor([0, 1, 1])},
    "mutual_information": lambda: {"first": torch.tensor([0, 1, 1]), "second": torch.tensor([0, 1, 0])},
    "gradient_differences": of_network(perturbation=F.Gaussian(0.1)),
    "hoeffding_half_width": of_numbers(maximum=2.0, num_samples=5),
    "log_absolute_moment": of_numbers(order=3, mean=1.0, std=2.0),
    "log_active_node_bound": of_numbers(num_parameters=9, input_dim=2, depth=3, mean=4.0, std=1.0, max_weight=2.0),
    "log_max_weights": lambda: {"model": net()},
    "log_mean_exp": lambda: {"values": batch(5)},
    "log_psi": of_numbers(depth=3, mean=4.0, std=1.0),
    "lipschitz_constant": of_numbers(loss="cross_entropy"),
    "theorem5_bound": of_numbers(
        k_loss=1.0, k_gradient=2.0, k_initial=3.0, radius=0.5, loss_bound=4.0, num_samples=100, confidence=0.95
    ),
    "weight_layers": lambda: {"model": net()},
}


def call_of(name):
    function = getattr(F, name)
    run = (lambda **fields: perturb(function, **fields)) if isinstance(function, type) else function
    return Call(run, MADE_OF[name], annotations_of(function))


RESULTS = {"Theorem5Bound"}  # what a function returns
FUNCTIONS = {name: call_of(name) for name in F.__all__ if name not in RESULTS}

#: What fails today: functions, arguments, kinds of value, and why.
KNOWN = [
    ("AdversarialSign Gaussian", "scale", "types, nan", "not checked to be a finite number"),
    ("chosen_method", "method", "any", "never compared with the allowed ones"),
    (
        "chosen_method fisher_rao_norms gradient_differences gradient_norms input_output_norms "
        "log_max_active_weights mean_tangent_norm relu_chain tangent_matrix tangent_matrix_sum "
        "tangent_sensitivity tangent_sensitivity_blocks tangent_sketches",
        "output",
        "any, -None",
        "not checked to be callable",
    ),
    (
        "count_patterns",
        "patterns",
        "any, complex numbers, scalar, empty tuple, empty dict, dict of a wrong name",
        "not checked to be a tensor",
    ),
    ("entropy", "series", "any, empty tuple, empty dict, dict of a wrong name", "not checked to be a tensor"),
    ("fisher_rao_norms", "criterion", "any, -None", "not checked to be callable, nor what it returns"),
    ("gradient_differences", "perturbation", "any, -None", "not checked to be callable"),
    ("hoeffding_half_width", "maximum", "types", "compared before it is known to be a number"),
    ("hoeffding_half_width", "num_samples", "types, bool, nan, inf", "int() of what is no number"),
    ("hoeffding_half_width theorem5_bound", "confidence", "types", "compared before it is known to be a number"),
    (
        "log_absolute_moment",
        "order",
        "types, bool, nan, inf, huge",
        "int() of what is no number; a huge one exhausts the memory",
    ),
    (
        "log_absolute_moment log_active_node_bound log_psi",
        "mean std",
        "types",
        "given to math.isfinite before it is known to be a number",
    ),
    ("log_active_node_bound", "num_parameters input_dim num_outputs", "types, bool, nan, inf", "int() of what is no number"),
    (
        "log_active_node_bound log_psi",
        "depth",
        "types, bool, nan, inf, huge",
        "int() of what is no number; a huge one exhausts the memory",
    ),
    ("log_active_node_bound", "max_weight", "types", "given to math.isfinite before it is known to be a number"),
    (
        "log_active_node_bound_of log_norm_bound log_region_bounds log_sample_norm_bounds",
        "chain",
        "any",
        "not checked to be a ReluChain",
    ),
    ("log_max_active_weights relu_chain", "wrt", "empty text", "the network itself is taken for a submodule"),
    (
        "log_mean_exp",
        "values",
        "any, -empty text, integers, complex numbers, single precision, scalar, wrong width, not a number, "
        "infinite, dict of a wrong name",
        "not checked to be a tensor of shape (N,)",
    ),
    ("log_region_bounds", "moments", "any, -None", "not checked to be a pair of numbers"),
    (
        "mutual_information",
        "first second",
        "any, empty tuple, empty dict, dict of a wrong name",
        "not checked to be a tensor",
    ),
    ("pattern_hashes", "patterns", "any, empty tuple, empty dict, dict of a wrong name", "not checked to be a tensor"),
    ("spectral_norms", "cache", "any, -None", "not checked to be a SpectralCache"),
    (
        "tangent_sensitivity tangent_sensitivity_blocks",
        "indices",
        "any, -None, -empty text, -bytes",
        "not checked to be one integer for each sample",
    ),
    ("tangent_sketches", "indices", "any, -None, -bytes", "not checked to be one integer for each sample"),
    (
        "theorem5_bound",
        "k_loss k_gradient k_initial radius loss_bound",
        "types",
        "compared before it is known to be a number",
    ),
    ("theorem5_bound", "num_samples", "any, -negative, -zero", "int() of what is no number"),
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_valid_call_works(name):
    FUNCTIONS[name]()


@pytest.mark.parametrize("name", FUNCTIONS)
@FEW
@given(data=st.data())
def test_a_wrong_argument_works_or_is_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, FUNCTIONS, KNOWN, name))


@pytest.mark.parametrize("rows", known_failures(KNOWN))
def test_known_failures(rows):
    fail_as_known(FUNCTIONS, rows)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unknown_argument_is_named(name):
    with pytest.raises(TypeError, match="num_prob"):
        FUNCTIONS[name](num_prob=3)
