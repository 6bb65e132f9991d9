"""The networks of the theorems: what is read off a traced chain, and which networks are refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import active_nodes, weight_layers
from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
from tests.cases import CHAINS, Case, Lambda, elementwise, frozen, in_place, mlp


def test_what_a_chain_consists_of():
    model, inputs = Case(lambda: frozen(mlp(5, 7, 4, 3), "2.weight"), (5,)).make(samples=6)
    chain = relu_chain(model, inputs)
    assert (chain.depth, chain.input_dim, chain.hidden_widths, chain.num_outputs) == (3, 5, (7, 4), 3)
    assert chain.samples == 6
    assert chain.num_parameters == 5 * 7 + 7 + 4 + 4 * 3 + 3  # the frozen 7 * 4 are missing
    assert chain.trainable == (True, False, True)
    for weight, expected in zip(chain.weights, weight_layers(model).values()):
        assert torch.equal(weight, expected)
        assert not weight.requires_grad
    hidden = model[0](inputs)
    second = model[2](hidden.relu())
    assert torch.equal(chain.active[0], hidden > 0)
    assert torch.equal(chain.active[1], second > 0)
    assert torch.equal(chain.active_nodes, active_nodes(model, inputs))
    expected = [float(layer.weight.detach().abs().max()) for layer in (model[0], model[2], model[4])]
    assert chain.max_weights.tolist() == expected


def test_moments_are_those_of_the_population():
    model, inputs = Case(lambda: mlp(5, 20, 10, 3), (5,)).make(samples=7)
    totals = active_nodes(model, inputs).sum(1).tolist()
    mean = sum(totals) / 7
    std = math.sqrt(sum((total - mean) ** 2 for total in totals) / 7)
    assert std > 0
    assert relu_chain(model, inputs).active_node_moments() == pytest.approx((mean, std), rel=1e-14)
    assert relu_chain(model, inputs[[0] * 5]).active_node_moments() == (totals[0], 0.0)


def test_one_layer_has_no_hidden_units():
    model, inputs = Case(lambda: nn.Linear(5, 3), (5,)).make()
    chain = relu_chain(model, inputs)
    assert (chain.depth, chain.hidden_widths, chain.active) == (1, (), ())
    assert chain.active_nodes.shape == (3, 0)
    assert chain.active_node_moments() == (0.0, 0.0)


def test_linear_layers_in_a_row_have_all_units_active():
    model, inputs = Case(lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (5,)).make()
    chain = relu_chain(model, inputs)
    assert chain.active_nodes[:, 0].tolist() == [3, 3, 3]
    assert torch.equal(chain.active[1], model[1](model[0](inputs)) > 0)


def test_activations_of_the_input_and_the_outputs_are_no_hidden_layers():
    model, inputs = Case(lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2), nn.ReLU())).make()
    chain = relu_chain(model, inputs)
    assert chain.hidden_widths == (6,)
    assert torch.equal(chain.active[0], model[:2](inputs) > 0)


@pytest.mark.parametrize("name", ["ReLU6", "Hardtanh", "Hardtanh in place", "clamp", "Threshold"])
def test_units_with_slope_one_are_active(name):
    model, inputs = CHAINS[name].make(samples=8)
    chain = relu_chain(model, inputs)
    first = model.get_submodule("0" if isinstance(model, nn.Sequential) else "first")
    with torch.no_grad():
        h = first(inputs).requires_grad_()
    with torch.enable_grad():
        activation = {
            "ReLU6": F.relu6,
            "Hardtanh": lambda h: F.hardtanh(h, -0.4, 0.3),
            "Hardtanh in place": lambda h: F.hardtanh(h, -0.4, 0.3),
            "clamp": lambda h: h.clamp(-0.3, 0.3),
            "Threshold": lambda h: F.threshold(h, 0.1, -1.0),
        }[name]
        (slopes,) = torch.autograd.grad(activation(h).sum(), h)
    assert 0 < slopes.mean() < 1
    assert torch.equal(chain.active[0], slopes == 1)


@pytest.mark.parametrize(
    "name", ["dropout modules", "nn.Flatten", "nested modules", "x.relu_()", "F.relu in place", "deep", "dead branch"]
)
def test_every_way_of_writing_a_chain(name):
    model, inputs = CHAINS[name].make()
    chain = relu_chain(model, inputs)
    reference = active_nodes(model, inputs)
    if name == "dead branch":  # its gelu is no part of the chain
        reference = reference[:, 1:]
    assert torch.equal(chain.active_nodes, reference)


def test_an_input_and_an_output_can_be_picked():
    net = mlp(4, 5, 2)
    model = Lambda(lambda m, x: (x, m.net(x)), net=net)
    inputs = torch.randn(3, 4)
    chain = relu_chain(model, (inputs,), wrt=0, output=lambda out: out[1])
    assert torch.equal(chain.active[0], net[0](inputs) > 0)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: mlp(4, 5, 2, activation=nn.LeakyReLU), "slopes other than 0 and 1 behind weight layer 1 "),
        (lambda: mlp(4, 5, 6, 2, activation=lambda: nn.PReLU(init=0.0)), "1, of parameter '1.weight'"),
        (lambda: mlp(4, 5, 2, between=lambda n: [nn.BatchNorm1d(n)]), "weight layer 1, of parameter '1.weight'"),
        (lambda: Lambda(lambda m, x: m.net(x / 255), net=mlp(4, 5, 2)), "behind weight layer 0 "),
        (lambda: elementwise(torch.abs), "slopes other than 0 and 1"),
        (in_place, "slopes other than 0 and 1"),
        (lambda: mlp(4, 5, 2, activation=nn.GELU), r"ReLU: torch.nn.functional.gelu called in module '1' \(GELU\)"),
        (lambda: Lambda(lambda m, x: x + m.net(x), net=mlp(4, 5, 4)), "joins two branches"),
        (lambda: nn.Sequential(nn.ReLU()), "Linear layers and ReLU, but Sequential has no Linear layer; leave the bounds"),
    ],
)
def test_other_networks_are_refused(build, reason):
    model = build()
    with pytest.raises(UnsupportedNetworkError, match=reason):
        relu_chain(model, torch.randn(8, 4))
    with pytest.raises(UnsupportedNetworkError, match="expected a chain of Linear layers and ReLU"):
        relu_chain(model, torch.randn(8, 4))


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="inputs: expected at least one sample, but got an empty batch; leave it out"):
        relu_chain(mlp(4, 5, 2), torch.zeros(0, 4))
