"""The number of active nodes layer by layer: names, means and distributions."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.bounds.active_nodes import log_psi
from lightning_tansens.functional.active_nodes import preactivations
from lightning_tansens.metrics import ActiveNodeSensitivity
from tests.boring import BoringModule, fit, make_monitor, measured
from tests.cases import Case, Lambda, mlp
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, assert_equal, synced


def counts(model=NET, inputs=INPUTS):
    """n_i(x_n), from the preactivations, shape (N, L)."""
    return torch.stack([(h.flatten(1) > 0).sum(1) for h in preactivations(model, inputs)], 1).double()


def fed(split=(12,), inputs=INPUTS, model=NET, measure=None):
    measure = measure or ActiveNodeSensitivity(per_layer=True)
    for part in inputs.split(list(split)):
        measure.update(model, part)
    return measure


def check(parts, distributions, expected, names):
    assert list(parts) == names
    assert list(distributions) == ["", *names]
    assert_equal(distributions[""], expected.sum(1))
    for i, name in enumerate(names):
        assert_equal(parts[name], expected[:, i].mean())
        assert_equal(distributions[name], expected[:, i])


def test_the_influences_are_the_derivatives_by_the_samples_weights():
    measure, step = fed(), 1e-4
    numbers, found = measure.numbers(), measure.influence().values

    def psi(weights):
        mean = weights @ numbers
        return log_psi(int(measure.depths), float(mean), float((weights @ (numbers - mean).square()).sqrt()))

    even = torch.full((12,), 1 / 12, dtype=torch.float64)
    for n, own in enumerate(torch.eye(12, dtype=torch.float64)):
        more, less = (even + sign * step * (own - even) for sign in (1, -1))
        assert float(found[n]) == pytest.approx((psi(more) - psi(less)) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_means_and_distributions(split):
    measure = fed(split)
    check(measure.part_values(), measure.distributions(), counts(), ["1", "3"])
    torch.testing.assert_close(sum(measure.part_values().values()), measure.values()["active_nodes_mean"])
    assert measure.values() == fed(split, measure=ActiveNodeSensitivity()).values()


@pytest.mark.parametrize("split", [[6, 6], [3, 4, 5], [11, 0, 1], [0, 12]])
def test_processes(split):
    measure, others = synced(lambda: ActiveNodeSensitivity(per_layer=True), split)
    own = measure.part_values(), measure.distributions()
    with measure.sync_context(**others):
        check(measure.part_values(), measure.distributions(), counts(), ["1", "3"])
    assert str((measure.part_values(), measure.distributions())) == str(own)  # nan is not equal to itself


def test_without_layers_nothing_has_changed():
    measure = ActiveNodeSensitivity()
    measure.prepare(NET, INPUTS[:1])
    states = ["unusable", "samples", "positions", "depths"]
    assert list(measure.metric_state) == states
    fed(measure=measure)
    assert measure.part_values() == {}
    assert list(measure.distributions()) == [""]
    assert measure.rows().shape == (12, 1)
    assert list(fed().metric_state) == states


class Named(nn.Module):
    """Activations in modules, in nested ones, several in one module, and in the network itself."""

    def __init__(self):
        super().__init__()
        self.stem = mlp(4, 5, 4)
        self.shared = nn.ReLU()
        self.block = Lambda(
            lambda m, x: torch.relu(m.second(F.gelu(m.first(x)))), first=nn.Linear(4, 3), second=nn.Linear(3, 6)
        )
        self.head = nn.Sequential(nn.Sequential(nn.Linear(6, 6), self.shared), nn.Linear(6, 4))

    def forward(self, x):
        return self.head(self.block(self.shared(self.stem(x)))).tanh()


def test_names_are_the_modules_paths():
    model, _ = Case(Named).make()
    measure = fed([5, 7], model=model)
    names = ["stem.1", "shared/1", "block/1", "block/2", "shared/2", "Named"]
    expected = counts(model)
    check(measure.part_values(), measure.distributions(), expected, names)
    assert len({tuple(column) for column in expected.T.tolist()}) == 6


def test_the_model_and_its_hooks_are_left_as_they_were():
    model = Named().double().train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    hooks = len(nn.modules.module._global_forward_hooks), len(nn.modules.module._global_forward_pre_hooks)
    fed(model=model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert (len(nn.modules.module._global_forward_hooks), len(nn.modules.module._global_forward_pre_hooks)) == hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions(dtype):
    model, inputs = copy.deepcopy(NET).to(dtype), INPUTS.to(dtype)
    measure = fed(inputs=inputs, model=model)
    check(measure.part_values(), measure.distributions(), counts(model, inputs), ["1", "3"])
    assert measure.rows().dtype == torch.float64


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_copies_and_forward():
    measure = fed([5, 7])
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        check(other.part_values(), other.distributions(), counts(), ["1", "3"])
    measure.reset()
    assert measure.distributions() == {}
    assert math.isnan(measure.part_values()["1"])
    assert ActiveNodeSensitivity(per_layer=True).part_values() == {}
    for metric in (measure, ActiveNodeSensitivity(per_layer=True)):
        metric(NET, INPUTS[:5])
        metric(NET, INPUTS[5:])
        check(metric.part_values(), metric.distributions(), counts(), ["1", "3"])


def test_states_are_moved_with_the_measure():
    measure = ActiveNodeSensitivity(per_layer=True).to("meta")
    assert {state.device.type for state in (measure.depths, *measure.samples, *measure.positions)} == {"meta"}


def test_another_number_of_calls_is_refused():
    steps = Lambda(lambda m, x: sum(torch.relu(h) for h in m.net(x).split(2, 1)), net=nn.Linear(4, 2).double())
    measure = fed(model=steps)
    steps.net = nn.Linear(4, 6).double()
    with pytest.raises(
        ValueError, match=r"per_layer: expected the 1 calls of activations .* pass calls 3; leave per_layer out"
    ):
        measure.update(steps, INPUTS)
    assert measure.count == 12
    fed(model=steps, measure=ActiveNodeSensitivity())


def test_in_the_monitor():
    monitor = make_monitor(measures=[ActiveNodeSensitivity(per_layer=True)])
    fitted = fit(monitor, module=lambda: BoringModule(mlp(4, 6, 5, 3)))
    keys = {key for key in measured(fitted) if key.startswith("active_nodes")}
    names = ("active_nodes", "active_nodes_mean", "active_nodes_std")
    layers = {f"active_nodes/{s}/network.{i}" for s in ("train", "test") for i in (1, 3)}
    assert keys == {f"{n}/{s}" for n in names for s in ("train", "test")} | {
        *layers,
        "active_nodes/train_stderr",
        "active_nodes/test_stderr",
    }
    row = monitor.history[-1]
    parts = sum(row[f"tansens/active_nodes/test/network.{i}"] for i in (1, 3))
    assert parts == pytest.approx(row["tansens/active_nodes_mean/test"], rel=1e-12)
