"""The input–output sensitivity against Jacobians from plain autograd, one sample and one output at a time."""

import math

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import input_output
from lightning_tansens.functional.input_output import input_output_norms
from lightning_tansens.tangent.sensitivity import tangent_sensitivity
from tests.cases import CHAINS, Lambda, mlp
from tests.helpers import assert_equal, mixed_modes, select, state_of
from tests.networks import COVERED, UNCOVERED

ALL = COVERED | UNCOVERED

#: Two inputs, eight outputs: forward mode is the cheaper way.
WIDE = {
    "ReLU": lambda: mlp(2, 5, 8),
    "GELU": lambda: mlp(2, 5, 8, activation=nn.GELU),
    "attention": lambda: nn.Sequential(
        nn.Linear(2, 8), nn.Unflatten(1, (2, 4)), nn.TransformerEncoderLayer(4, 2, 3, batch_first=True), nn.Flatten()
    ),
    "in place": lambda: Lambda(lambda m, x: m.net(x.mul_(2)), net=mlp(2, 5, 8)),
}


def jacobians(example, model, inputs):
    """∂f(x_n)/∂x, shapes (C, D), of an example of :mod:`tests.networks`."""
    model.eval()
    wrt, found = example.wrt, []
    module = model.get_submodule(wrt) if isinstance(wrt, str) and not isinstance(inputs, dict) else None
    x = module(inputs) if module is not None else inputs if wrt is None else inputs[wrt]
    for n in range(len(x)):
        arguments, leaf = select(inputs, n), x[n : n + 1].detach().clone().requires_grad_()
        if module is not None:
            handle = module.register_forward_hook(lambda *_, leaf=leaf: leaf.clone())
            result = model(arguments)
            handle.remove()
        elif isinstance(arguments, dict):
            result = model(**{**arguments, wrt: leaf.clone()})
        elif isinstance(arguments, tuple):
            result = model(*[leaf.clone() if i == wrt else value for i, value in enumerate(arguments)])
        else:
            result = model(leaf.clone())
        result = result if example.output is None else example.output(result)
        found.append(torch.stack([_gradient(entry, leaf) for entry in result.reshape(-1)]))
    return torch.stack(found)


def _gradient(entry, leaf):
    return torch.autograd.grad(entry, leaf, retain_graph=True)[0].flatten()


def of_chain(model, inputs):
    model.eval()
    x = inputs.clone().requires_grad_()
    result = model(x.clone()).reshape(len(x), -1)
    return torch.stack([torch.autograd.grad(c.sum(), x, retain_graph=True)[0].flatten(1) for c in result.unbind(1)], 1)


@pytest.mark.parametrize("name", ALL)
def test_every_network(name):
    example = ALL[name]
    model, inputs = example.make()
    expected = jacobians(example, model, inputs)
    options = {"wrt": example.wrt, "output": example.output}
    assert_equal(input_output_norms(model, inputs, **options), expected.square().sum((1, 2)).sqrt())
    summed = input_output_norms(model, inputs, outputs="sum", **options)
    # outputs that add up to a constant, as a softmax does, leave nothing but rounding
    assert_equal(summed, expected.sum(1).norm(dim=1), atol=1e-14)
    u = torch.linspace(-1, 2, expected.shape[1], dtype=torch.float64)
    weighted = input_output_norms(model, inputs, outputs=u, **options)
    assert_equal(weighted, torch.einsum("c,ncd->nd", u, expected).norm(dim=1))


@pytest.mark.parametrize("name", CHAINS)
def test_every_chain(name):
    model, inputs = CHAINS[name].make()
    expected = of_chain(model, inputs)
    assert (expected != 0).any()
    assert_equal(input_output_norms(model, inputs), expected.square().sum((1, 2)).sqrt())


@pytest.mark.parametrize("name", WIDE)
def test_few_inputs_go_by_forward_mode(name, monkeypatch):
    torch.manual_seed(0)
    model, inputs = WIDE[name]().double(), torch.randn(3, 2, dtype=torch.float64)
    before = inputs.clone()
    expected = of_chain(model, inputs)
    monkeypatch.setattr(input_output, "_by_rows", None)
    assert_equal(input_output_norms(model, inputs), expected.square().sum((1, 2)).sqrt())
    assert torch.equal(inputs, before)
    with pytest.raises(TypeError, match="NoneType"):  # one weighting is one reverse pass
        input_output_norms(model, inputs, outputs="sum")


class Square(torch.autograd.Function):
    """Has no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def test_without_forward_mode_it_goes_by_reverse_mode():
    model = Lambda(lambda m, x: Square.apply(m.net(x)), net=mlp(2, 8)).double()
    inputs = torch.randn(3, 2, dtype=torch.float64)
    assert_equal(input_output_norms(model, inputs), of_chain(model, inputs).square().sum((1, 2)).sqrt())


@pytest.mark.parametrize("network", [lambda: mlp(4, 6, 5, 2), lambda: mlp(4, 6, 2)])
def test_the_layerwise_euler_identity_bounds_the_tangent_sensitivity_from_below(network):
    # S_{W_i}ᵀ vec(W_i) = ∂(u·f)/∂x for every layer
    model = network().double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    squares = input_output_norms(model, inputs, outputs="sum").square()
    bound = sum(squares / layer.weight.detach().square().sum() for layer in model if isinstance(layer, nn.Linear))
    sensitivity = tangent_sensitivity(model, inputs, method="exact")
    assert (sensitivity >= bound * (1 - 1e-12)).all()
    assert (bound > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precisions(dtype):
    model, inputs = CHAINS["with biases"].make()
    expected = input_output_norms(model, inputs)
    lower = input_output_norms(model.to(dtype), inputs.to(dtype))
    assert lower.dtype == torch.float32
    torch.testing.assert_close(lower.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=0)


def test_half_precision_does_not_overflow():
    model = nn.Linear(4, 1, bias=False).half()
    nn.init.constant_(model.weight, 3e4)
    assert input_output_norms(model, torch.zeros(1, 4).half()).tolist() == pytest.approx([6e4], rel=1e-3)


@pytest.mark.parametrize("name", ["MLP with tanh", "residual in place", "dict", "LSTM", "weight norm"])
def test_nothing_is_left_behind(name):
    example = ALL[name]
    model, inputs = example.make()
    mixed_modes(model)
    before = state_of(model)
    expected = input_output_norms(model, inputs, wrt=example.wrt, output=example.output)
    assert state_of(model) == before
    assert not expected.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_equal(input_output_norms(model, inputs, wrt=example.wrt, output=example.output), expected)


def test_forward_mode_leaves_nothing_behind():
    model, inputs = mixed_modes(WIDE["attention"]()), torch.randn(3, 2)
    before = state_of(model)
    input_output_norms(model, inputs)
    assert state_of(model) == before


def test_no_samples_and_no_dependence():
    model = mlp(4, 6, 2)
    assert input_output_norms(model, torch.zeros(0, 4)).shape == (0,)
    constant = Lambda(lambda m, x: m.bias.expand(len(x), -1), bias=nn.Parameter(torch.ones(2)))
    assert input_output_norms(constant, torch.randn(3, 4)).tolist() == [0, 0, 0]
    detached = Lambda(lambda m, x: m.net(x).detach(), net=model)
    with pytest.raises(UnsupportedNetworkError, match=r"derivative is cut off: torch.Tensor.detach called in module"):
        input_output_norms(detached, torch.randn(3, 4))


def test_a_known_value():
    model = nn.Linear(3, 2, bias=False)
    nn.init.constant_(model.weight, -2.0)
    assert input_output_norms(model, torch.zeros(1, 3)).tolist() == pytest.approx([math.sqrt(24)])
    assert input_output_norms(model, torch.zeros(1, 3), outputs="sum").tolist() == pytest.approx([math.sqrt(48)])


def test_refusals():
    mixing = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(UnsupportedNetworkError, match="normalises by the batch"):
        input_output_norms(mixing, torch.randn(3, 4))
    centred = Lambda(lambda m, x: m.net(x - x.mean(0)), net=mlp(4, 2))
    with pytest.raises(UnsupportedNetworkError, match="Lambda mixes them"):
        input_output_norms(centred, torch.randn(3, 4))
    with pytest.raises(ValueError, match="outputs: expected 'sum', 'each'"):
        input_output_norms(mlp(4, 2), torch.randn(3, 4), outputs="all")
    with pytest.raises(ValueError, match=r"a weighting of shape \(2,\)"):
        input_output_norms(mlp(4, 2), torch.randn(3, 4), outputs=torch.ones(3))
    with pytest.raises(TypeError, match="expected a floating-point tensor"):
        input_output_norms(mlp(4, 2), torch.zeros(3, 4, dtype=torch.long))
