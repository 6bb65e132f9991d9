"""The oracle on an example of :mod:`tests.networks`, and what a measurement must leave as it was."""

import copy
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.oracle import dense_blocks


def select(inputs, n):
    """The inputs of sample n alone; what is no batch stays as it is."""
    if isinstance(inputs, torch.Tensor):
        return inputs[n : n + 1] if inputs.dim() else inputs
    if isinstance(inputs, dict):
        return {name: select(value, n) for name, value in inputs.items()}
    return tuple(select(value, n) for value in inputs)


@contextmanager
def plain_activations():
    """Writes the activations that have no second derivative in other words."""
    saved = F.hardsigmoid, F.hardswish
    F.hardsigmoid = lambda x, inplace=False: F.relu6(x + 3) / 6
    F.hardswish = lambda x, inplace=False: x * F.relu6(x + 3) / 6
    try:
        yield
    finally:
        F.hardsigmoid, F.hardswish = saved


def reference(example, model, inputs):
    """S_u(x_n) by parameter, from plain nested autograd."""
    model = copy.deepcopy(model).eval()
    wrt = example.wrt
    module = model.get_submodule(wrt) if isinstance(wrt, str) and not isinstance(inputs, dict) else None

    def call(arguments):
        if isinstance(arguments, torch.Tensor):
            output = model(arguments)
        else:
            output = model(**arguments) if isinstance(arguments, dict) else model(*arguments)
        return output if example.output is None else example.output(output)

    def function(x, n):
        arguments = select(inputs, n)
        if module is not None:
            handle = module.register_forward_hook(lambda *_: x)
            try:
                return call(arguments)
            finally:
                handle.remove()
        if wrt is None:
            return call(x)
        if isinstance(arguments, dict):
            return call({**arguments, wrt: x})
        return call(tuple(x if i == wrt else value for i, value in enumerate(arguments)))

    weighting = None if isinstance(example.outputs, str) else example.outputs
    with sdpa_kernel(SDPBackend.MATH), plain_activations():
        x = module(inputs) if module is not None else inputs if wrt is None else inputs[wrt]
        return dense_blocks(model, function, x, weighting)


def squares(matrices):
    """‖S_p(x_n)‖_F² by parameter, shape (N,)."""
    return {name: matrix.square().sum((1, 2)) for name, matrix in matrices.items()}


def assert_equal(actual, expected, rtol=1e-9, atol=1e-20):
    """Relative to each value, with an absolute floor far below every value that matters."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def state_of(model):
    """Everything that a measurement must leave as it was."""
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "modes": [module.training for module in model.modules()],
        "tensors": [(id(t), t.detach().clone().numpy().tobytes(), t._version, t.requires_grad) for t in tensors],
        "gradients": [None if p.grad is None else p.grad.clone().numpy().tobytes() for p in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "random": torch.get_rng_state().numpy().tobytes(),
        "grad mode": torch.is_grad_enabled(),
    }


def mixed_modes(model):
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.randn_like(parameter)
    return model
