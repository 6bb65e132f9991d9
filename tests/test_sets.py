"""A subset together with what is measured on it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import active_nodes, log_max_weights, tangent_sensitivity
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, LabelledLoss, LayerwiseNormSensitivity
from lightning_tansens.metrics.states import copied
from lightning_tansens.monitor.data.batches import unpack_batch
from lightning_tansens.monitor.data.reading import Reading
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.monitor.sets import MeasuredSet
from tests.cases import mlp

INPUTS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(20) % 3
CPU = torch.device("cpu")


def identity(batch):
    return batch


def measured(data, *, loss=True, measures=None, batch_size=6, transfer=identity, **reading):
    measures = (
        measures
        if measures is not None
        else [EmpiricalSensitivity(per_layer=True), LayerwiseNormSensitivity(), ActiveNodeSensitivity()]
    )
    loss = LabelledLoss() if loss is True else loss or None
    return MeasuredSet("train", Subset(data, 100, batch_size), transfer, measures, loss, Reading(unpack_batch, **reading))


@pytest.mark.parametrize("batch_size", [1, 6, 20])
def test_readings(batch_size):
    model = mlp(4, 6, 5, 3, between=lambda n: [nn.Dropout(0.5)])
    data = measured(TensorDataset(INPUTS, TARGETS), batch_size=batch_size)
    data.prepare(model, CPU)
    for _ in range(2):  # what was accumulated before is forgotten
        data.update(model)
        reading = data.summary()
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
    tried = len(asked)
    assert tried == 4  # one, and three to see whether it is the same when they are read before
    for _ in range(3):
        data.update(model)
    assert sorted(asked[tried:]) == list(range(20))


def test_a_set_without_labels_needs_none():
    model = mlp(4, 6, 3)
    data = measured(TensorDataset(INPUTS), loss=False)
    data.prepare(model, CPU)
    data.update(model)
    reading = data.summary()
    assert (reading.loss, reading.accuracy) == (None, None)
    data = measured(TensorDataset(INPUTS))
    with pytest.raises(
        ValueError, match="expected the train set to have labels, because its loss is measured, but its batches"
    ):
        data.prepare(model, CPU)


def test_a_regression_has_no_accuracy():
    data = measured(
        TensorDataset(INPUTS, INPUTS[:, :1]), measures=[EmpiricalSensitivity()], loss=LabelledLoss(F.mse_loss), batch_size=4
    )
    data.update(nn.Linear(4, 1))
    assert data.summary().accuracy is None
    assert data.summary().loss > 0


def test_preparation_finds_a_misfit_and_accumulates_nothing():
    data = measured(TensorDataset(INPUTS, TARGETS))
    assert data.prepare(mlp(4, 6, 3), CPU) == {}
    assert all(not measure.count for measure in data.measures)
    assert not data.of_outputs.loss.count
    misfits = measured(TensorDataset(INPUTS, TARGETS)).prepare(nn.Linear(4, 3), CPU)
    assert list(misfits) == ["active_nodes"]  # the others are measured without it
    assert isinstance(misfits["active_nodes"], UnsupportedNetworkError)
    assert "calls none that is known" in str(misfits["active_nodes"])


def test_batches_are_transferred():
    seen = []

    def transfer(batch):
        seen.append(len(batch[0]))
        return [batch[0] * 2, batch[1]]

    model = mlp(4, 6, 3)
    data = measured(TensorDataset(INPUTS, TARGETS), measures=[ActiveNodeSensitivity()], transfer=transfer)
    data.prepare(model, CPU)
    data.update(model)
    assert seen == [5, 5, 2, 2, 6, 6, 6, 2]  # it is tried on five samples and on two, which tells the cost
    expected = float(active_nodes(model, INPUTS * 2).sum(1).double().mean())
    assert data.summary().values["active_nodes"]["active_nodes_mean"] == pytest.approx(expected)


class InPlace(nn.Module):
    """A network that changes its inputs."""

    def forward(self, x):
        return x.mul_(2)[:, :3]


def test_entries_are_those_of_the_inputs_and_are_kept_while_these_stay():
    data = measured(TensorDataset(INPUTS, TARGETS), measures=[], num_outputs=20, class_scores=True, entries=True)
    data.prepare(InPlace(), CPU)
    found = []
    for _ in range(2):
        data.update(InPlace())
        found.append(data.summary().outputs.inputs)
    assert found[0] is found[1]
    assert (found[0].shape, found[0].is_table) == ((4,), True)
    assert np.allclose(found[0].rows, INPUTS[data.subset.indices])
    images = measured(TensorDataset(INPUTS.reshape(-1, 2, 1, 2), TARGETS), measures=[], num_outputs=20, entries=True)
    network = torch.nn.Sequential(torch.nn.Flatten(), mlp(4, 6, 3))
    images.prepare(network, CPU)
    images.update(network)
    seen = images.summary().outputs.inputs
    assert (seen.is_table, seen.channels.tolist()) == (False, [0, 0, 1, 1])


def test_entries_are_not_known_where_samples_have_another_shape():
    data = measured(TensorDataset(INPUTS, TARGETS), measures=[], num_outputs=20, class_scores=True, entries=True)
    data.prepare(mlp(4, 6, 3), CPU)
    data.update(mlp(4, 6, 3))
    found = data.of_outputs.outputs
    found.update(torch.zeros(2, 3), TARGETS[:2], positions=[20, 21], entries=torch.zeros(2, 9))
    assert np.isnan(found.arrays()["entries"][20:]).all()
    assert data.summary().outputs.inputs is None


class NeedsThree(nn.Module):
    def forward(self, x):
        if len(x) < 3:
            raise ValueError("too few neighbours")
        return x[:, :3]


def test_networks_that_take_no_batch_of_two_are_measured():
    data = measured(TensorDataset(INPUTS, TARGETS), measures=[LayerwiseNormSensitivity()], num_outputs=20)
    data.prepare(NeedsThree(), CPU)
    assert data.expected_seconds() >= 0


def test_each_set_has_measures_of_its_own():
    measures = [EmpiricalSensitivity()]
    first, second = (measured(TensorDataset(INPUTS, TARGETS), measures=measures) for _ in range(2))
    first.update(mlp(4, 6, 3))
    assert first.measures[0].count == 20
    assert second.measures[0].count == measures[0].count == 0


@pytest.mark.parametrize("labelled", [True, False])
def test_estimators_are_given_labels_of_the_reference_alone(labelled):
    data = measured(TensorDataset(INPUTS, TARGETS), num_outputs=20, class_scores=True, labelled=labelled)
    data.prepare(mlp(4, 6, 3), CPU)
    data.update(mlp(4, 6, 3))
    assert data.of_outputs.loss.count == 20
    assert len(data.summary().outputs.outputs) == 20
    assert (data.summary().outputs.labels is not None) == labelled


@pytest.mark.parametrize("labels", [TARGETS, TARGETS.where(TARGETS > 0, -100), INPUTS[:, :3]])
def test_labels_of_a_target_change_nothing_that_estimators_get(labels):
    """They neither say which samples count, nor whether outputs are class scores."""
    model, loss = mlp(4, 6, 3), LabelledLoss(F.mse_loss if labels.is_floating_point() else None)
    blind = measured(TensorDataset(INPUTS), loss=False, num_outputs=20)
    seeing = measured(TensorDataset(INPUTS, labels), loss=loss, num_outputs=20)
    for data in (blind, seeing):
        data.prepare(model, CPU)
        data.update(model)
    assert seeing.of_outputs.loss.count > 0
    expected, found = (data.summary().outputs for data in (blind, seeing))
    assert (found.is_classifier, found.labels) == (expected.is_classifier, None)
    assert (found.outputs == expected.outputs).all()


@pytest.mark.parametrize("num_samples", [1, 4, 100])
def test_inputs_that_hold_no_samples_one_by_one_are_refused(num_samples):
    subset = Subset(TensorDataset(INPUTS, TARGETS), num_samples, 6)
    reading = Reading(lambda batch: (batch[0].T.expand(-1, 7), batch[1]) if len(batch[0]) == 1 else (batch[0].T, batch[1]))
    data = MeasuredSet("train", subset, identity, [ActiveNodeSensitivity()], None, reading)
    if num_samples == 4:  # four features: nobody can tell
        return
    with pytest.raises(TypeError, match="the train set cannot be measured: expected inputs whose first dimension is that"):
        data.prepare(mlp(4, 6, 3), CPU)


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
    assert unpack_batch(kind([inputs, targets])) == (inputs, targets)
    assert unpack_batch(kind([inputs])) == (inputs, None)
    assert unpack_batch(inputs) == (inputs, None)
    assert unpack_batch(kind([{"x": inputs}, targets]))[0]["x"] is inputs


@pytest.mark.parametrize(
    ("batch", "came"),
    [({"x": 1, "y": 2}, "dict of 2"), ((1, 2, 3), "tuple of 3"), ([], "list of 0"), ("ab", "str"), (None, "NoneType")],
)
def test_other_batches_are_refused(batch, came):
    with pytest.raises(
        TypeError, match=rf"expected a tuple or list \(inputs, targets\) or \(inputs,\), but got {came}; pass unpack"
    ):
        unpack_batch(batch)


def test_a_measure_that_fails_loses_its_own_values_alone():
    class Failing(EmpiricalSensitivity):
        key = "failing"

        def update(self, model, inputs=None, positions=None):
            raise RuntimeError("no kernel")

    data = measured(TensorDataset(INPUTS, TARGETS), measures=[Failing(), ActiveNodeSensitivity()])
    data.update(mlp(4, 6, 3))
    assert data.summary().values.keys() == {"active_nodes"}
    assert str(data.failed["failing"]) == "no kernel"


def test_a_measure_is_tried_once_for_all_sets_of_the_same_shapes(monkeypatch):
    tried, seen = {}, []
    taken = EmpiricalSensitivity.update
    monkeypatch.setattr(EmpiricalSensitivity, "update", lambda *args, **kwargs: seen.append(1) or taken(*args, **kwargs))
    model = mlp(4, 6, 3)
    for _ in range(3):
        measured(TensorDataset(INPUTS, TARGETS)).prepare(model, CPU, tried=tried)
    assert len(seen) == 2  # on two samples and on five
    measured(TensorDataset(INPUTS.double(), TARGETS)).prepare(model.double(), CPU, tried=tried)
    assert len(seen) == 4
    with_failure = measured(TensorDataset(INPUTS, TARGETS)).prepare(nn.Linear(4, 3), CPU, tried=tried)
    assert len(with_failure) == 1  # a measure that cannot be prepared is a misfit of every set
