"""Outputs that are gathered over batches and processes: order, shapes, types, a process without samples."""

import numpy as np
import pytest
import torch

from lightning_tansens.estimators import Outputs
from lightning_tansens.metrics.outputs import MAX_NUMBERS, SetOutputs
from tests.estimators.data import CLASSES, LABELS, REFERENCE
from tests.processes import launch, several_processes

SCORES, TARGETS = torch.from_numpy(REFERENCE), torch.from_numpy(LABELS)


def test_batches_do_not_matter():
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3)).tolist()
    split, whole = SetOutputs(features=True), SetOutputs(features=True)
    for part in (order[:7], order[7:8], order[8:]):
        split.update(SCORES[part], TARGETS[part], SCORES[part], part)
    whole.update(SCORES, TARGETS, SCORES)
    for name, value in whole.arrays().items():
        np.testing.assert_array_equal(split.arrays()[name], value)
    outputs = Outputs.of(**split.arrays())
    assert outputs.is_classifier
    assert outputs.outputs.dtype == np.float64
    np.testing.assert_array_equal(outputs.outputs, REFERENCE)
    np.testing.assert_array_equal(outputs.labels, LABELS)


def test_a_reset_forgets_samples_and_keeps_shapes():
    gathered = SetOutputs()
    gathered.update(SCORES, TARGETS)
    gathered.reset()
    assert gathered.arrays()["outputs"].shape == (0, CLASSES)
    gathered.update(SCORES[:2], TARGETS[:2])
    assert gathered.arrays()["labels"].tolist() == LABELS[:2].tolist()
    assert SetOutputs().arrays()["outputs"].shape == (0,)


def test_labels_are_kept_where_they_are_wanted():
    gathered = SetOutputs(labels=False)
    gathered.update(SCORES, TARGETS)
    assert set(gathered.arrays()) == {"outputs", "is_classifier"}


@pytest.mark.parametrize(
    ("outputs", "targets", "classes"),
    [
        (torch.zeros(3, 2), torch.zeros(3).long(), True),
        (torch.zeros(3, 2), None, True),
        (torch.zeros(3, 2), torch.zeros(3, 2), False),
        (torch.zeros(3, 1), torch.zeros(3, 1), False),
        (torch.zeros(3), torch.zeros(3), False),
        (torch.zeros(3, 2, 4), torch.zeros(3, 4).long(), False),
    ],
)
def test_class_scores_are_told_from_other_outputs(outputs, targets, classes):
    gathered = SetOutputs()
    gathered.update(outputs, targets)
    assert gathered.arrays()["is_classifier"] is classes
    assert Outputs.of(**gathered.arrays()).is_classifier is classes


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_single_logit_may_be_called_a_class_score(shape):
    gathered = SetOutputs(class_scores=True)
    gathered.update(torch.tensor([1.0, -1.0, 2.0]).reshape(shape), torch.tensor([1.0, 0.0, 0.0]).reshape(shape))
    assert Outputs.of(**gathered.arrays()).correct.tolist() == [1, 1, 0]


def test_half_precision_is_gathered_in_single():
    gathered = SetOutputs()
    gathered.update(SCORES.bfloat16(), TARGETS)
    assert gathered.arrays()["outputs"].dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 40, 50), (21, 30, 30), (6000,)])
def test_dense_outputs_are_thinned_at_the_same_places(shape):
    outputs = torch.arange(2.0)[:, None] + torch.arange(float(torch.Size(shape).numel())).reshape(1, -1)
    outputs = outputs.reshape(2, *shape)
    first, second = SetOutputs(class_scores=False), SetOutputs(class_scores=False)
    first.update(outputs[:1])
    second.update(outputs)
    kept = second.arrays()["outputs"]
    assert MAX_NUMBERS - shape[0] <= kept[0].size <= MAX_NUMBERS
    assert (kept[1] - kept[0] == 1).all()
    assert (first.arrays()["outputs"][0] == kept[0]).all()
    if len(shape) == 3:
        assert kept.shape[1] == shape[0]
        places = kept[0, 0]  # channels are kept together
        assert (kept[0, 1] == places + shape[1] * shape[2]).all()


@pytest.mark.parametrize(
    ("outputs", "targets", "features", "message"),
    [
        ("logits", None, None, r"outputs: expected one tensor of floating-point numbers, shape \(N, ...\), but got str"),
        (torch.zeros(3, 2).long(), None, None, "outputs: expected one tensor of floating-point numbers"),
        (torch.tensor(1.0), None, None, "outputs: expected one tensor of floating-point numbers"),
        (torch.zeros(3, 2, 2), None, None, r"outputs: expected class scores of shape \(N, C\), \(N, 1\) or \(N,\)"),
        (torch.zeros(3, 2), torch.zeros(3), None, r"targets: expected class indices of shape \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(2).long(), None, r"targets: expected class indices of shape \(3,\)"),
        (torch.zeros(3, 2), [0, 1, 0], None, r"targets: expected class indices of shape \(3,\), but got list"),
        (
            torch.zeros(2, 2),
            torch.tensor([0, 2]),
            None,
            "targets: expected classes from 0 to 1, as many as outputs, but got 0",
        ),
        (torch.zeros(2, 1), torch.tensor([0.0, 0.5]), None, "targets: expected classes from 0 to 1, as many as outputs"),
        (torch.zeros(3, 2), None, torch.zeros(2, 5), r"features: expected shape \(3, F\), one row for each sample"),
    ],
)
def test_what_does_not_fit_is_refused(outputs, targets, features, message):
    with pytest.raises(ValueError, match=message):
        SetOutputs(class_scores=True, features=True).update(outputs, targets, features)


def test_another_network_is_refused():
    gathered = SetOutputs()
    gathered.update(SCORES, TARGETS)
    with pytest.raises(ValueError, match=r"outputs: expected shapes as before, .*outputs \(N, 4\).*but got .*\(N, 5\)"):
        gathered.update(torch.zeros(3, CLASSES + 1), torch.zeros(3).long())


def work(launched):
    """One of two processes, of which the second has no sample."""
    with launched.group() as rank:
        found = []
        for kind in (torch.float32, torch.float64):
            for samples in (1, 5):
                gathered = SetOutputs(features=True).to("cpu")
                outputs = SCORES[:samples].to(kind)
                gathered.prepare(outputs, TARGETS[:samples], outputs)
                for _ in range(2):  # a reset in between, as between two measurements
                    gathered.reset()
                    mine = list(range(samples))[rank::2][::-1]
                    if mine:
                        gathered.update(outputs[mine], TARGETS[:samples][mine], outputs[mine], mine)
                    with gathered.sync_context():
                        arrays = gathered.arrays()
                    assert sum(len(part) for part in gathered.positions) == len(mine)
                found.append({name: torch.as_tensor(value) for name, value in arrays.items()})
    launched.save(found)


@several_processes
def test_a_process_without_samples_gets_what_the_others_have(tmp_path):
    first, second = launch(work, tmp_path)
    for number, (kind, samples) in enumerate((k, s) for k in (torch.float32, torch.float64) for s in (1, 5)):
        for name, value in first[number].items():
            assert torch.equal(value, second[number][name])
            assert value.dtype == second[number][name].dtype
        assert torch.equal(first[number]["outputs"], SCORES[:samples].to(kind))
        assert first[number]["outputs"].dtype == kind
        assert torch.equal(first[number]["labels"], TARGETS[:samples])
