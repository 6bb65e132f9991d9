"""The information of activation patterns over batches, processes, types and in a fit."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tansens.functional.active_nodes import preactivations
from lightning_tansens.metrics.pattern_information import PatternInformation
from tests.boring import CLASSES, BoringModule, Points, fit, loader, make_monitor, measured, mlp, squared_error
from tests.cases import Case
from tests.cases import mlp as chain
from tests.metrics.test_metrics import gathered

NET, INPUTS = Case(lambda: chain(4, 3, 2, 3), outputs=3).make(samples=40)
LABELS = (3 * INPUTS[:, 0].sigmoid()).long()
SPLITS = [[40], [5, 35], [1, 38, 1], [0, 40], [20, 0, 20]]
NAMES = ["pattern_information", "count_information", "label_entropy"]


def information(first, second):
    """Σ p log(p / (p q)) over the whole contingency table."""
    table = np.zeros((max(first) + 1, max(second) + 1))
    np.add.at(table, (first, second), 1 / len(first))
    product = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    return sum(p * math.log(p / q) for p, q in zip(table.ravel(), product.ravel()) if p)


def expected(correction="none"):
    """The values, from the signs of the preactivations; corrected by the numbers of rows, columns and cells."""
    signs = (torch.cat([h.flatten(1) for h in preactivations(NET, INPUTS)], 1) > 0).tolist()
    rows = sorted(map(tuple, signs))
    series = [rows.index(tuple(row)) for row in signs], [sum(row) for row in signs]
    labels = LABELS.tolist()
    values = [information(one, labels) for one in series] + [information(labels, labels)]
    if correction == "miller_madow":
        for i, one in enumerate([*series, labels]):
            number = len(set(one)) + len(set(labels)) - len(set(zip(one, labels))) - 1
            values[i] += number / (2 * len(labels))
    return dict(zip(NAMES, values))


def fed(split=(40,), inputs=INPUTS, labels=LABELS, measure=None, model=NET):
    measure = measure or PatternInformation()
    for part, targets in zip(inputs.split(list(split)), labels.split(list(split)), strict=True):
        if len(part):
            measure.update(model, part, targets)
    return measure


def values(measure):
    return {name: float(value) for name, value in measure.values().items()}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("correction", ["none", "miller_madow"])
def test_against_the_contingency_table(split, correction):
    measure = fed(split, measure=PatternInformation(correction))
    assert list(values(measure)) == NAMES
    assert values(measure) == pytest.approx(expected(correction), rel=1e-10)
    assert float(measure.compute()) == values(measure)["pattern_information"]
    uncorrected = expected()
    patterns, counts, ceiling = (uncorrected[name] for name in NAMES)
    assert 0 < counts < 0.9 * patterns < 0.8 * ceiling  # four different numbers, so that none can stand for another
    assert correction == "none" or all(abs(uncorrected[k] - v) > 0.01 for k, v in values(measure).items())


def line(*weights):
    """A network on x whose hidden units have these weights."""
    net = nn.Sequential(nn.Linear(1, len(weights), bias=False), nn.ReLU(), nn.Linear(len(weights), 1))
    net[0].weight.data.copy_(torch.tensor(weights)[:, None])
    return net


def test_limits():
    inputs, labels = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), torch.tensor([4, 9, 4, 9])
    ceiling = pytest.approx(math.log(2), rel=1e-12)
    both = dict.fromkeys(NAMES, ceiling)
    assert values(fed([4], inputs, labels, model=line(1.0, 2.0))) == both  # 0 or 2 units are active
    assert values(fed([4], inputs, labels, model=line(1.0, -1.0))) == {**both, "count_information": 0}
    nothing = {**both, "pattern_information": 0, "count_information": 0}
    assert values(fed([4], inputs, labels[[0, 0, 1, 1]], model=line(1.0, 2.0))) == nothing


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_processes(split, dtype):
    measures = []
    for part, labels in zip(INPUTS.split(split), LABELS.split(split)):
        measures.append(fed([len(part)], part, labels).set_dtype(dtype) if len(part) else PatternInformation())
        measures[-1].set_dtype(dtype)
    own = str(values(measures[0]))
    with measures[0].sync_context(dist_sync_fn=gathered(*measures), distributed_available=lambda: True):
        assert values(measures[0]) == pytest.approx(expected(), rel=1e-10)
    assert str(values(measures[0])) == own


def test_large_labels_keep_apart():
    inputs, labels = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), 2**40 + torch.tensor([0, 1, 0, 1])
    assert values(fed([4], inputs, labels, model=line(1.0)))["label_entropy"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("labels", [LABELS.int(), LABELS.to(torch.uint8), LABELS.repeat_interleave(2)[::2]])
def test_kinds_of_labels(labels):
    assert values(fed(labels=labels)) == values(fed())
    yes = values(fed(labels=labels > 0))
    assert yes == values(fed(labels=(LABELS > 0).long()))
    assert 0 < yes["label_entropy"] < math.log(2)


def test_single_and_double_precision_agree():
    assert values(fed(inputs=INPUTS.float(), model=copy.deepcopy(NET).float())) == values(fed())


def test_reset_copies_and_forward():
    measure = fed([5, 35], measure=PatternInformation("miller_madow"))
    found = values(measure)
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure)):
        assert values(other) == found
    measure.reset()
    assert all(math.isnan(value) for value in values(measure).values())
    assert float(measure(NET, INPUTS[:10], LABELS[:10])) != found["pattern_information"]
    measure(NET, INPUTS[10:], LABELS[10:])
    assert values(measure) == found


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.rand(5), r"targets: expected class indices of shape \(5,\), but got shape \(5,\), torch.float32; leave Patt"),
        (torch.zeros(5, 3, dtype=torch.long), r"expected class indices of shape \(5,\), but got shape \(5, 3\)"),
        (torch.zeros(4, dtype=torch.long), r"expected class indices of shape \(5,\), but got shape \(4,\)"),
        ([0] * 5, r"expected class indices of shape \(5,\), but got list"),
        (
            torch.tensor([0, 1, -100, 1, 0]),
            "expected class indices, none below 0, but got -100; leave Pattern",
        ),
    ],
)
def test_labels_that_are_no_classes(labels, message):
    measure = PatternInformation()
    with pytest.raises(ValueError, match=message):
        measure.update(NET, INPUTS[:5], labels)
    assert math.isnan(values(measure)["label_entropy"])  # nothing was added


def test_bad_correction():
    with pytest.raises(ValueError, match=r"correction: expected one of \['none', 'miller_madow'\], but got 'chao'"):
        PatternInformation("chao")


@pytest.mark.parametrize("labels", [False, True])
def test_in_the_monitor(labels):
    monitor = make_monitor(measures=[PatternInformation()], compare_with_labels=labels)
    keys = measured(fit(monitor))
    sets = ("train", "test") if labels else ("train",)
    assert {key for key in keys if "information" in key or "entropy" in key} == {f"{n}/{s}" for n in NAMES for s in sets}
    row = monitor.history[-1]
    for name in NAMES[:2]:
        assert 0 <= row[f"tansens/{name}/train"] <= row["tansens/label_entropy/train"] <= math.log(CLASSES)


def test_a_regression_is_refused_by_the_monitor():
    monitor = make_monitor(measures=[PatternInformation()], criterion=squared_error, test_dataloaders=Points(3))
    data = loader(Points(labels="value"))
    with pytest.raises(ValueError, match=r"expected class indices of shape \(5,\), but got shape \(5, 1\), torch.float32"):
        fit(monitor, module=lambda: BoringModule(mlp(1), 0.01, "mse_loss"), data=data)
