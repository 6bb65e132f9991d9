"""The estimators of outputs in the monitor: their values, the labels they get, what is logged."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_tansens.estimators import (
    AverageConfidence,
    DispersionScore,
    EntropyRatio,
    Headline,
    Outputs,
    SetSummary,
    TemporalEnsemble,
    default_estimators,
    estimate_set,
    score_set,
)
from lightning_tansens.estimators.calibrated import Perturbed
from lightning_tansens.estimators.headline import Strong
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.show import Display
from lightning_tansens.show.keys import Keys, flat_row
from tests.boring import BoringModule, Points, fit, loader, make_monitor, mlp

KEYS = Keys()


def outputs_of(network, data, monitor):
    options = monitor.options
    subset = Subset(data, options.num_loss_samples, options.batch_size, options.seed)
    inputs, labels = map(torch.stack, zip(*(data[index] for index in subset.indices)))
    with torch.no_grad():
        return network(inputs), labels, F.relu(network[0](inputs))


def copies_of(network, data, monitor, labels):
    subset = Subset(data, monitor.options.num_loss_samples, monitor.options.batch_size, monitor.options.seed)
    inputs = torch.stack([data[index][0] for index in subset.indices])
    with torch.no_grad():
        moved = [network(Perturbed(one)(inputs, range(len(inputs)))).numpy() for one in Headline().copies_for(inputs)]
    strong = [isinstance(one, Strong) for one in Headline().copies_for(inputs)]
    pairs = zip(moved, strong, strict=True)
    return tuple(SetSummary("copy", outputs=Outputs.of(outputs, labels), strong=is_strong) for outputs, is_strong in pairs)


def test_estimates_are_those_of_the_estimators_on_the_samples_of_the_loss():
    monitor = make_monitor(estimators=default_estimators(), num_loss_samples=9)
    run = fit(monitor, max_epochs=1)
    (row,) = monitor.history
    summaries = {}
    for name, data in {"train": Points(), "test": Points(10, seed=2)}.items():
        outputs, labels, features = outputs_of(run.lightning_module.network, data, monitor)
        known = labels.numpy() if name == "train" else None
        found = Outputs.of(outputs.numpy(), known, features.numpy())
        right = (outputs.argmax(1) == labels).double()
        loss = float(F.cross_entropy(outputs, labels))
        summaries[name] = SetSummary(name, 9, found, loss, accuracy=float(right.mean()))
        if name == "train":
            copies = copies_of(run.lightning_module.network, data, monitor, known)
            summaries[name] = replace(summaries[name], copies=copies)
    estimates, _ = estimate_set(default_estimators(), summaries["test"], summaries["train"])
    assert len(estimates["loss"]) > 2
    for quantity, found in estimates.items():
        for name, estimate in found.items():
            key = KEYS.estimate("test", quantity, name)
            assert row[key] == pytest.approx(estimate.value, rel=1e-5, abs=1e-6)
    for name, one in summaries.items():
        scores, _ = score_set(default_estimators(), one)
        for score, value in scores.items():
            assert row[KEYS.value(score, name)] == pytest.approx(value, rel=1e-5)
    assert KEYS.value("dispersion", "test") in row


def test_features_reach_the_estimators_that_need_them_alone():
    monitor = make_monitor(estimators=[AverageConfidence()])
    fit(monitor, max_epochs=1)
    assert "features" not in monitor._run.sets[0].of_outputs.outputs._names
    monitor = make_monitor(estimators=[DispersionScore()])
    fit(monitor, max_epochs=1)
    assert "tansens/dispersion/test" in monitor.history[0]


def test_an_estimator_without_estimate_is_told_once(recwarn):
    monitor = make_monitor(estimators=[EntropyRatio()])
    certain = mlp()
    with torch.no_grad():
        certain[2].weight.zero_()
        certain[2].bias.copy_(torch.tensor([1e6, 0.0, 0.0]))
    fit(monitor, module=lambda: BoringModule(certain, lr=0.0), max_epochs=2)
    assert "tansens/test_loss/entropy_ratio" not in monitor.history[-1]
    said = [str(warning.message) for warning in recwarn if "entropy_ratio is left out of the log" in str(warning.message)]
    assert len(said) == 1


def test_a_regression_has_no_estimates_of_classifiers():
    monitor = make_monitor(test_dataloaders=Points(10), estimators=[AverageConfidence()], criterion=F.mse_loss)
    fit(monitor, module=lambda: BoringModule(mlp(1), loss="mse_loss"), data=loader(Points(labels="value")))
    assert "tansens/test_loss/trivial" in monitor.history[-1]
    assert "average_confidence" not in monitor.records[-1].targets["test"].estimates.get("accuracy", {})


@pytest.mark.parametrize(
    ("estimators", "error", "message"),
    [
        ("confidence", TypeError, "estimators: expected a list of Estimator objects or None, but got 'confidence'"),
        ([EmpiricalSensitivity()], TypeError, "estimators: expected Estimator objects, but got EmpiricalSensitivity"),
        ([AverageConfidence(), AverageConfidence()], ValueError, "expected each key once, but got .'average_confidence'."),
    ],
)
def test_what_is_no_estimator_is_refused(estimators, error, message):
    with pytest.raises(error, match=message):
        make_monitor(estimators=estimators)


def test_default_estimators_are_in_the_history_and_logged_on_request():
    for options, logged in (
        ({"display": Display()}, False),
        ({"display": Display(log="all")}, True),
        ({"display": Display(), "estimators": [EntropyRatio()]}, True),
    ):
        monitor = make_monitor(**{"estimators": None, **options})
        fit(monitor, max_epochs=1)
        assert "tansens/test_loss/entropy_ratio" in monitor.history[0]
        sent = flat_row(monitor.brief(monitor.records[0]))
        assert ("tansens/test_loss/entropy_ratio" in sent) == logged
        assert ("tansens/test_accuracy/estimate_low" in sent) == ("estimators" not in options)  # the headline always is
        assert "tansens/test_loss/empirical" in sent


DETAILS = {
    f"tansens/{name}/{set_name}"
    for name in (*(f"empirical_{end}" for end in ("norm", "max", "q50", "q95")), "active_nodes_mean", "active_nodes_std")
    for set_name in ("train", "test")
}


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ({}, False),
        ({"display": Display(log="all")}, True),
        ({"measures": [EmpiricalSensitivity(), ActiveNodeSensitivity()]}, True),
    ],
    ids=["default", "all", "measures that were passed"],
)
def test_by_default_the_history_alone_has_values_that_look_like_others(options, logged, tmp_path):
    """One reference and one target send at most 24 scalars, the truth among them."""
    monitor = make_monitor(**{"estimators": None, "compare_with_labels": True, "display": Display(), **options})
    logger = TensorBoardLogger(tmp_path, "", "")
    trainer = fit(monitor, logger=logger, max_epochs=2)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    sent = {name for name in (*events.Tags()["scalars"], *trainer.callback_metrics) if name.startswith("tansens/")}
    assert set(monitor.history[0]) >= DETAILS
    assert DETAILS & sent == (DETAILS if logged else set())
    assert {"tansens/empirical/train", "tansens/active_nodes/test"} <= sent
    if not options:
        assert len(sent) <= 24


def test_the_second_measurement_has_estimates_from_the_trajectory():
    monitor = make_monitor(estimators=[TemporalEnsemble()])
    fit(monitor, max_epochs=2)
    first, second = monitor.history
    assert "tansens/test_loss/temporal_ensemble" not in first
    assert "tansens/test_loss/temporal_ensemble" in second


def test_default_estimators_of_classes_are_silent_in_a_regression(recwarn):
    monitor = make_monitor(test_dataloaders=Points(10), estimators=None, criterion=F.mse_loss)
    fit(monitor, module=lambda: BoringModule(mlp(1), loss="mse_loss"), data=loader(Points(labels="value")))
    assert [str(warning.message) for warning in recwarn if "class scores" in str(warning.message)] == []
    assert "average_confidence" not in monitor.records[-1].targets["test"].missing
