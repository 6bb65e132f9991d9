"""One record for each operator: what is registered is known everywhere."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.functional import active_nodes, chosen_method, tangent_sensitivity
from lightning_tansens.tangent import BroadcastRule, Operator, Result, register_operator
from lightning_tansens.tangent.closed_form import links
from lightning_tansens.tangent.features import outputs_and_features
from lightning_tansens.tangent.operators import registry
from lightning_tansens.tangent.operators.registry import operator_of
from tests.cases import Lambda, mlp
from tests.helpers import assert_equal
from tests.modules import normal


@pytest.fixture
def forgets(monkeypatch):
    """Forgets at the end what a test registers."""
    monkeypatch.setattr(registry, "_known", dict(registry._known))


def scaled():
    return Lambda(lambda m, x: torch.addcmul(x, x, m.scale).tanh(), scale=nn.Parameter(torch.randn(4)))


def addcmul(input, tensor1, tensor2, *, value=1):
    return Result(
        torch.addcmul(input, tensor1, tensor2, value=value),
        value * tensor1,
        [(tensor2, BroadcastRule(tensor2.shape, multiplies=True))],
    )


def test_a_rule_of_the_users_own_is_taken_at_once(forgets):
    model, x = scaled().double(), normal(4)(3)
    assert chosen_method(model, x).way == "parameter_space"
    exact = tangent_sensitivity(model, x, method="exact")
    register_operator(Operator((torch.addcmul,), rule=addcmul))
    assert chosen_method(model, x).way == "input_space"
    assert_equal(tangent_sensitivity(model, x, method="exact"), exact)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_wrong_rule_is_found_out(forgets, dtype):
    register_operator(
        Operator((torch.addcmul,), rule=lambda x, a, b: Result(torch.addcmul(x, a, b), 2 * a, addcmul(x, a, b).rules))
    )
    choice = chosen_method(scaled().to(dtype), normal(4)(3).to(dtype))
    assert choice.way == "parameter_space"
    assert "parameter 'scale' is also used where no layer rule sees it" in choice.reason


def test_a_link_an_activation_and_a_weight_layer(forgets):
    model = Lambda(lambda m, x: m.b(torch.nn.functional.hardshrink(m.a(x))), a=nn.Linear(4, 5), b=nn.Linear(5, 2))
    with pytest.raises(ValueError, match="calls none that is known"):
        active_nodes(model, torch.randn(3, 4))
    register_operator(Operator((F.hardshrink,), is_activation=True))
    assert active_nodes(model, torch.randn(3, 4)).shape == (3, 1)
    assert operator_of(F.hardshrink).link is links.piecewise  # what the new record does not speak of stays
    squared = Lambda(lambda m, x: torch.square(m.a(x)), a=nn.Linear(4, 5))
    register_operator(Operator((torch.square,), is_weight_layer=True))
    _, features = outputs_and_features(squared, torch.randn(3, 4))
    assert features.shape == (3, 5)


def test_a_link_makes_a_chain(forgets):
    model = mlp(4, 5, 2, activation=nn.ReLU)
    same = Lambda(lambda m, x: m.b(torch.maximum(m.a(x), torch.zeros(()))), a=model[0], b=model[2])
    x = torch.randn(3, 4)
    assert chosen_method(same, x).way == "input_space"
    register_operator(Operator((torch.maximum,), link=links.piecewise))
    assert chosen_method(same, x).way == "closed_form"
    torch.testing.assert_close(tangent_sensitivity(same, x), tangent_sensitivity(model, x))


def test_every_function_has_one_record():
    for function, operator in registry._known.items():
        assert function in operator.functions
    assert operator_of(torch.heaviside).rule is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"functions": ()}, ValueError, "functions: expected at least one torch function, but got none"),
        ({"functions": ("relu",)}, TypeError, "functions: expected torch functions, but got 'relu'"),
        ({"functions": (F.relu,), "rule": 3}, TypeError, "rule: expected a callable or None, but got 3"),
        ({"functions": (F.relu,), "link": "linear"}, TypeError, "link: expected a callable or None, but got 'linear'"),
    ],
)
def test_wrong_records(arguments, error, message):
    with pytest.raises(error, match=message):
        Operator(**arguments)


def test_only_records_are_registered():
    with pytest.raises(TypeError, match="operator: expected an Operator, but got <"):
        register_operator(F.relu)
