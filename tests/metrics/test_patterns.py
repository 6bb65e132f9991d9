"""The number of distinct activation patterns over batches, processes, types and in a fit."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional.active_nodes import preactivations
from lightning_tansens.metrics.patterns import ActivationPatterns
from tests.boring import fit, make_monitor, measured
from tests.cases import Case, mlp
from tests.metrics.test_metrics import gathered

NET, SOME = Case(lambda: mlp(4, 3, 2, 3), outputs=3).make(samples=30)
INPUTS = torch.cat([SOME, 1.5 * SOME[:4]])  # few units: patterns occur again and again
SPLITS = [[34], [5, 29], [1, 32, 1], [0, 34], [20, 0, 14]]


def expected():
    """The number of distinct rows of signs."""
    hidden = torch.cat([h.flatten(1) for h in preactivations(NET, INPUTS)], 1)
    return len({tuple(row) for row in (hidden > 0).tolist()})


def fed(split=(34,), inputs=INPUTS, measure=None, model=NET):
    measure = measure or ActivationPatterns()
    for part in inputs.split(list(split)):
        if len(part):
            measure.update(model, part)
    return measure


def values(measure):
    return {name: float(value) for name, value in measure.values().items()}


@pytest.mark.parametrize("split", SPLITS)
def test_distinct_rows(split):
    number = expected()
    assert 2 < number < 30
    measure = fed(split)
    assert values(measure) == {"patterns": number, "patterns_share": number / 34}
    assert float(measure.compute()) == number
    assert measure.part_values() == measure.distributions() == {}
    assert measure.standard_error() is None


def test_every_pattern_of_three_units():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    nn.init.eye_(net[0].weight)
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    assert values(fed([8], corners, model=net)) == {"patterns": 8, "patterns_share": 1}
    assert values(fed([6, 10], torch.cat([corners, 2 * corners]), model=net)) == {"patterns": 8, "patterns_share": 0.5}


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_duplicates_across_processes_count_once(split, dtype):
    measures = [fed([len(part)], part) if len(part) else ActivationPatterns() for part in INPUTS.split(split)]
    alone = [len(torch.cat(measure.hashes).unique()) for measure in measures]
    for measure in measures:
        measure.set_dtype(dtype)
    assert {state.dtype for measure in measures for state in measure.hashes} == {torch.int64}
    assert sum(alone) > expected() or 0 in split
    own = values(measures[0])
    with measures[0].sync_context(dist_sync_fn=gathered(*measures), distributed_available=lambda: True):
        assert values(measures[0]) == {"patterns": expected(), "patterns_share": expected() / 34}
    assert str(values(measures[0])) == str(own)  # nan is not equal to itself


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float32])
def test_hashes_survive_moves_and_types(dtype):
    measure = fed([10], INPUTS[:10])
    hashes = torch.cat(measure.hashes)
    assert int(hashes.abs().max()) > 2**53  # more than any floating-point type holds
    for move in (lambda: measure.set_dtype(dtype), lambda: measure.to(dtype), lambda: measure.to("cpu"), measure.half):
        move()
        assert torch.equal(torch.cat(measure.hashes), hashes)
    fed([24], INPUTS[10:], measure)
    assert values(measure) == values(fed())
    measure.reset()
    assert {state.dtype for state in measure.hashes} == {torch.int64}  # as a process without a sample sends it


def test_single_and_double_precision_agree():
    assert values(fed(inputs=INPUTS.float(), model=copy.deepcopy(NET).float())) == values(fed())


def test_reset_copies_and_forward():
    measure = fed([5, 29])
    number = values(measure)
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure)):
        assert values(other) == number
    measure.reset()
    assert all(math.isnan(value) for value in values(measure).values())
    assert float(measure(NET, INPUTS[:10])) == values(fed([10], INPUTS[:10]))["patterns"]
    measure(NET, INPUTS[10:])
    assert values(measure) == number


def test_a_network_without_activations_is_refused():
    with pytest.raises(UnsupportedNetworkError, match="expected a network with activation functions"):
        fed(model=nn.Linear(4, 2).double())


def test_in_the_monitor():
    monitor = make_monitor(measures=[ActivationPatterns()])
    keys = measured(fit(monitor))
    assert {key for key in keys if "patterns" in key} == {
        f"patterns{s}/{x}" for s in ("", "_share") for x in ("train", "test")
    }
    row = monitor.history[-1]
    assert 1 <= row["tansens/patterns/test"] == 7 * row["tansens/patterns_share/test"]
