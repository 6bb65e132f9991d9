"""The logged values: against the functional API on the same samples and weights, and without any use of test labels."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import ConcatDataset, TensorDataset

from lightning_tansens.bounds.active_nodes import log_psi
from lightning_tansens.estimators import default_estimators
from lightning_tansens.functional import active_nodes, tangent_sensitivity
from lightning_tansens.metrics import ClassSensitivity, default_measures
from lightning_tansens.monitor.data.subsets import Subset
from tests.boring import BoringData, BoringModule, Points, Recorder, fit, loader, make_monitor, mlp, untimed


def regularised():
    return BoringModule(mlp(extra=[nn.BatchNorm1d(6), nn.Dropout(0.5)]))


def samples_of(dataset, monitor):
    indices = Subset(dataset, monitor.num_samples, monitor.options.batch_size, monitor.options.seed).indices
    assert len(set(indices)) == monitor.num_samples < len(dataset)
    inputs, labels = zip(*(dataset[i] for i in indices))
    return torch.stack(inputs), torch.stack(labels)


def test_the_loss_is_taken_on_more_samples():
    few, many = make_monitor(compare_with_labels=True), make_monitor(compare_with_labels=True, num_loss_samples=9)
    for monitor in (few, many):
        fit(monitor, module=regularised, max_epochs=1)
    module = regularised()
    run = fit(make_monitor(), module=regularised, max_epochs=1)
    module.load_state_dict(run.lightning_module.state_dict())
    indices = Subset(Points(), 9, 3, many.options.seed).indices
    inputs, labels = map(torch.stack, zip(*(Points()[i] for i in indices)))
    with torch.no_grad():
        losses = F.cross_entropy(module.eval()(inputs), labels, reduction="none")
    (of_few,), (of_many,) = few.history, many.history
    assert of_many["tansens/train_loss"] == pytest.approx(float(losses.mean()), rel=1e-6)
    assert of_few["tansens/train_loss"] == pytest.approx(float(losses[:7].mean()), rel=1e-6)
    same = [key for key in of_few if "loss" not in key and "accuracy" not in key and key != "tansens/seconds"]
    assert {key: of_few[key] for key in same} == {key: of_many[key] for key in same}
    inputs, labels = Points(10, seed=2).inputs, Points(10, seed=2).labels  # the truth is of the whole set
    with torch.no_grad():
        truth = float(F.cross_entropy(module(inputs), labels))
    assert of_few["tansens/test_loss/actual"] == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("form", ["error", "ratio"])
@pytest.mark.parametrize("network", [None, "network"])
def test_logged_values_are_those_of_the_functional_api_at_the_epochs_weights(form, network):
    monitor = make_monitor(compare_with_labels=True, accuracy_form=form, network=network)
    recorder = Recorder()
    first = regularised()
    before = log_norm(first.network)
    fit(monitor, recorder, module=first, max_epochs=3)
    module = regularised()
    for row, weights, logged in zip(monitor.history, recorder.weights, recorder.metrics, strict=True):
        module.load_state_dict(weights)
        sets = {name: samples_of(data, monitor) for name, data in {"train": Points(), "test": Points(10, seed=2)}.items()}
        expected, ratios = {}, {}
        for name, (inputs, labels) in sets.items():
            squares = tangent_sensitivity(module, inputs).double()
            totals = active_nodes(module, inputs).sum(1).double()
            mean, std = float(totals.mean()), float(totals.std(correction=0))
            expected |= {
                f"empirical/{name}": float(squares.mean()),
                f"empirical_norm/{name}": float(squares.sqrt().mean()),
                f"empirical_max/{name}": float(squares.max()),
                f"empirical_q50/{name}": float(squares.quantile(0.5)),
                f"active_nodes/{name}": log_psi(2, mean, std),
                f"active_nodes_mean/{name}": mean,
                f"active_nodes_std/{name}": std,
            }
            if name == "test":  # the truth is of the whole set
                inputs, labels = Points(10, seed=2).inputs, Points(10, seed=2).labels
            with torch.no_grad():
                outputs = module.eval()(inputs)
            loss, accuracy = float(F.cross_entropy(outputs, labels)), float((outputs.argmax(1) == labels).double().mean())
            suffix = "" if name == "train" else "/actual"
            expected |= {f"{name}_loss{suffix}": loss, f"{name}_accuracy{suffix}": accuracy}
        now = expected["layer_norm"] = log_norm(module.network)
        ratios["trivial"] = 1.0
        ratios["empirical"] = expected["empirical/test"] / expected["empirical/train"]
        ratios["active_nodes"] = math.exp(expected["active_nodes/test"] - expected["active_nodes/train"])
        ratios["layer_norm"] = before / now
        before = now
        for measure, ratio in ratios.items():
            accuracy = expected["train_accuracy"]
            accuracy = ratio * accuracy if form == "ratio" else 1 - ratio * (1 - accuracy)
            expected[f"test_loss/{measure}"] = ratio * expected["train_loss"]
            expected[f"test_accuracy/{measure}"] = min(max(accuracy, 0.0), 1.0)
        for key, value in expected.items():
            assert row[f"tansens/{key}"] == pytest.approx(value, rel=1e-5, abs=1e-6), key
        for key, value in row.items():
            if key.startswith("tansens/"):
                assert logged[key] == np.float32(value), key


def log_norm(network):
    return sum(math.log(float(layer.weight.detach().abs().max())) for layer in network if isinstance(layer, nn.Linear))


def test_values_do_not_depend_on_the_batch_size():
    rows = []
    for batch_size in (1, 2, 100):
        monitor = make_monitor(batch_size=batch_size, compare_with_labels=True)
        fit(monitor, max_epochs=1)
        rows.append(untimed(monitor.history)[0])
    for row in rows[1:]:
        assert row == pytest.approx(rows[0], rel=1e-5)


def test_the_seed_chooses_the_samples():
    rows = []
    for seed in (0, 0, 1):
        monitor = make_monitor(seed=seed)
        fit(monitor, max_epochs=1)
        rows.append(untimed(monitor.history))
    assert rows[0] == rows[1]
    assert rows[0][0]["tansens/empirical/test"] != rows[2][0]["tansens/empirical/test"]


def test_a_random_transform_does_not_move_the_values_from_epoch_to_epoch():
    monitor = make_monitor()
    fit(monitor, module=BoringModule(lr=0.0), data=BoringData(noise=True), max_epochs=3)
    first, *others = [{k: v for k, v in row.items() if k not in ("epoch", "step")} for row in untimed(monitor.history)]
    assert others == [first, first]


def test_a_measurement_starts_from_nothing():
    # the same weights, with and without earlier measurements
    rows = []
    for every in (1, 3):
        monitor = make_monitor(every_n_epochs=every)
        fit(monitor, max_epochs=3)
        rows.append(untimed(monitor.history)[-1])
    assert {k: v for k, v in rows[0].items() if "layer_norm" not in k} == {
        k: v for k, v in rows[1].items() if "layer_norm" not in k
    }
    assert rows[0]["tansens/layer_norm"] == rows[1]["tansens/layer_norm"]


INPUTS, LABELS = Points(10, seed=2).inputs, Points(10, seed=2).labels
UNLABELLED = {
    "permuted": TensorDataset(INPUTS, LABELS.flip(0)),
    "removed": TensorDataset(INPUTS),
    "bare inputs": ConcatDataset([list(INPUTS)]),
    "not a number": TensorDataset(INPUTS, torch.full((10,), torch.nan)),
    "words": ConcatDataset([[(inputs, "unknown") for inputs in INPUTS]]),
}


def without_actual(history):
    return [{k: v for k, v in row.items() if "/actual" not in k} for row in untimed(history)]


@pytest.fixture(scope="module")
def with_true_labels():
    monitor = make_monitor(
        test_dataloaders=TensorDataset(INPUTS, LABELS), compare_with_labels=True, estimators=default_estimators()
    )
    fit(monitor, data=loader())
    return monitor.history


@pytest.mark.parametrize("data", UNLABELLED.values(), ids=UNLABELLED)
def test_test_labels_reach_no_estimate(data, with_true_labels):
    monitor = make_monitor(test_dataloaders=data, estimators=default_estimators())
    fit(monitor, data=loader())
    assert untimed(monitor.history) == without_actual(with_true_labels)


def test_permuted_test_labels_change_the_actual_values_alone(with_true_labels):
    monitor = make_monitor(
        test_dataloaders=UNLABELLED["permuted"], compare_with_labels=True, estimators=default_estimators()
    )
    fit(monitor, data=loader())
    assert without_actual(monitor.history) == without_actual(with_true_labels)
    for row, true in zip(monitor.history, with_true_labels):
        assert row["tansens/test_loss/actual"] != true["tansens/test_loss/actual"]


class Spy(nn.Sequential):
    """Keeps what it is given."""

    def forward(self, *args, **kwargs):
        assert not kwargs
        assert len(args) == 1
        assert args[0].shape[1:] == (4,)
        return super().forward(*args)


def test_what_describes_by_labels_gives_no_estimate():
    histories = []
    for labels in (LABELS, LABELS.flip(0)):
        measures = [ClassSensitivity(), *default_measures()]
        monitor = make_monitor(
            measures=measures, test_dataloaders=TensorDataset(INPUTS, labels), compare_with_labels=True, by_class=True
        )
        fit(monitor, data=loader())
        histories.append(monitor.history)
    for row, permuted in zip(*histories):
        estimates = [key for key in row if key.startswith(("tansens/test_loss/", "tansens/test_accuracy/"))]
        assert [key for key in estimates if row[key] != permuted[key] and "/actual" not in key] == []
        assert not any("class_sensitivity" in key for key in estimates)
        described = [{k: v for k, v in r.items() if "class_sensitivity/test/" in k} for r in (row, permuted)]
        assert described[0] != described[1]


def test_the_network_is_given_inputs_alone():
    monitor = make_monitor(test_dataloaders=UNLABELLED["words"])
    fit(monitor, module=BoringModule(Spy(*mlp())), data=loader())
    assert len(monitor.history) == 2


def test_a_set_without_labels_among_labelled_ones_has_no_truth(monkeypatch):
    said = []
    monkeypatch.setattr("lightning_tansens.monitor.callback.tell", said.append)
    targets = {"known": TensorDataset(INPUTS, LABELS), "blind": TensorDataset(INPUTS)}
    monitor = make_monitor(
        test_dataloaders=targets, measures=[ClassSensitivity(), *default_measures()], compare_with_labels=True
    )
    fit(monitor, data=loader())
    row = monitor.history[-1]
    assert "tansens/known_loss/actual" in row
    assert "tansens/blind_loss/actual" not in row
    assert row["tansens/blind_loss/empirical"] == pytest.approx(row["tansens/known_loss/empirical"])
    assert any("the blind set has no labels, so its true loss is left out" in note for note in said)
