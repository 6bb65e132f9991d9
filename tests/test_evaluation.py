"""A measurement leaves everything as it was."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from lightning_tansens.functional import active_nodes, tangent_sensitivity
from lightning_tansens.tangent.isolation import evaluation, ordinary
from tests.cases import CHAINS, Lambda, frozen, mlp


def batch_normed():
    return mlp(4, 6, 5, 2, between=lambda n: [nn.BatchNorm1d(n), nn.Dropout(0.5)])


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("no output")


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_each_modes_is_restored(fails):
    model = batch_normed()
    model[1].eval()
    model[4].eval()
    before = modes(model)
    assert len(set(before)) == 2
    try:
        with evaluation(model):
            assert not any(modes(model))
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert modes(model) == before


def test_overridden_modes_are_not_called():
    class Stubborn(nn.Linear):
        def train(self, mode=True):
            raise AssertionError("train() was called")

    model = Stubborn(2, 2)
    with evaluation(model):
        assert not model.training
    assert model.training


def counting(m, x):
    m.steps += 1
    m.running = m.running * 0.9  # replaces the buffer
    m.lazy = m.running.clone()
    return m.net(x)


def counter():
    model = Lambda(counting, net=mlp(4, 5, 2), steps=torch.zeros(3), running=torch.tensor([0.1, float("nan")]))
    model.register_buffer("lazy", None)
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_buffers_are_restored_bitwise(fails):
    model = counter()
    before = dict(model.named_buffers())
    copies = {name: buffer.clone() for name, buffer in before.items()}
    if fails:
        model.net.append(Failing())
        with pytest.raises(RuntimeError, match="no output"):
            tangent_sensitivity(model, torch.randn(3, 4))
    else:
        tangent_sensitivity(model, torch.randn(3, 4))
        active_nodes(model, torch.randn(3, 4))
    after = dict(model.named_buffers())
    assert after.keys() == before.keys()
    assert model.lazy is None
    for name, buffer in after.items():
        assert buffer is before[name]
        assert buffer.numpy().tobytes() == copies[name].numpy().tobytes()
    model.net = model.net[:3]
    model(torch.randn(3, 4))
    assert model.steps[0] == 1


def test_surroundings_of_the_block():
    model = batch_normed()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), evaluation(model):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == fast_path


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "changed in place"])
def test_any_grad_mode_gives_the_same(context, name):
    model, inputs = CHAINS[name].make()
    expected = tangent_sensitivity(model, inputs)
    with context():
        inside = inputs.clone()
        assert torch.equal(tangent_sensitivity(model, inside), expected)
        assert torch.equal(active_nodes(model, inside), active_nodes(model, inputs))
    assert not expected.requires_grad
    assert torch.equal(tangent_sensitivity(model, inputs.clone().requires_grad_()), expected)


def test_ordinary_inputs():
    with torch.inference_mode():
        inputs = torch.ones(2)
    assert inputs.is_inference()
    assert not ordinary(inputs).is_inference()
    assert not ordinary(torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("fails", [False, True])
def test_no_hooks_are_left(fails):
    model = batch_normed()
    seen = []
    model[0].register_forward_hook(lambda *args: seen.append(args))
    if fails:
        model.append(Failing())
        with pytest.raises(RuntimeError, match="no output"):
            tangent_sensitivity(model, torch.randn(3, 4))
    else:
        tangent_sensitivity(model, torch.randn(3, 4))
        active_nodes(model, torch.randn(3, 4))
    for hooks in (module_hooks._global_forward_hooks, module_hooks._global_forward_pre_hooks):
        assert not hooks
    assert not module_hooks._global_backward_hooks
    assert not module_hooks._global_backward_pre_hooks
    for module in model.modules():
        assert len(module._forward_hooks) == (module is model[0])
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("name", ["with biases", "RReLU", "dropout modules", "dropout functions", "dead branch"])
def test_random_states_are_left_alone(name):
    model, inputs = CHAINS[name].make()

    def states():
        return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state()), random.getstate()

    before = states()
    tangent_sensitivity(model, inputs, outputs="each")
    active_nodes(model, inputs)
    assert states() == before


@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "changed in place", "F.relu in place"])
def test_weights_gradients_and_inputs_are_left_alone(name):
    model, inputs = CHAINS[name].make()
    first, *others = model.parameters()
    first.grad = torch.full_like(first, 3.0)
    before, versions = copy.deepcopy(model.state_dict()), [p._version for p in model.parameters()]
    copied = inputs.clone()
    tangent_sensitivity(model, inputs)
    active_nodes(model, inputs)
    assert torch.equal(inputs, copied)
    assert torch.equal(first.grad, torch.full_like(first, 3.0))
    assert all(parameter.grad is None for parameter in others)
    assert versions == [p._version for p in model.parameters()]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_frozen_parameters_stay_frozen():
    model = frozen(mlp(4, 5, 2), "0.weight")
    tangent_sensitivity(model, torch.randn(2, 4))
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
