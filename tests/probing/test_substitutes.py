"""Substitutes are the same functions with two derivatives more."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad

from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.operators import registry
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from tests.helpers import assert_equal, plain_activations

SUBSTITUTES = {function: operator.substitute for function, operator in registry._known.items() if operator.substitute}

MODEL = nn.Linear(1, 1)

#: Calls of each function; x has shape (3, 4, 6).
CALLS = {
    "F.relu": (F.relu, {}),
    "torch.relu": (torch.relu, {}),
    "Tensor.relu": (torch.Tensor.relu, {}),
    "F.relu6": (lambda x, **k: F.relu6(4 * x, **k), {}),
    "F.hardtanh": (F.hardtanh, {}),
    "F.hardtanh, bounds": (F.hardtanh, {"min_val": -0.3, "max_val": 0.7}),
    "F.leaky_relu": (F.leaky_relu, {}),
    "F.leaky_relu, slope": (F.leaky_relu, {"negative_slope": 0.3}),
    "F.hardsigmoid": (lambda x, **k: F.hardsigmoid(3 * x, **k), {}),
    "F.hardswish": (lambda x, **k: F.hardswish(3 * x, **k), {}),
    "F.silu": (F.silu, {}),
    "F.mish": (F.mish, {}),
    "F.glu": (F.glu, {}),
    "F.glu, dim": (F.glu, {"dim": 1}),
    "F.max_pool2d": (F.max_pool2d, {"kernel_size": 2}),
    "F.max_pool2d, overlapping": (
        F.max_pool2d,
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": 1, "dilation": (1, 2), "ceil_mode": True},
    ),
    "F.group_norm": (F.group_norm, {"num_groups": 2}),
    "F.group_norm, affine": (
        F.group_norm,
        {"num_groups": 2, "weight": torch.rand(4).double(), "bias": torch.rand(4).double(), "eps": 0.1},
    ),
}

IN_PLACE = {
    name: function
    for name, (function, options) in CALLS.items()
    if name.startswith("F.") and "," not in name and not any(part in name for part in ("glu", "group_norm", "max_pool2d"))
}


def tolerance(name):
    """torch takes the sixth in the derivative of hardsigmoid in single precision."""
    return 1e-7 if name == "F.hardsigmoid" else 1e-12


def draw(samples=3):
    return torch.randn(samples, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def slope(function, options, x):
    y = function(x, **options)
    (gradient,) = torch.autograd.grad((y * torch.linspace(1, 2, y.numel()).to(y).reshape(y.shape)).sum(), x)
    return y.detach(), gradient


@pytest.mark.parametrize("name", CALLS)
def test_values_and_first_derivatives_are_the_originals(name):
    function, options = CALLS[name]
    value, gradient = slope(function, options, draw())
    with twice_differentiable(MODEL):
        actual, derived = slope(function, options, draw())
    assert_equal(actual, value, rtol=1e-12, atol=1e-14)
    assert_equal(derived, gradient, rtol=tolerance(name), atol=1e-13)


def test_max_pooling_carries_no_zeros_along():
    with twice_differentiable(MODEL), forward_ad.dual_level():
        x = draw()
        (gradient,) = torch.autograd.grad(F.max_pool2d(forward_ad.make_dual(x, torch.ones_like(x)), 2).sum(), x)
        assert forward_ad.unpack_dual(gradient).tangent is None


@pytest.mark.parametrize("name", CALLS)
def test_both_second_derivatives_exist_and_agree(name):
    function, options = CALLS[name]
    scale = torch.rand(4, 6, dtype=torch.float64).requires_grad_()
    direction = torch.randn(3, 4, 6, dtype=torch.float64)
    with twice_differentiable(MODEL):
        x = draw()
        y = function(x * scale, **options)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (expected,) = torch.autograd.grad((gradient * direction).sum(), scale)
        with forward_ad.dual_level():
            y = function(forward_ad.make_dual(draw(), direction) * scale, **options)
            (gradient,) = torch.autograd.grad(y.square().sum(), scale)
            actual = forward_ad.unpack_dual(gradient).tangent
    assert_equal(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("mode", ["plain", "substituted"])
def test_in_place_calls_change_their_input(name, mode):
    function = getattr(F, name[2:])
    expected = function(draw().detach())
    leaf = draw()
    with twice_differentiable(MODEL) if mode == "substituted" else torch.enable_grad():
        x = leaf * 1
        y = function(x, inplace=True)
        assert y is x
        assert_equal(x.detach(), expected, rtol=1e-12, atol=1e-14)
        (gradient,) = torch.autograd.grad(x.sum(), leaf)
    once = draw()
    (plain,) = torch.autograd.grad(function(once).sum(), once)
    assert_equal(gradient, plain, rtol=tolerance(name), atol=1e-13)


@pytest.mark.parametrize("function", [f for f in SUBSTITUTES if inspect.isfunction(f)])
def test_arguments_are_the_originals(function):
    named = F._max_pool2d if function is F.max_pool2d else function  # what torch dispatches to
    original = [p for p in inspect.signature(named).parameters.values()]
    substitute = [p for p in inspect.signature(SUBSTITUTES[function]).parameters.values()]
    assert [(p.name, p.default) for p in substitute] == [(p.name, p.default) for p in original]


def test_relu_at_its_kink_has_slope_zero():
    with twice_differentiable(MODEL):
        for function in (F.relu, F.relu6, F.hardtanh):
            edge = torch.tensor([0.0 if function is not F.hardtanh else -1.0], requires_grad=True)
            assert torch.autograd.grad(function(edge), edge)[0] == 0


def test_attention_is_the_same_and_has_second_derivatives():
    q, k, v = (torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.rand(5, 5) > 0.3
    for options in ({}, {"is_causal": True}, {"attn_mask": mask | torch.eye(5, dtype=torch.bool)}, {"scale": 0.3}):
        expected = F.scaled_dot_product_attention(q, k, v, **options)
        with twice_differentiable(MODEL):
            actual = F.scaled_dot_product_attention(q, k, v, **options)
            (gradient,) = torch.autograd.grad(actual.square().sum(), q, create_graph=True)
            torch.autograd.grad(gradient.square().sum(), k)
        assert_equal(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_have_second_derivatives(layer):
    model, x = layer(3, 2), torch.randn(1, 4, 3, requires_grad=True)
    expected = model(x)[0]
    with twice_differentiable(model):
        actual = model(x)[0]
        (gradient,) = torch.autograd.grad(actual.square().sum(), x, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), model.weight_ih_l0)
    assert_equal(actual, expected, rtol=1e-5)


def test_settings_are_restored():
    backends = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.backends.cuda.flash_sdp_enabled()
    checkpoints = dict(vars(torch.utils.checkpoint))

    def fail():
        with evaluation(MODEL), twice_differentiable(nn.LSTM(1, 1)):
            assert not torch.backends.mkldnn.enabled
            assert not torch.backends.cuda.flash_sdp_enabled()
            assert torch.utils.checkpoint.checkpoint(torch.exp, torch.zeros(1), use_reentrant=True) == 1
            assert vars(torch.utils.checkpoint) != checkpoints
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert backends == (
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
    )
    assert vars(torch.utils.checkpoint) == checkpoints
    assert not torch.overrides._get_current_function_mode_stack()
    with plain_activations():
        pass
    assert F.hardsigmoid in SUBSTITUTES
