"""The regulariser: its mean over all probes, its gradient, and what it leaves as it was."""

import itertools
import math
import random
import re
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent import regulariser
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.regulariser import TangentSensitivityRegulariser
from tests.boring import BoringData, BoringModule, fit
from tests.cases import CHAINS, Lambda, mlp
from tests.helpers import assert_equal, mixed_modes, state_of
from tests.networks import COVERED, UNCOVERED
from tests.oracle import squared_norms, squared_norms_of_each, tangent_matrices
from tests.test_examples import run_example  # noqa: F401

#: Without one whose third derivative torch refuses, a transposed convolution with output padding; and without those whose x
#: is the output of a module, with parameters that move x.
NETWORKS = {
    name: example
    for name, example in (COVERED | UNCOVERED).items()
    if name not in ("transposed", "embedding", "embedding, tied to the output", "inner module")
}


def regulariser_of(example, **options):
    return TangentSensitivityRegulariser(1.0, wrt=example.wrt, output=example.output, **options)


def gradients(value, model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)


def all_signs(size):
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=size)), dtype=torch.float64)


def closed_sum(model, inputs, weightings):
    """Mean over n of Σ_u Σ_i ‖δ_i‖²‖J_{i-1}‖² of a ReLU chain, with a graph to the weights."""
    layers = [module for module in model if isinstance(module, nn.Linear)]
    total = 0
    for x in inputs:
        a, jacobian, jacobians, masks = x, torch.eye(len(x), dtype=x.dtype), [], []
        for layer in layers:
            jacobians.append(jacobian)
            h = layer(a)
            masks.append((h > 0).to(x.dtype).diag())
            a, jacobian = h.relu(), masks[-1] @ layer.weight @ jacobian
        for delta in weightings:
            for i in reversed(range(len(layers))):
                total = total + delta.square().sum() * jacobians[i].square().sum()
                if i:
                    delta = masks[i - 1] @ layers[i].weight.T @ delta
    return total / len(inputs)


@pytest.mark.parametrize("outputs", ["sum", "each"])
def test_the_mean_over_all_signs_is_the_closed_sum_and_so_is_its_gradient(outputs, monkeypatch):
    torch.manual_seed(0)
    model, inputs = mlp(2, 2, 2, bias=False).double(), torch.randn(2, 2, dtype=torch.float64)
    monkeypatch.setattr(regulariser, "parameter_probes", lambda parameters, *_: cut(next(ws), parameters))
    monkeypatch.setattr(regulariser, "input_probes", lambda *_: next(us).reshape(2, 2))
    # unit vectors, scaled, have E w wᵀ = I as well, and there are fewer of them
    pairs = [(w, u) for w in all_signs(8) for u in [None]]
    if outputs == "each":
        pairs = [(w, u) for w in math.sqrt(8) * torch.eye(8, dtype=torch.float64) for u in all_signs(4)]
    ws, us = iter([w for w, _ in pairs]), iter([u for _, u in pairs])
    mean = TangentSensitivityRegulariser(1.0, outputs, num_probes=len(pairs))(model, inputs)
    exact = squared_norms(model, inputs) if outputs == "sum" else squared_norms_of_each(model, inputs, 2).sum(1)
    assert_equal(mean.detach(), exact.mean())
    weightings = torch.ones(1, 2).double() if outputs == "sum" else torch.eye(2).double()
    closed = closed_sum(model, inputs, weightings)
    assert_equal(closed.detach(), exact.mean())
    for actual, expected in zip(gradients(mean, model), gradients(closed, model), strict=True):
        assert_equal(actual, expected, atol=1e-12)
        assert actual.abs().max() > 0.1


def cut(w, parameters):
    """A vector over all parameters, as a dict."""
    parts = w.split([p.numel() for p in parameters.values()])
    return {name: part.reshape(p.shape) for (name, p), part in zip(parameters.items(), parts, strict=True)}


@pytest.mark.parametrize(("name", "outputs"), [("with biases", "sum"), ("MLP with tanh", "each")])
def test_unbiased(name, outputs):
    # the budget: 50 calls of 20 probes, whose mean is off by less than four of its standard errors, each below 4 %
    model, inputs = {**CHAINS, **COVERED}[name].make()
    exact = tangent_sensitivity(model, inputs, method="exact", outputs=outputs).reshape(len(inputs), -1).sum(1).mean()
    term = TangentSensitivityRegulariser(1.0, outputs, num_probes=20)
    draws = torch.stack([term(model, inputs).detach() for _ in range(50)])
    error = draws.std() / math.sqrt(len(draws))
    assert error < 0.04 * exact
    assert abs(draws.mean() - exact) < 4 * error


@pytest.mark.parametrize("outputs", ["sum", "each"])
@pytest.mark.parametrize("name", ["with biases", "MLP with tanh", "grouped", "frozen parameters", "tied layers"])
def test_the_value_for_the_probes_that_were_drawn(name, outputs, monkeypatch):
    drawn = {"parameter_probes": [], "input_probes": []}
    for function, results in drawn.items():
        original = getattr(regulariser, function)
        monkeypatch.setattr(
            regulariser, function, lambda *args, f=original, found=results: found.append(f(*args)) or found[-1]
        )
    model, inputs = {**CHAINS, **NETWORKS}[name].make(samples=3)
    actual = TangentSensitivityRegulariser(0.5, outputs, num_probes=2)(model, inputs)
    ws, us = drawn["parameter_probes"], drawn["input_probes"] or [None, None]
    assert len(ws) == 2
    assert not all(torch.equal(ws[0][name], ws[1][name]) for name in ws[0])
    total = 0.0
    for w, u in zip(ws, us, strict=True):
        assert {float(sign) for p in w.values() for sign in p.unique()} == {-1.0, 1.0}
        for n in range(3):
            blocks = tangent_matrices(model, inputs[n : n + 1], None if u is None else u[n])
            product = sum(block[0].T @ w[name].reshape(-1).double() for name, block in blocks.items())
            total += product.square().sum() / 6
    assert_equal(actual.detach(), 0.5 * total)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_its_gradient_is_that_of_finite_differences(name):
    model, inputs = NETWORKS[name].make()
    model.train()
    term = regulariser_of(NETWORKS[name], outputs="each")
    value = float(term_at_one_draw(term, model, inputs).detach())
    slope, numeric = along_a_line(model, lambda: term_at_one_draw(term, model, inputs))
    assert slope == pytest.approx(numeric, rel=1e-6, abs=1e-9 * value + 1e-20)


def term_at_one_draw(term, model, inputs):
    term.calls = 5
    return term(model, inputs)


def along_a_line(model, function, step=1e-6):
    """The derivative along a random direction of the parameters, from the graph and from a central difference."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    value, values = function(), []
    # networks that are linear in x have a constant S, and no graph
    found = gradients(value, model) if value.requires_grad else [torch.zeros_like(p) for p in parameters]
    for sign in (1, -2):
        with torch.no_grad():
            for p, direction in zip(parameters, directions):
                p.add_(direction, alpha=sign * step)
        values.append(float(function().detach()))
    slope = sum(float((gradient * direction).sum()) for gradient, direction in zip(found, directions))
    return slope, (values[0] - values[1]) / (2 * step)


def test_each_entry_of_its_gradient():
    torch.manual_seed(0)
    between = lambda n: [nn.BatchNorm1d(n), nn.Dropout(0.3)]  # noqa: E731
    model, inputs = mlp(3, 5, 4, 2, between=between).double(), torch.randn(4, 3, dtype=torch.float64)
    term, step = TangentSensitivityRegulariser(1.0, "each", num_probes=2), 1e-6
    found = gradients(term_at_one_draw(term, model, inputs), model)
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        numeric = torch.zeros_like(gradient)
        for i in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    entry = parameter.view(-1)[i].clone()
                    parameter.view(-1)[i] += sign * step
                    values.append(float(term_at_one_draw(term, model, inputs)))
                    parameter.view(-1)[i] = entry
            numeric.view(-1)[i] = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-6)


def test_a_module_whose_output_is_x():
    # the network behind the module, on its output, held constant
    torch.manual_seed(0)
    first, rest = nn.Linear(4, 5).double().requires_grad_(False), mlp(5, 4, 3, activation=nn.Tanh).double()
    model, inputs = nn.Sequential(first, *rest), torch.randn(3, 4, dtype=torch.float64)
    whole = TangentSensitivityRegulariser(1.0, wrt="0")(model, inputs)
    part = TangentSensitivityRegulariser(1.0)(rest, first(inputs))
    assert_equal(whole.detach(), part.detach())
    for actual, expected in zip(gradients(whole, rest), gradients(part, rest), strict=True):
        assert_equal(actual, expected)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


#: An operator that has a substitute, with its arguments.
OPERATORS = {
    "F.layer_norm": (lambda x, w, b: F.layer_norm(x, (3, 4), w, b, 0.1), (2, 3, 4), (3, 4), (3, 4)),
    "torch.layer_norm": (lambda x, w, b: torch.layer_norm(x, (4,), w, b, 0.1, False), (3, 4), (4,), (4,)),
    "layer norm without affine": (lambda x: F.layer_norm(x, (4,)), (2, 4)),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (2, 2, 3), (2,), (2,)),
    "instance norm with statistics": (
        lambda x: F.instance_norm(x, torch.ones(2).double(), torch.full((2,), 3.0).double(), use_input_stats=False),
        (2, 2, 3),
    ),
    "weight norm": (lambda v, g: torch._weight_norm(v, g, 0), (3, 4), (3, 1)),
    "weight norm of columns": (lambda v, g: torch._weight_norm(v, g, 1), (3, 4), (1, 4)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_third_derivatives_of_substituted_operators(name):
    torch.manual_seed(0)
    function, *shapes = OPERATORS[name]
    arguments = [normal(*shape) for shape in shapes]

    def substituted(*arguments):
        with twice_differentiable(nn.Identity(), thrice=True):
            return function(*arguments)

    def slopes(*arguments):
        values = substituted(*arguments)
        weights = torch.linspace(0.5, 1.5, values.numel(), dtype=values.dtype).view_as(values)
        return torch.autograd.grad((values * weights).sum(), arguments, create_graph=True)

    assert_equal(substituted(*arguments), function(*arguments), atol=1e-14)
    assert torch.autograd.gradcheck(slopes, arguments)
    assert torch.autograd.gradgradcheck(slopes, arguments)


def everything_random():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def counting():
    """Counts its forward passes in train mode in a buffer, and reads it."""

    def forward(m, x):
        if m.training:
            m.count += 1
        return torch.tanh(m.linear(F.dropout(x, 0.5, m.training))) * m.count

    return Lambda(forward, linear=nn.Linear(4, 2), count=torch.ones(1))


def evaluation_counts_as_a_write():
    """Whether torch itself counts a plain evaluation as a change of an instance norm's statistics, as 2.6 does."""
    norm = nn.InstanceNorm1d(2, track_running_stats=True).eval()
    before = norm.running_mean._version
    norm(torch.ones(1, 2, 3))
    return norm.running_mean._version > before


INSTANCE_NORM = pytest.param(
    "instance norm with statistics",
    marks=pytest.mark.skipif(evaluation_counts_as_a_write(), reason="this torch counts a plain evaluation as a change"),
)


@pytest.mark.parametrize("name", ["batch norm 2d", INSTANCE_NORM, "LSTM", "ViT, batch first", "counting"])
@pytest.mark.parametrize("modes", [lambda model: model.train(), mixed_modes])
def test_everything_else_is_left_as_it_was(name, modes):
    model, inputs = (counting().double(), normal(3, 4)) if name == "counting" else NETWORKS[name].make()
    before, states = state_of(modes(model)), everything_random()
    loss = TangentSensitivityRegulariser(1.0, "each")(model, inputs)
    assert state_of(model) == before
    loss.backward()
    after = state_of(model)
    assert after.pop("gradients") != before.pop("gradients")
    assert (after, everything_random()) == (before, states)
    assert inputs.grad is None


def test_the_graph_survives_the_training_loss():
    # a training step runs the network a second time, and its buffers change
    model, inputs = NETWORKS["batch norm 2d"].make()
    term = TangentSensitivityRegulariser(1.0)
    expected = gradients(term_at_one_draw(term, model, inputs), model)
    value = term_at_one_draw(term, model.train(), inputs)
    model(inputs).sum().backward()
    for actual, alone in zip(gradients(value, model), expected, strict=True):
        assert_equal(actual, alone)


def test_dropout_is_in_the_models_mode():
    # S of dropout before w·x is diag(mask)/(1 − p), so ‖Sᵀ w‖² is 4 for each input that is kept
    model, inputs = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 1)).double(), normal(1, 6).detach()
    term = TangentSensitivityRegulariser(1.0)
    values = torch.stack([term(model, inputs) for _ in range(200)])
    assert set(values.tolist()) <= {4.0 * kept for kept in range(7)}
    assert len(values.unique()) > 4
    assert abs(values.mean() - 12) < 4 * values.std() / math.sqrt(200)
    assert term_at_one_draw(term, model, inputs) == term_at_one_draw(term, model, inputs)
    assert term(model.eval(), inputs) == 6


def test_batch_norm_uses_its_running_statistics():
    model, inputs = CHAINS["batch norm before ReLU"].make()
    term = TangentSensitivityRegulariser(1.0)
    assert model.training
    assert term_at_one_draw(term, model, inputs) == term_at_one_draw(term, model.eval(), inputs) > 0


def test_networks_without_a_gradient_of_it():
    linear, inputs = nn.Linear(5, 1).double(), normal(3, 5).detach()
    assert TangentSensitivityRegulariser(0.5, "each")(linear, inputs) == 0.5 * 5
    assert TangentSensitivityRegulariser(1.0)(linear.requires_grad_(False), inputs) == 0
    linear.bias.requires_grad_(True)
    loss = linear(inputs).sum() + TangentSensitivityRegulariser(1.0)(linear, inputs)
    loss.backward()
    assert loss == linear(inputs).sum()
    assert linear.bias.grad.tolist() == [3.0]


@pytest.mark.parametrize("context", [torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)])
def test_surroundings(context):
    model, inputs = mlp(4, 6, 2), torch.randn(3, 4)
    term = TangentSensitivityRegulariser(1.0)
    expected = term_at_one_draw(term, model, inputs).detach()
    with context:
        actual = term_at_one_draw(term, model, inputs)
    assert actual == expected
    low = term_at_one_draw(term, model.bfloat16(), inputs.bfloat16())
    assert low.dtype == expected.dtype == torch.float32
    assert low.item() == pytest.approx(expected.item(), rel=0.03)


def test_compiled():
    model, inputs = mlp(4, 6, 2), torch.randn(3, 4)
    term = TangentSensitivityRegulariser(1.0)
    expected = model(inputs).mean() + term_at_one_draw(term, model, inputs)
    step = torch.compile(lambda: model(inputs).mean() + term_at_one_draw(term, model, inputs), backend="eager")
    assert step() == expected
    assert term_at_one_draw(term, torch.compile(model, backend="eager"), inputs) + model(inputs).mean() == expected


def test_seeds_and_calls_name_the_draws():
    model, inputs = mlp(4, 6, 2).double(), normal(3, 4)

    def series(seed, calls=0):
        term = TangentSensitivityRegulariser(1.0, seed=seed)
        term.load_state_dict({"_extra_state": calls})
        return [float(term(model, inputs)) for _ in range(4)]

    assert len({*series(0), *series(1)}) == 8
    assert series(0) == series(0)
    assert series(0, calls=2)[:2] == series(0)[2:]


class Regularised(BoringModule):
    def __init__(self, strength=0.05):
        super().__init__(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
        self.term = TangentSensitivityRegulariser(strength)

    def training_step(self, batch, index):
        return super().training_step(batch, index) + self.term(self, batch[0])


def test_a_resumed_run_repeats(tmp_path):
    save = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    options = {"module": Regularised, "data": BoringData(shuffle=False), "max_epochs": 3, "enable_checkpointing": True}
    whole = fit(save, **options).lightning_module
    resumed = fit(ModelCheckpoint(tmp_path / "resumed"), ckpt_path=tmp_path / "epoch=0.ckpt", **options).lightning_module
    assert resumed.term.calls == whole.term.calls == 9
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name])


def test_training_with_it_lowers_the_sensitivity():
    points = BoringData().train_dataloader().dataset
    batch, found = torch.stack([points[n][0] for n in range(len(points))]), []
    for strength in (0.0, 1e-3, 1e-2):
        network = fit(module=partial(Regularised, strength), max_epochs=10).lightning_module.network
        found.append(float(tangent_sensitivity(network, batch, method="exact").mean()))
    assert found[0] > found[1] > found[2] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1.0}, "strength: expected a finite number >= 0, but got -1.0"),
        ({"strength": math.nan}, "strength: .* but got nan"),
        ({"strength": math.inf}, "strength: .* but got inf"),
        ({"strength": 1.0, "outputs": "all"}, r"outputs: expected one of \['sum', 'each'\], but got 'all'"),
        ({"strength": 1.0, "num_probes": 0}, "num_probes: expected a positive integer, but got 0"),
        ({"strength": 1.0, "seed": -1}, "seed: expected an integer that is not negative, but got -1"),
        ({"strength": 1.0, "seed": 0.5}, "seed: .* but got 0.5"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TangentSensitivityRegulariser(**arguments)


def test_wrong_batches_and_networks():
    term = TangentSensitivityRegulariser(1.0)
    with pytest.raises(ValueError, match="inputs: expected a batch of at least one sample, but got none; leave"):
        term(nn.Linear(4, 2), torch.zeros(0, 4))
    with pytest.raises(TypeError, match="inputs: expected a floating-point tensor"):
        term(nn.Linear(4, 2), torch.zeros(3, 4, dtype=torch.long))
    with pytest.raises(UnsupportedNetworkError, match="use track_running_stats=True"):
        term(nn.BatchNorm1d(4, track_running_stats=False), torch.randn(3, 4))
    with pytest.raises(UnsupportedNetworkError, match="expected the samples of a batch to be independent"):
        term(Lambda(lambda m, x: m.linear(x - x.mean(0)), linear=nn.Linear(4, 2)), torch.randn(3, 4))
    assert term.calls == 0


def test_the_example(run_example, capsys):  # noqa: F811
    few = ("--trainer.callbacks.every_n_epochs=1", "--trainer.callbacks.estimators=[]")
    (row, _) = run_example("regularisation", *few)
    assert float(row["tansens/empirical/test"]) > 0
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[0].split() == ["on", "the", "test", "set", "without", "with"]
    table = {re.split(r"  +", line)[0]: [float(number) for number in line.split()[-2:]] for line in lines[1:]}
    assert list(table) == ["mean squared sensitivity", "test loss", "test accuracy"]
    assert table["mean squared sensitivity"][0] > table["mean squared sensitivity"][1] > 0
