"""Tangent sensitivity as a matrix: against nested autograd, and against identities of the papers."""

import math

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import mean_tangent
from lightning_tansens.functional.mean_tangent import mean_tangent_norm, tangent_matrix, tangent_matrix_sum
from lightning_tansens.tangent.sensitivity import tangent_sensitivity
from tests.cases import CHAINS, Lambda, frozen, mlp
from tests.helpers import assert_equal, mixed_modes, reference, state_of
from tests.networks import COVERED, UNCOVERED
from tests.oracle import tangent_matrices
from tests.tiers import cases

ALL = COVERED | UNCOVERED


def whole(blocks):
    """The parameters' blocks as one matrix, shape (N, P, D)."""
    return torch.cat(list(blocks.values()), 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_every_network(name):
    example = ALL[name]
    model, inputs = example.make()
    expected = whole(reference(example, model, inputs))
    actual = tangent_matrix(model, inputs, **example.options)
    scale = float(expected.abs().max())
    assert scale > 0
    assert_equal(actual, expected, atol=1e-12 * scale)
    assert_equal(tangent_matrix_sum(model, inputs, **example.options), expected.sum(0), atol=1e-12 * scale)
    norm = mean_tangent_norm(model, inputs, **example.options)
    assert norm.shape == ()
    assert_equal(norm, expected.mean(0).norm(), atol=1e-12 * scale)


#: One for each way in which parameters and x meet; the matrix is made by autograd alone, whatever the layers.
KINDS = (
    *(
        "linear",
        "with biases",
        "single output (N,)",
        "outputs (N, C, 1)",
        "batch norm before ReLU",
        "batch norm on the input",
    ),
    *("dropout modules", "PReLU", "PReLU per unit", "clamp in place", "F.leaky_relu_", "normalised input", "frozen middle"),
    *("frozen first", "nested modules", "dead branch", "deep"),
)


@pytest.mark.parametrize("name", cases({name: name for name in CHAINS}, *KINDS))
def test_every_chain(name):
    case = CHAINS[name]
    model, inputs = case.make(samples=4)
    u = torch.linspace(-1, 2, case.outputs, dtype=torch.float64)
    for weighting, outputs in [(None, "sum"), (u, u)]:
        expected = whole(tangent_matrices(model, inputs, weighting))
        assert_equal(tangent_matrix(model, inputs, outputs=outputs), expected, atol=1e-12)
        assert_equal(mean_tangent_norm(model, inputs, outputs=outputs), expected.mean(0).norm(), atol=1e-12)


def test_the_mean_s_norm_is_at_most_the_norms_mean():
    model, inputs = CHAINS["with biases"].make(samples=20)
    squares = tangent_sensitivity(model, inputs, method="exact")
    mean_norm = float(mean_tangent_norm(model, inputs))
    assert mean_norm < 0.99 * float(squares.sqrt().mean()) < 0.99 * math.sqrt(float(squares.mean()))
    # samples of one activation region share S (Lemma 1)
    close = inputs[:1] * (1 + 1e-9 * torch.arange(5, dtype=torch.float64)[:, None])
    assert float(mean_tangent_norm(model, close)) == pytest.approx(math.sqrt(float(squares[0])), rel=1e-9)


def test_the_gradient_of_a_chain_without_biases_is_the_matrix_times_the_input():
    model, inputs = CHAINS["without biases"].make()
    matrices = tangent_matrix(model, inputs)
    for matrix, x in zip(matrices, inputs):
        gradient = torch.autograd.grad(model(x).sum(), list(model.parameters()))
        assert_equal(matrix @ x, torch.cat([part.flatten() for part in gradient]), atol=1e-12)


def test_batches_add_up():
    model, inputs = CHAINS["PReLU"].make(samples=9)
    total = sum(tangent_matrix_sum(model, batch) for batch in inputs.split([2, 4, 3]))
    assert_equal((total / 9).norm(), mean_tangent_norm(model, inputs))
    assert_equal(total, tangent_matrix(model, inputs).sum(0), atol=1e-12)
    assert (tangent_matrix_sum(model, inputs[:2]) - total).abs().max() > 0.1


def test_out_of_memory_takes_parts(monkeypatch):
    model, inputs = CHAINS["with biases"].make(samples=5)
    expected = mean_tangent_norm(model, inputs)
    sizes, summed = [], mean_tangent._summed

    def limited(network, outputs):
        sizes.append(len(network))
        if len(network) > 2:
            raise torch.OutOfMemoryError("too many samples")
        return summed(network, outputs)

    monkeypatch.setattr(mean_tangent, "_summed", limited)
    assert_equal(mean_tangent_norm(model, inputs), expected)
    assert sizes == [5, 3, 2, 2, 1]


def test_precision_and_device_of_the_result():
    model, inputs = CHAINS["with biases"].make(samples=5)
    expected = tangent_matrix(model, inputs)
    single = tangent_matrix(model.float(), inputs.float())
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)


def test_nothing_trainable_and_no_samples():
    model, inputs = CHAINS["with biases"].make()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert tangent_matrix(model, inputs[:0]).shape == (0, parameters, 4)
    assert tangent_matrix_sum(model, inputs[:0]).tolist() == torch.zeros(parameters, 4).tolist()
    assert math.isnan(mean_tangent_norm(model, inputs[:0]))
    part = frozen(model, "0.weight", "0.bias")
    assert tangent_matrix(part, inputs).shape == (3, parameters - 30, 4)
    assert tangent_matrix(model.requires_grad_(False), inputs).shape == (3, 0, 4)
    assert float(mean_tangent_norm(model, inputs)) == 0
    constant = Lambda(lambda m, x: m.bias.expand(len(x), -1), bias=nn.Parameter(torch.ones(2)))
    assert tangent_matrix(constant, torch.randn(2, 3)).tolist() == torch.zeros(2, 2, 3).tolist()


@pytest.mark.parametrize("name", ["MLP with tanh", "residual in place", "ViT, tokens first", "embedding", "LSTM", "dict"])
def test_nothing_is_left_behind(name):
    example = ALL[name]
    model, inputs = example.make()
    mixed_modes(model)
    before = state_of(model)
    expected = mean_tangent_norm(model, inputs, **example.options)
    tangent_matrix(model, inputs, **example.options)
    assert state_of(model) == before
    assert not expected.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_equal(mean_tangent_norm(model, inputs, **example.options), expected)


def test_large_networks_are_refused(monkeypatch):
    with pytest.raises(
        ValueError, match=r"Linear: expected a network small enough.*P · D = 12000000 · 3000 = 3.6e\+10; freeze"
    ):
        mean_tangent_norm(nn.Linear(3000, 4000, bias=False), torch.zeros(1, 3000))
    monkeypatch.setattr(mean_tangent, "LARGEST", 100)
    model = nn.Linear(4, 2)  # 10 · 4
    assert tangent_matrix(model, torch.randn(2, 4)).shape == (2, 10, 4)
    assert tangent_matrix_sum(model, torch.randn(3, 4)).shape == (10, 4)
    with pytest.raises(
        ValueError, match=r"at most 1e\+02 entries, but N · P · D = 3 · 10 · 4 = 1.2e\+02; freeze parameters, pass"
    ):
        tangent_matrix(model, torch.randn(3, 4))


@pytest.mark.parametrize("function", [tangent_matrix, tangent_matrix_sum, mean_tangent_norm])
def test_refusals(function):
    with pytest.raises(
        ValueError, match=r"outputs: expected 'sum' or a weighting .* but got 'each'; pass the unit vector e_c"
    ):
        function(mlp(4, 2), torch.randn(3, 4), outputs="each")
    with pytest.raises(ValueError, match="outputs: expected 'sum', 'each' or a weighting"):
        function(mlp(4, 2), torch.randn(3, 4), outputs="all")
    with pytest.raises(UnsupportedNetworkError, match="Lambda mixes them"):
        function(Lambda(lambda m, x: m.net(x - x.mean(0)), net=mlp(4, 2)), torch.randn(3, 4))
    with pytest.raises(TypeError, match="expected a floating-point tensor"):
        function(mlp(4, 2), torch.zeros(3, 4, dtype=torch.long))
