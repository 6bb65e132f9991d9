"""The sensitivity of each output, and of each output on each class."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.metrics import ClassSensitivity, OutputSensitivity
from tests.cases import Case, mlp
from tests.metrics.test_metrics import assert_equal, gathered

NET, INPUTS = Case(lambda: mlp(4, 6, 5, 3), outputs=3).make(samples=12)
LABELS = torch.tensor([0, 2, 2, 0, 0, 2, 0, 2, 0, 0, 2, 2])  # class 1 has no sample
NORMS = tangent_sensitivity(NET, INPUTS, outputs="each").sqrt()
SPLITS = [[12], [5, 7], [1, 10, 1], [12, 0], [0, 4, 8]]


def fed(measure, inputs=INPUTS, labels=LABELS, batch=5):
    for start in range(0, len(inputs), batch):
        part = slice(start, start + batch)
        measure.update(NET, inputs[part], *([labels[part]] if isinstance(measure, ClassSensitivity) else []))
    return measure


def test_outputs():
    measure = fed(OutputSensitivity())
    assert_equal(torch.stack(list(measure.part_values().values())), NORMS.mean(0))
    assert list(measure.part_values()) == ["0", "1", "2"]
    assert_equal(measure.compute(), NORMS.mean())
    assert "closed_form" in measure.note()


def test_classes():
    measure = fed(ClassSensitivity(matrix=True))
    parts = measure.part_values()
    pairs = [f"{k}/{c}" for k in (0, 2) for c in range(3)]
    assert list(parts) == ["0", "2", "all/0", "all/1", "all/2", *pairs]
    for k in (0, 2):
        of_class = NORMS[k == LABELS]
        assert_equal(parts[str(k)], of_class.mean())
        for c in range(3):
            assert_equal(parts[f"{k}/{c}"], of_class[:, c].mean())
    for c in range(3):
        assert_equal(parts[f"all/{c}"], NORMS[:, c].mean())
    assert_equal(measure.compute(), NORMS.mean())
    assert list(fed(ClassSensitivity()).part_values()) == ["0", "2", "all/0", "all/1", "all/2"]


def test_two_outputs_of_different_scale():
    """Of a linear map each output has √D, whatever its weights; of a product of two, the scale shows."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.copy_(torch.tensor([[3.0], [0.0]]))
    measure = OutputSensitivity()
    measure.update(model, torch.randn(5, 4, dtype=torch.float64))
    # ∂²f_c/∂θ∂x: v_c·I for the first layer, with norm |v_c|·√4, and W for the second, with norm √4
    assert [float(value) for value in measure.part_values().values()] == pytest.approx([40**0.5, 2.0])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("make", [OutputSensitivity, lambda: ClassSensitivity(matrix=True)], ids=["outputs", "classes"])
def test_processes(make, split):
    measures = []
    for part, labels in zip(INPUTS.split(split), LABELS.split(split), strict=True):
        measure = make()
        measure.prepare(NET, INPUTS[:1])
        measures.append(fed(measure, part, labels))
    whole = fed(make())
    sync = {"dist_sync_fn": gathered(*measures), "distributed_available": lambda: True}
    with measures[0].sync_context(**sync):
        values, parts = measures[0].values(), measures[0].part_values()
    assert_equal(values[whole.key], whole.compute())
    assert parts.keys() == whole.part_values().keys()
    for name, expected in whole.part_values().items():
        assert_equal(parts[name], expected)


@pytest.mark.parametrize("make", [OutputSensitivity, ClassSensitivity])
def test_copies_and_resets(make):
    measure = fed(make())
    for other in (copy.deepcopy(measure), measure.clone(), pickle.loads(pickle.dumps(measure))):
        assert torch.equal(other.compute(), measure.compute())
    measure.reset()
    assert torch.equal(fed(measure).compute(), fed(make()).compute())
    assert make().part_values() == {}


@pytest.mark.parametrize("batch", [1, 12])
def test_batches_do_not_matter(batch):
    for make in (OutputSensitivity, ClassSensitivity):
        assert_equal(fed(make(), batch=batch).compute(), fed(make()).compute())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.rand(5), r"expected class indices of shape \(5,\), but got shape \(5,\), torch.float32; leave"),
        (torch.zeros(5, 3, dtype=torch.long), r"expected class indices of shape \(5,\), but got shape \(5, 3\)"),
        (torch.full((5,), 3), "expected classes from 0 to 2, as many as outputs, but got 3 to 3"),
        (torch.full((5,), -1), "expected classes from 0 to 2, as many as outputs, but got -1 to -1"),
        ([0] * 5, r"expected class indices of shape \(5,\), but got list"),
    ],
)
def test_labels_that_are_no_classes(labels, message):
    with pytest.raises(ValueError, match=message):
        ClassSensitivity().update(NET, INPUTS[:5], labels)


@pytest.mark.parametrize("make", [OutputSensitivity, ClassSensitivity])
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="num_probes: expected"):
        make(num_probes=0)
