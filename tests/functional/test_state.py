"""Measurements by probes leave everything as it was, in whatever mode they are called."""

import pytest
import torch
from torch.nn.modules import module as module_hooks

from lightning_tansens.functional import log_max_weights, tangent_sensitivity
from tests.helpers import assert_equal
from tests.networks import COVERED, UNCOVERED

METHODS = ["exact", "input_space", "parameter_space"]
ALL = COVERED | UNCOVERED

NAMES = ["MLP with tanh", "residual in place", "ViT, tokens first", "embedding", "instance norm with statistics", "dict"]

CASES = [(name, method) for name in NAMES for method in METHODS] + [
    (name, method) for name in ["LSTM", "weight norm"] for method in ["exact", "parameter_space"]
]


def raw(tensor):
    return tensor.detach().clone().numpy().tobytes()


def tensors(inputs):
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_nothing_is_left_behind(name, method):
    example = ALL[name]
    model, inputs = example.make()
    modules = list(model.modules())
    for number, module in enumerate(modules):
        module.training = number % 2 == 0
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.randn_like(parameter)

    def state():
        return {
            "modes": [module.training for module in modules],
            "weights": {n: (id(p), raw(p), p._version, p.requires_grad) for n, p in model.named_parameters()},
            "gradients": {n: None if p.grad is None else raw(p.grad) for n, p in model.named_parameters()},
            "buffers": {n: (id(b), raw(b)) for n, b in model.named_buffers()},
            "inputs": [(raw(tensor), tensor.requires_grad, tensor._version) for tensor in tensors(inputs)],
            "grad mode": torch.is_grad_enabled(),
        }

    before = state()
    tangent_sensitivity(model, inputs, method=method, **example.options)
    assert state() == before
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        assert not any(getattr(module, hooks) for module in modules)
        assert not getattr(module_hooks, "_global" + hooks)
    assert not torch.overrides._get_current_function_mode_stack()


def test_reading_weights_takes_no_step_of_a_power_iteration():
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 3)).train()
    before = {name: raw(buffer) for name, buffer in layer.named_buffers()}
    log_max_weights(layer)
    assert {name: raw(buffer) for name, buffer in layer.named_buffers()} == before
    assert layer.training


@pytest.mark.parametrize(("name", "method"), CASES)
def test_any_grad_mode_gives_the_same(name, method):
    example = ALL[name]
    model, inputs = example.make()
    expected = tangent_sensitivity(model, inputs, method=method, **example.options)
    assert not expected.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_equal(tangent_sensitivity(model, inputs, method=method, **example.options), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(tangent_sensitivity(model, inputs, method=method, **example.options), expected)


@pytest.mark.parametrize("method", METHODS)
def test_hooks_of_the_user_stay_and_are_silent(method):
    model, inputs = COVERED["embedding"].make()
    seen = []
    model.tokens.register_forward_hook(lambda *args: seen.append(1))
    tangent_sensitivity(model, inputs, method=method, wrt="tokens")
    assert not seen
    assert len(model.tokens._forward_hooks) == 1
    model(inputs)
    assert seen
