"""Differences of parameter gradients against a loop of plain autograd, and their limit, the tangent sensitivity."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import gradient_difference
from lightning_tansens.functional.gradient_difference import AdversarialSign, Gaussian, gradient_differences
from lightning_tansens.tangent.sensitivity import tangent_sensitivity
from tests.cases import CHAINS, Lambda, frozen, mlp
from tests.helpers import assert_equal, mixed_modes, select, state_of
from tests.networks import COVERED, UNCOVERED

ALL = COVERED | UNCOVERED


def gradients(example, model, inputs, perturbation=lambda x: x, weighting=None):
    """∇_θ (u·f)(φ(x_n)) of each sample by parameter, shapes (N, *parameter)."""
    model.eval()
    wrt, rows = example.wrt, []
    module = model.get_submodule(wrt) if isinstance(wrt, str) and not isinstance(inputs, dict) else None
    x = perturbation((module(inputs) if module is not None else inputs if wrt is None else inputs[wrt]).detach().clone())
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for n in range(len(x)):
        arguments, one = select(inputs, n), x[n : n + 1].clone()
        if module is not None:
            handle = module.register_forward_hook(lambda *_, one=one: one)
            result = model(arguments)
            handle.remove()
        elif isinstance(arguments, dict):
            result = model(**{**arguments, wrt: one})
        elif isinstance(arguments, tuple):
            result = model(*[one if i == wrt else value for i, value in enumerate(arguments)])
        else:
            result = model(one)
        result = (result if example.output is None else example.output(result)).reshape(-1)
        scalar = result.sum() if weighting is None else result @ weighting.to(result)
        found = torch.autograd.grad(scalar, list(parameters.values()), allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters.values(), found)])
    return [torch.stack(column) for column in zip(*rows)]


def by_loop(example, model, inputs, perturbation, weighting=None):
    before = gradients(example, model, inputs, weighting=weighting)
    after = gradients(example, model, inputs, perturbation, weighting)
    return sum((b - a).square().flatten(1).sum(1) for b, a in zip(before, after))


def moved(x):
    return x + 0.1 * torch.arange(x.shape[1:].numel(), dtype=x.dtype).cos().reshape(x.shape[1:])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_every_network(name):
    example = ALL[name]
    model, inputs = example.make()
    actual = gradient_differences(model, inputs, moved, **example.options)
    weighting = None if isinstance(example.outputs, str) else example.outputs
    assert_equal(actual, by_loop(example, model, inputs, moved, weighting))
    assert not actual.requires_grad


@pytest.mark.parametrize("name", ["with biases", "batch norm before ReLU", "F.relu in place", "changed in place", "PReLU"])
def test_mirrored_inputs_and_outputs(name):
    case = CHAINS[name]
    model, inputs = case.make(samples=4)
    example = COVERED["MLP with tanh"]  # a lone tensor and a lone output
    mirror = lambda x: x.flip(-1)  # noqa: E731
    u = torch.linspace(-1, 2, case.outputs, dtype=torch.float64)
    assert_equal(gradient_differences(model, inputs, mirror), by_loop(example, model, inputs, mirror))
    assert_equal(gradient_differences(model, inputs, mirror, outputs=u), by_loop(example, model, inputs, mirror, u))
    each = gradient_differences(model, inputs, mirror, outputs="each")
    assert each.shape == (4, case.outputs)
    for c, unit in enumerate(torch.eye(case.outputs, dtype=torch.float64)):
        assert_equal(each[:, c], by_loop(example, model, inputs, mirror, unit))


def test_unit_steps_add_up_to_the_tangent_sensitivity():
    # inside of an activation region the gradient is linear in x, so Σ_d ‖S (s e_d)‖² = s² ‖S‖_F²
    model, inputs = CHAINS["with biases"].make(samples=6)
    step = 1e-4
    total = sum(
        gradient_differences(model, inputs, lambda x, unit=unit: x + step * unit)
        for unit in torch.eye(4, dtype=torch.float64)
    )
    expected = tangent_sensitivity(model, inputs, method="exact")
    torch.testing.assert_close(total / step**2, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["with biases", "batch norm after ReLU"])
def test_small_gaussian_steps_have_the_tangent_sensitivity_as_their_mean(name):
    model, inputs = CHAINS[name].make(samples=1)
    draws, scale = 4000, 1e-5
    samples = gradient_differences(model, inputs.expand(draws, -1), Gaussian(scale)) / scale**2
    exact = float(tangent_sensitivity(model, inputs, method="exact"))
    error = float(samples.std()) / math.sqrt(draws)
    assert abs(float(samples.mean()) - exact) < 4 * error
    assert error < 0.03 * exact


def test_gaussian():
    x = torch.randn(5000, 4)
    noise = Gaussian(0.5, seed=3)(x) - x
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    assert abs(float(noise.mean())) < 0.02
    assert not torch.equal(Gaussian(0.5, seed=4)(x), Gaussian(0.5, seed=3)(x))
    torch.testing.assert_close(Gaussian(0.5, seed=3)(x[:7]), Gaussian(0.5, seed=3)(x)[:7])
    torch.testing.assert_close(Gaussian(0.5)(x.double()), Gaussian(0.5)(x).double(), rtol=0, atol=1e-6)
    assert Gaussian(0.5)(x.half()).dtype == torch.float16


def test_adversarial_sign():
    model, inputs = CHAINS["with biases"].make(samples=6)
    model.eval()
    leaf = inputs.clone().requires_grad_()
    logits = model(leaf)
    predicted = logits.argmax(1)
    F.cross_entropy(logits, predicted).backward()
    expected = inputs + 0.05 * leaf.grad.sign()
    step = lambda x: expected  # noqa: E731
    assert_equal(gradient_differences(model, inputs, AdversarialSign(0.05)), gradient_differences(model, inputs, step))
    moved = AdversarialSign(0.05)(inputs, model)
    assert torch.equal(moved, expected)
    assert (
        F.cross_entropy(model(moved), predicted, reduction="none") > F.cross_entropy(logits, predicted, reduction="none")
    ).all()
    with pytest.raises(
        UnsupportedNetworkError, match="AdversarialSign: expected a classifier with at least 2 outputs, but got 1"
    ):
        gradient_differences(mlp(4, 3, 1), torch.randn(2, 4), AdversarialSign(0.1))


def test_what_vmap_cannot_run_is_measured_one_sample_at_a_time():
    example = COVERED["MLP with tanh"]
    model, inputs = example.make()
    branching = Lambda(lambda m, x: m.net(x) if x.detach().sum() > -1e9 else x, net=model)
    assert_equal(gradient_differences(branching, inputs, moved), by_loop(example, model, inputs, moved))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        gradient_differences(model, torch.randn(2, 5, dtype=torch.float64), moved)


def test_samples_in_parts(monkeypatch):
    model, inputs = CHAINS["with biases"].make(samples=7)
    expected = gradient_differences(model, inputs, moved)
    sizes = []
    vmap = torch.func.vmap
    monkeypatch.setattr(torch.func, "vmap", lambda f, chunk_size: sizes.append(chunk_size) or vmap(f, chunk_size=chunk_size))
    parameters = 8 * sum(p.numel() for p in model.parameters())
    for budget, size in [(1, 1), (3 * parameters, 3)]:
        monkeypatch.setattr(gradient_difference, "CHUNK_BYTES", budget)
        assert_equal(gradient_differences(model, inputs, moved), expected)
        assert sizes.pop() == size


def test_only_trainable_parameters_count():
    model, inputs = CHAINS["frozen middle"].make()
    example = COVERED["MLP with tanh"]
    assert_equal(gradient_differences(model, inputs, moved), by_loop(example, model, inputs, moved))
    assert gradient_differences(model.requires_grad_(False), inputs, moved).tolist() == [0, 0, 0]
    assert gradient_differences(frozen(mlp(4, 2), "0.weight"), torch.randn(2, 4), moved).tolist() == [0, 0]


class TwoPlaces(nn.Module):
    """One parameter in two modules, one module in two places, one parameter under two names of a module."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.third = self.second
        self.scale = self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        h = self.scale * torch.tanh(self.second(self.gain * torch.tanh(self.first(x))))
        return self.third(h)


def test_shared_parameters_are_put_back():
    model = TwoPlaces().double()
    inputs = torch.randn(3, 4, dtype=torch.float64)
    before = state_of(model)
    actual = gradient_differences(model, inputs, moved)
    assert state_of(model) == before
    assert model.second.weight is model.first.weight
    assert_equal(actual, by_loop(COVERED["MLP with tanh"], model, inputs, moved))


@pytest.mark.parametrize(
    "name", ["MLP with tanh", "residual in place", "ViT, tokens first", "embedding", "LSTM", "weight norm"]
)
def test_nothing_is_left_behind(name):
    example = ALL[name]
    model, inputs = example.make()
    mixed_modes(model)
    before, data = state_of(model), inputs.clone()
    for perturbation in (moved, Gaussian(0.1), AdversarialSign(0.1), lambda x: x.add_(1)):
        expected = gradient_differences(model, inputs, perturbation, **example.options)
        assert state_of(model) == before
        assert torch.equal(inputs, data)
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                assert_equal(gradient_differences(model, inputs, perturbation, **example.options), expected)


def test_lower_precisions():
    model, inputs = CHAINS["with biases"].make()
    expected = gradient_differences(model, inputs, moved)
    single = gradient_differences(model.float(), inputs.float(), moved)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=0)
    assert gradient_differences(model.half(), inputs.half(), lambda x: x + 1000).dtype == torch.float32


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        (
            lambda x: x[:, :2],
            r"perturbation: expected a tensor of the inputs' shape \(3, 4\), but got shape \(3, 2\); return",
        ),
        (lambda x: x[:1], r"but got shape \(1, 4\)"),
        (lambda x: x.tolist(), "but got list; return one perturbed sample for each sample"),
    ],
)
def test_perturbations_that_are_refused(perturbation, message):
    with pytest.raises(ValueError, match=message):
        gradient_differences(mlp(4, 2), torch.randn(3, 4), perturbation)


def test_networks_that_are_refused():
    with pytest.raises(UnsupportedNetworkError, match="Lambda mixes them"):
        gradient_differences(Lambda(lambda m, x: m.net(x - x.mean(0)), net=mlp(4, 2)), torch.randn(3, 4), moved)
    with pytest.raises(ValueError, match="inputs: expected a batch of at least one sample, but got none; leave empty"):
        gradient_differences(mlp(4, 2), torch.zeros(0, 4), moved)
    with pytest.raises(ValueError, match="outputs: expected 'sum', 'each'"):
        gradient_differences(mlp(4, 2), torch.randn(3, 4), moved, outputs="all")
    with pytest.raises(TypeError, match="expected a floating-point tensor"):
        gradient_differences(mlp(4, 2), torch.zeros(3, 4, dtype=torch.long), moved)
