"""The margins of the hidden units over batches, processes and in a fit."""

import copy
import math
import pickle

import pytest
import torch
from mpmath import mp
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional.active_nodes import preactivations
from lightning_tansens.metrics.neuron_margins import NeuronMargins
from tests.boring import BoringModule, fit, make_monitor, measured
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, assert_equal, synced

NAMES = ["neuron_margins", "neuron_margins_min", "neuron_margins_probability", "neuron_margins_probability_min"]


def expected():
    """The values, unit by unit, in 30 digits."""
    units = torch.cat([h.flatten(1) for h in preactivations(NET, INPUTS)], 1).T.tolist()
    with mp.workdps(30):
        rho = [min(abs(mp.mpf(h)) for h in unit) for unit in units]
        hat = [min(abs(1 / (1 + mp.exp(-mp.mpf(h))) - mp.mpf(1) / 2) for h in unit) for unit in units]
        statistics = [mp.fsum(rho) / len(rho), min(rho), mp.fsum(hat) / len(hat), min(hat)]
        return {name: pytest.approx(float(value), rel=1e-12) for name, value in zip(NAMES, statistics)}


def fed(split=(12,), inputs=INPUTS, measure=None, model=NET):
    measure = measure or NeuronMargins()
    for part in inputs.split(list(split)):
        measure.update(model, part)
    return measure


def values(measure):
    return {name: float(value) for name, value in measure.values().items()}


@pytest.mark.parametrize("split", [*SPLITS, [0, 12], [5, 0, 7]])
def test_means_and_minima_over_the_units(split):
    measure = fed(split)
    assert list(values(measure)) == NAMES
    assert values(measure) == expected()
    assert values(measure) == values(fed())
    assert float(measure.compute()) == values(measure)["neuron_margins"]
    assert measure.margins.dtype == torch.float64
    assert measure.part_values() == measure.distributions() == {}


@pytest.mark.parametrize("split", [[6, 6], [3, 4, 5], [11, 0, 1], [0, 12]])
def test_processes(split):
    measure, others = synced(NeuronMargins, split)
    own = str(values(measure))
    with measure.sync_context(**others):
        assert values(measure) == expected()
        assert measure.count == 12
    assert str(values(measure)) == own  # nan is not equal to itself
    assert ("nan" in own) == (split[0] == 0)


def test_a_unit_that_is_never_near_and_one_that_is_at_zero():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 1000.0]))
    measure = fed([1, 2], torch.tensor([[5.0], [0.0], [-7.0]], dtype=torch.float64), model=net)
    assert values(measure) == pytest.approx(dict(zip(NAMES, [993 / 2, 0.0, 0.25, 0.0])), rel=1e-14)


def test_single_and_double_precision():
    single = values(fed(inputs=INPUTS.float(), model=copy.deepcopy(NET).float()))
    assert single == pytest.approx(values(fed()), rel=1e-3)
    assert single != values(fed())


def test_reset_copies_and_forward():
    measure = fed([5, 7])
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        assert values(other) == values(fed())
    measure.reset()
    assert all(math.isnan(value) for value in values(measure).values())
    assert math.isnan(values(NeuronMargins())["neuron_margins"])
    for metric in (measure, NeuronMargins()):
        assert float(metric(NET, INPUTS[:5])) == values(fed([5], INPUTS[:5]))["neuron_margins"]
        assert float(metric(NET, INPUTS[5:])) == values(fed([7], INPUTS[5:]))["neuron_margins"]
        assert_equal(metric.values()["neuron_margins"], fed().compute())


def test_states_are_moved_with_the_measure():
    measure = NeuronMargins().to("meta")
    measure._learn_units((3,))
    assert measure.margins.device.type == "meta"


def test_another_number_of_units():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    measure = fed([2], torch.randn(2, 1, 5, 5), model=net)
    with pytest.raises(ValueError, match="the network has 18 hidden units as before, but it has 32; resize the samples, or"):
        measure.update(net, torch.randn(2, 1, 6, 6))
    measure.reset()
    fed([2], torch.randn(2, 1, 6, 6), measure, net)
    assert measure.margins.shape == (32,)


def test_a_network_without_activations_is_refused():
    with pytest.raises(UnsupportedNetworkError, match="expected a network with activation functions"):
        fed(model=nn.Linear(4, 2).double())


def test_in_the_monitor():
    monitor = make_monitor(measures=[NeuronMargins()])
    trainer = fit(monitor, module=lambda: BoringModule(lr=0.0))
    assert {key for key in measured(trainer) if "margin" in key} == {f"{n}/{s}" for n in NAMES for s in ("train", "test")}
    row = monitor.history[-1]
    assert 0 < row["tansens/neuron_margins_min/test"] < row["tansens/neuron_margins/test"]
    subset = monitor._run.sets[1].subset
    batch = subset.samples(range(len(subset)))[0]
    hidden = preactivations(trainer.lightning_module, batch)[0]
    assert row["tansens/neuron_margins/test"] == pytest.approx(float(hidden.abs().amin(0).mean()), rel=1e-5)
