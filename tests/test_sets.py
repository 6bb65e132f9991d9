"""A subset together with what is measured on it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lightning_tansens._peers import EntropyRatio
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import active_nodes, log_max_weights, tangent_sensitivity
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, LabelledLoss, LayerwiseNormSensitivity
from lightning_tansens.metrics.copies import copied
from lightning_tansens.monitor.sets import MeasuredSet, unpack_pair
from lightning_tansens.monitor.subsets import Subset
from tests.cases import mlp

INPUTS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(20) % 3
CPU = torch.device("cpu")


def identity(batch):
    return batch


def measured(data, *, loss=True, measures=None, batch_size=6, **kwargs):
    measures = measures or [EmpiricalSensitivity(per_layer=True), LayerwiseNormSensitivity(), ActiveNodeSensitivity()]
    return MeasuredSet(
        "train", Subset(data, 100, batch_size, **kwargs), measures, LabelledLoss() if loss else None, unpack_pair
    )


@pytest.mark.parametrize("batch_size", [1, 6, 20])
def test_readings(batch_size):
    model = mlp(4, 6, 5, 3, between=lambda n: [nn.Dropout(0.5)])
    data = measured(TensorDataset(INPUTS, TARGETS), batch_size=batch_size)
    data.prepare(model, identity, CPU)
    for _ in range(2):  # what was accumulated before is forgotten
        data.update(model, identity)
        reading = data.read()
    assert model.training
    outputs = model.eval()(INPUTS).detach()
    assert reading.values.keys() == {"empirical", "active_nodes"}
    assert reading.values["empirical"]["empirical"] == pytest.approx(
        float(tangent_sensitivity(model, INPUTS).mean()), rel=1e-5
    )
    mean = float(active_nodes(model, INPUTS).sum(1).double().mean())
    assert reading.values["active_nodes"]["active_nodes_mean"] == pytest.approx(mean)
    assert sum(reading.parts["empirical"].values()) == pytest.approx(reading.values["empirical"]["empirical"])
    assert reading.parts["active_nodes"] == {}
    assert {part: value.shape for part, value in reading.distributions["active_nodes"].items()} == {"": (20,)}
    assert reading.loss == pytest.approx(float(F.cross_entropy(outputs, TARGETS)), rel=1e-5)
    assert reading.accuracy == pytest.approx(float((outputs.argmax(1) == TARGETS).float().mean()))


def test_samples_are_read_once():
    asked = []

    class Counted(TensorDataset):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    model = mlp(4, 6, 3)
    data = measured(Counted(INPUTS, TARGETS))
    for _ in range(3):
        data.update(model, identity)
    assert sorted(asked) == list(range(20))


def test_a_set_without_labels_needs_none():
    model = mlp(4, 6, 3)
    data = measured(TensorDataset(INPUTS), loss=False)
    data.prepare(model, identity, CPU)
    data.update(model, identity)
    reading = data.read()
    assert (reading.loss, reading.accuracy) == (None, None)
    data = measured(TensorDataset(INPUTS))
    with pytest.raises(
        ValueError, match="expected the train set to have labels, because its loss is measured, but its batches"
    ):
        data.prepare(model, identity, CPU)


def test_a_regression_has_no_accuracy():
    data = MeasuredSet("val", Subset(TensorDataset(INPUTS, INPUTS[:, :1]), 9, 4), [], LabelledLoss(F.mse_loss), unpack_pair)
    data.update(nn.Linear(4, 1), identity)
    assert data.read().accuracy is None
    assert data.read().loss > 0


def test_preparation_finds_a_misfit_and_accumulates_nothing():
    data = measured(TensorDataset(INPUTS, TARGETS))
    data.prepare(mlp(4, 6, 3), identity, CPU)
    assert all(not measure.count for measure in data.measures)
    assert not data.outputs.loss.count
    with pytest.raises(UnsupportedNetworkError, match="calls none that is known"):
        measured(TensorDataset(INPUTS, TARGETS)).prepare(nn.Linear(4, 3), identity, CPU)


def test_batches_are_transferred():
    seen = []

    def transfer(batch):
        seen.append(len(batch[0]))
        return [batch[0] * 2, batch[1]]

    model = mlp(4, 6, 3)
    data = measured(TensorDataset(INPUTS, TARGETS), measures=[ActiveNodeSensitivity()])
    data.prepare(model, transfer, CPU)
    data.update(model, transfer)
    assert seen == [1, 6, 6, 6, 2]
    expected = float(active_nodes(model, INPUTS * 2).sum(1).double().mean())
    assert data.read().values["active_nodes"]["active_nodes_mean"] == pytest.approx(expected)


def test_each_set_has_measures_of_its_own():
    measures = [EmpiricalSensitivity()]
    first, second = (measured(TensorDataset(INPUTS, TARGETS), measures=measures) for _ in range(2))
    first.update(mlp(4, 6, 3), identity)
    assert first.measures[0].count == 20
    assert second.measures[0].count == measures[0].count == 0


def test_peers_of_a_target_are_given_no_labels():
    data = TensorDataset(INPUTS, TARGETS)
    for seen in (True, False):
        compared = MeasuredSet(
            "test", Subset(data, 20, 6), [], LabelledLoss(), unpack_pair, [EntropyRatio()], peers_see_labels=seen
        )
        compared.prepare(mlp(4, 6, 3), identity, CPU)
        compared.update(mlp(4, 6, 3), identity)
        assert compared.outputs.loss.count == 20
        assert compared.outputs.peers[0].labelled == (20 if seen else 0)


def test_a_copy_is_empty():
    measure = LayerwiseNormSensitivity("linear")
    measure.update(mlp(4, 6, 3))
    copy = copied(measure)
    assert copy.count == 0
    assert measure.count == 1
    assert copy.form == "linear"
    copy.update(nn.Linear(2, 2))
    assert measure.compute() != log_max_weights(nn.Linear(2, 2)).sum()


@pytest.mark.parametrize("kind", [tuple, list])
def test_unpack(kind):
    inputs, targets = torch.zeros(2, 3), torch.ones(2)
    assert unpack_pair(kind([inputs, targets])) == (inputs, targets)
    assert unpack_pair(kind([inputs])) == (inputs, None)
    assert unpack_pair(inputs) == (inputs, None)
    assert unpack_pair(kind([{"x": inputs}, targets]))[0]["x"] is inputs


@pytest.mark.parametrize(
    ("batch", "came"),
    [({"x": 1, "y": 2}, "dict of 2"), ((1, 2, 3), "tuple of 3"), ([], "list of 0"), ("ab", "str"), (None, "NoneType")],
)
def test_other_batches_are_refused(batch, came):
    with pytest.raises(
        TypeError, match=rf"expected a tuple or list \(inputs, targets\) or \(inputs,\), but got {came}; pass unpack"
    ):
        unpack_pair(batch)
