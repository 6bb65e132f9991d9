"""Wrong arguments of every public function."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_tansens import functional as F
from tests.guarantees.test_bad_input import (
    FEW,
    MANY,
    Call,
    annotations_of,
    batch,
    draw_wrong,
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_valid_call_works(name):
    FUNCTIONS[name]()


@pytest.mark.parametrize("name", FUNCTIONS)
@FEW
@given(data=st.data())
def test_a_wrong_argument_works_or_is_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, FUNCTIONS, name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", FUNCTIONS)
@MANY
@given(data=st.data())
def test_many_wrong_arguments_work_or_are_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, FUNCTIONS, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unknown_argument_is_named(name):
    with pytest.raises(TypeError, match="num_prob"):
        FUNCTIONS[name](num_prob=3)
