"""The calibrated estimator in the monitor."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from lightning_tansens.estimators import Calibrated, Reason
from lightning_tansens.estimators.calibrated import Contrast, Masked, Noise, Perturbed
from lightning_tansens.estimators.calibrated.ridge import Ridge
from lightning_tansens.functional import active_nodes, tangent_sensitivity
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity
from lightning_tansens.monitor.data.subsets import Subset
from tests.boring import BoringData, Points, Recorder, fit, loader, make_monitor, mlp, state_of, untimed

SCALES = (0.2, 0.5, 1.0, 2.0)
FEATURES = ("entropy", "confidence", "sensitivity", "active_nodes")
COPIES = list(map(Noise, SCALES))
LARGE = {"num_samples": 9, "num_loss_samples": 9}


def shrink(sample):
    return sample / 2


def features_of(network, inputs):
    with torch.no_grad():
        probabilities = network(inputs).double().softmax(1)
    return torch.stack(
        [
            -(probabilities * probabilities.log()).sum(1).mean(),
            1 - probabilities.amax(1).mean(),
            tangent_sensitivity(network, inputs).double().mean(),
            active_nodes(network, inputs).sum(1).double().mean(),
        ]
    ).log()


def test_the_estimate_is_that_of_a_fit_on_perturbed_references():
    monitor = make_monitor(estimators=[Calibrated([*COPIES, Masked(0.3), Contrast(0.5), shrink], FEATURES)], **LARGE)
    run = fit(monitor, max_epochs=1)
    network, sets = run.lightning_module.network, {}
    for name, data in {"train": Points(), "test": Points(10, seed=2)}.items():
        subset = Subset(data, 9, 3, monitor.options.seed)
        sets[name] = [torch.stack(part) for part in zip(*(data[index] for index in subset.indices))]
    inputs, labels = sets["train"]
    origin, points, changes = features_of(network, inputs), [], {"loss": [], "accuracy": []}
    for transform in [*COPIES, Masked(0.3), Contrast(0.5), shrink]:
        moved = Perturbed(transform, monitor.options.seed)(inputs, range(9))
        points.append((features_of(network, moved) - origin).tolist())
        for quantity, wrong in (("loss", F.cross_entropy), ("accuracy", lambda o, t: (o.argmax(1) != t).double().mean())):
            with torch.no_grad():
                changes[quantity].append(float((wrong(network(moved), labels) / wrong(network(inputs), labels)).log()))
    (row,) = monitor.history
    target = features_of(network, sets["test"][0]) - origin
    for quantity, values in changes.items():
        ratio = math.exp(Ridge(points, values).predict(target.tolist()).value)
        own = row[f"tansens/train_{quantity}"]
        expected = own * ratio if quantity == "loss" else max(1 - (1 - own) * ratio, 0)
        assert row[f"tansens/test_{quantity}/calibrated"] == pytest.approx(expected, rel=1e-4)
    assert 0 < row["tansens/copies_seconds"] < row["tansens/seconds"]


@pytest.mark.parametrize("labels", ["permuted", "removed"])
def test_labels_of_the_target_reach_no_calibrated_estimate(labels):
    data = Points(10, seed=2)
    changed = TensorDataset(data.inputs, data.labels.flip(0)) if labels == "permuted" else TensorDataset(data.inputs)
    rows = []
    for target in (data, changed):
        monitor = make_monitor(
            test_dataloaders=target, estimators=[Calibrated(COPIES)], compare_with_labels=target is data, **LARGE
        )
        fit(monitor, data=loader())
        rows.append([{key: value for key, value in row.items() if "actual" not in key} for row in untimed(monitor.history)])
    assert "tansens/test_loss/calibrated" in rows[0][0]
    assert rows[0] == rows[1]


def test_a_target_beyond_the_copies_is_noticed():
    far = Points(10, seed=2)
    far.inputs = 100 * far.inputs
    monitor = make_monitor(test_dataloaders=far, estimators=[Calibrated(COPIES)], verbose=True, **LARGE)
    fit(monitor)
    assert Reason.OUT_OF_RANGE.value in monitor.records[-1].targets["test"].estimates["loss"]["calibrated"].doubts


def test_training_is_bitwise_the_same():
    ends = []
    for monitors in ([], [make_monitor(estimators=[Calibrated(COPIES)], **LARGE)]):
        recorder = Recorder()
        trainer = fit(*monitors, recorder, data=BoringData(noise=True))
        ends.append((state_of(trainer), recorder.losses))
    assert str(ends[0]) == str(ends[1])


def test_inputs_that_cannot_be_perturbed_are_refused_before_the_first_step():
    class Embedded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = torch.nn.Embedding(5, 4), mlp()

        def forward(self, x):
            return self.head(self.embedding(x.long()).mean(1))

    from tests.boring import BoringModule

    tokens = TensorDataset(torch.zeros(8, 3).long(), torch.zeros(8).long())
    measures = [EmpiricalSensitivity(wrt="network.embedding")]
    monitor = make_monitor(test_dataloaders=tokens, measures=measures, estimators=[Calibrated(COPIES)])
    with pytest.raises(TypeError, match="copies: expected inputs that are one floating-point tensor"):
        fit(monitor, module=lambda: BoringModule(Embedded()), data=loader(tokens))


def test_a_feature_without_its_measure_is_refused_at_construction():
    both = Calibrated(COPIES, ["sensitivity", "active_nodes"])
    make_monitor(measures=[EmpiricalSensitivity(), ActiveNodeSensitivity()], estimators=[both])
    make_monitor(measures=[], estimators=[Calibrated(COPIES)])
    with pytest.raises(ValueError, match=r"expected measures with the keys \['empirical'\], which 'calibrated' looks at"):
        make_monitor(measures=[ActiveNodeSensitivity()], estimators=[both])
