"""What must hold of tangent sensitivity whatever the implementation."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_tansens.functional import tangent_sensitivity, tangent_sensitivity_blocks
from tests.cases import CHAINS, Case, mlp
from tests.oracle import tangent_matrices

WITHOUT_BIASES = Case(lambda: mlp(5, 7, 4, 6, 3, bias=False), (5,), 3)
WITH_BIASES = Case(lambda: mlp(5, 7, 4, 6, 3), (5,), 3)


def assert_equal(actual, expected):
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual), rtol=1e-10, atol=1e-13
    )


def gradient(model, x):
    """∇_θ Σ_c f_c of one sample, flat."""
    gradients = torch.autograd.grad(model(x.unsqueeze(0)).sum(), list(model.parameters()))
    return torch.cat([g.reshape(-1) for g in gradients])


@pytest.mark.parametrize("inputs", [1, 6])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_linear_model_has_the_number_of_its_inputs(inputs, outputs):
    model, x = Case(lambda: nn.Linear(inputs, outputs), (inputs,)).make()
    assert_equal(tangent_sensitivity(model, x), inputs * outputs)
    assert_equal(tangent_sensitivity(model, x, outputs="each"), inputs)


def test_lemma_8_the_dense_matrix_times_the_input_is_the_gradient():
    model, inputs = WITHOUT_BIASES.make()
    matrix = torch.cat(list(tangent_matrices(model, inputs).values()), 1)
    for s, x in zip(matrix, inputs):
        assert_equal(s @ x, gradient(model.eval(), x))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    scale=st.floats(1e-3, 1e3),
    outputs=st.sampled_from(["sum", "each"]),
)
def test_lemma_1_inputs_with_one_pattern_have_one_sensitivity(seed, widths, scale, outputs):
    model, inputs = Case(lambda: mlp(*widths, bias=False), widths[:1]).make(seed)
    assert_equal(
        tangent_sensitivity(model, scale * inputs, outputs=outputs), tangent_sensitivity(model, inputs, outputs=outputs)
    )


@pytest.mark.parametrize("case", [WITHOUT_BIASES, WITH_BIASES], ids=["without biases", "with biases"])
@pytest.mark.parametrize("c", [0.5, 3.0])
def test_homogeneity(case, c):
    model, inputs = case.make()
    before = tangent_sensitivity(model, inputs)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(layers, 1):
            layer.weight *= c
            if layer.bias is not None:
                layer.bias *= c**i
    assert_equal(tangent_sensitivity(model, inputs), c ** (2 * (len(layers) - 1)) * before)


@pytest.mark.parametrize("case", [WITHOUT_BIASES, WITH_BIASES], ids=["without biases", "with biases"])
def test_layer_wise_euler_identity(case):
    model, inputs = case.make()
    x = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.eval()(x).sum(), x)
    dense = tangent_matrices(model, inputs)
    blocks = tangent_sensitivity_blocks(model, inputs)
    for name, block in blocks.items():
        weight = model.get_parameter(name).detach()
        assert_equal(torch.einsum("npd,p->nd", dense[name], weight.reshape(-1)), slope)
        assert (block * weight.square().sum() >= slope.square().sum(1) * (1 - 1e-12)).all()


def test_euler_bound_is_tight_for_chains_of_single_units():
    model, inputs = Case(lambda: mlp(4, 1, 1, 1), (4,)).make()
    x = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.eval()(x).sum(), x)
    last = tangent_sensitivity_blocks(model, inputs)["4.weight"]
    assert_equal(last * model[4].weight.square().sum().detach(), slope.square().sum(1))


def test_enumeration_of_paths():
    widths = (3, 3, 2, 2)
    model, inputs = Case(lambda: mlp(*widths), (3,)).make(seed=5, samples=6)
    weights = [layer.weight.detach() for layer in model if isinstance(layer, nn.Linear)]
    total = torch.zeros(len(inputs), dtype=torch.float64)
    for n, x in enumerate(inputs):
        hidden = x
        active = []
        for layer in model:
            hidden = layer(hidden)
            if isinstance(layer, nn.ReLU):
                active.append(hidden > 0)
        entries = {}
        for path in itertools.product(*map(range, widths)):
            if all(active[i - 1][path[i]] for i in (1, 2)):
                for i in range(3):
                    others = math.prod(float(weights[j][path[j + 1], path[j]]) for j in range(3) if j != i)
                    key = (i, path[i + 1], path[i], path[0])
                    entries[key] = entries.get(key, 0.0) + others
        total[n] = sum(entry**2 for entry in entries.values())
    assert total.max() > 0
    assert_equal(tangent_sensitivity(model, inputs), total)


@pytest.mark.parametrize("name", ["with biases", "PReLU and batch norm", "Hardtanh", "batch norm on the input"])
def test_small_perturbations_change_the_gradient_by_it(name):
    # E‖∇f(x+δ) − ∇f(x)‖² over N(0, s²I) is s² times the sum over the axes, within one activation region
    model, inputs = CHAINS[name].make()
    step = 1e-5
    expected = tangent_sensitivity(model, inputs)
    model.eval()
    for x, value in zip(inputs, expected):
        axes = step * torch.eye(len(x), dtype=x.dtype)
        changes = sum((gradient(model, x + axis) - gradient(model, x)).square().sum() for axis in axes)
        torch.testing.assert_close(changes / step**2, value, rtol=1e-6, atol=0)


def test_gaussian_perturbations():
    model, inputs = CHAINS["with biases"].make(samples=1)
    expected = tangent_sensitivity(model, inputs)[0]
    generator = torch.Generator().manual_seed(0)
    noise = 1e-5 * torch.randn(400, 4, generator=generator, dtype=torch.float64)
    x = inputs[0]
    base = gradient(model, x)
    changes = torch.stack([(gradient(model, x + delta) - base).square().sum() for delta in noise]) / 1e-10
    assert abs(changes.mean() - expected) < 4 * changes.std() / 20


@pytest.mark.parametrize("widths", [(5, 3), (4, 3, 1), (4, 3, 5, 2), (3, 5, 2, 4, 3)])
def test_theorem_1_is_an_equality_for_constant_positive_layers(widths):
    model, inputs = Case(lambda: mlp(*widths, bias=False), widths[:1]).make()
    constants = [0.3 + 0.2 * i for i in range(len(widths) - 1)]
    for layer, constant in zip([layer for layer in model if isinstance(layer, nn.Linear)], constants):
        nn.init.constant_(layer.weight, constant)
    d, *hidden, c = widths
    expected = 0.0
    for i in range(len(constants)):
        touched = {i - 1, i}  # the hidden layers on both sides of this weight
        paths = math.prod(n if m in touched else n**2 for m, n in enumerate(hidden))
        ends = c if i == len(constants) - 1 else c**2
        expected += d * paths * ends * math.prod(w**2 for j, w in enumerate(constants) if j != i)
    assert_equal(tangent_sensitivity(model, inputs.abs()), expected)


def test_weightings_form_a_quadratic_form():
    model, inputs = WITH_BIASES.make()
    u, v = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def s(weighting):
        return tangent_sensitivity(model, inputs, outputs=weighting)

    assert_equal(s(u + v) + s(u - v), 2 * s(u) + 2 * s(v))
    assert_equal(s(3 * u), 9 * s(u))
    assert_equal(s(torch.ones(3)), tangent_sensitivity(model, inputs, outputs="sum"))
    each = tangent_sensitivity(model, inputs, outputs="each")
    assert_equal(torch.stack([s(e) for e in torch.eye(3)], 1), each)
    assert not torch.allclose(each.sum(1), tangent_sensitivity(model, inputs))
