"""What is refused, before the first training step, and what is warned of."""

import re
import warnings
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity
from lightning_tansens.monitor import Options
from lightning_tansens.monitor.processes import together
from lightning_tansens.monitor.sharding import sharding_of
from tests.boring import (
    BoringData,
    BoringModule,
    Points,
    Recorder,
    fit,
    loader,
    make_monitor,
    make_trainer,
    mlp,
    split_dict,
    unwrapped,
)

ARGUMENTS = [
    *(
        ({name: value}, ValueError, f"{name}: expected a positive integer, but got {value!r}")
        for name in ("num_samples", "every_n_epochs")
        for value in (0, -1, 1.5, True, "3")
    ),
    (
        {"reference": "test"},
        ValueError,
        "reference: expected one of ['train', 'val'] or a DataLoader or a Dataset, but got 'test'",
    ),
    ({"reference": None}, ValueError, "but got None"),
    ({"test_dataloaders": {"train": Points()}}, ValueError, "but got 'train'; rename that set"),
    ({"test_dataloaders": {"val": Points()}}, ValueError, "but got 'val'; rename that set"),
    ({"test_dataloaders": {"reference": Points()}}, ValueError, "but got 'reference'; rename that set"),
    ({"test_dataloaders": {"a/b": Points()}}, ValueError, "but got 'a/b'; rename that set"),
    ({"test_dataloaders": {"": Points()}}, ValueError, "but got ''; rename that set"),
    ({"test_dataloaders": {1: Points()}}, ValueError, "but got 1; rename that set"),
    ({"test_dataloaders": {}}, ValueError, "test_dataloaders: expected at least one set, but got an empty dict"),
    (
        {"test_dataloaders": {"far": 3}},
        TypeError,
        "test_dataloaders['far']: expected a DataLoader or a Dataset, but got int",
    ),
    ({"test_dataloaders": [Points()]}, TypeError, "test_dataloaders: expected a DataLoader, a Dataset, a dict of them by"),
    ({"measures": ["empirical"]}, TypeError, "but got 'empirical'; pass an object from lightning_tansens.metrics"),
    (
        {"measures": [EmpiricalSensitivity]},
        TypeError,
        "measures: expected Measure objects, but got the class EmpiricalSensitivity; pass EmpiricalSensitivity()",
    ),
    (
        {"criterion": nn.CrossEntropyLoss},
        TypeError,
        "criterion: expected a callable or None, but got the class CrossEntropyLoss; pass CrossEntropyLoss()",
    ),
    (
        {"measures": [EmpiricalSensitivity(), EmpiricalSensitivity(outputs="each")]},
        ValueError,
        "measures, estimators: expected each key once, but got ['empirical'] more than once; leave one of them out",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), ARGUMENTS, ids=[str(a[0])[:50] for a in ARGUMENTS])
def test_arguments_are_checked_when_the_monitor_is_made(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        TangentSensitivityMonitor(**arguments)


OPTIONS = [
    *(
        ({name: value}, ValueError, f"{name}: expected a positive integer, but got {value!r}")
        for name in ("num_loss_samples", "num_label_samples", "batch_size")
        for value in (0, -1, 1.5, True, "3")
    ),
    *(
        ({"gathered_bytes": value}, ValueError, f"gathered_bytes: expected an integer of at least 0, but got {value!r}")
        for value in (-1, 0.5, "1e9")
    ),
    ({"accuracy_form": "rate"}, ValueError, "accuracy_form: expected one of ['error', 'ratio'], but got 'rate'"),
    ({"measure_at": "epoch_end"}, ValueError, "measure_at: expected one of ['auto', 'train_epoch_end', "),
    ({"on_failure": "stop"}, ValueError, "on_failure: expected one of ['raise', 'warn', 'ignore'], but got 'stop'"),
    ({"seed": 1.5}, ValueError, "seed: expected"),
    ({"prefix": ""}, ValueError, "prefix: expected"),
    ({"limits": 3}, TypeError, "limits: expected Limits, but got 3"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), OPTIONS, ids=[str(a[0])[:50] for a in OPTIONS])
def test_options_are_checked_when_they_are_made(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Options(**arguments)


@pytest.mark.parametrize("name", ["options", "display"])
def test_options_of_another_kind_are_refused(name):
    with pytest.raises(TypeError, match=f"{name}: expected {name.title()} or None, but got"):
        TangentSensitivityMonitor(**{name: {"prefix": "mine"}})


class WithValidations(BoringData):
    def val_dataloader(self):
        return [loader(), loader()]


class WithTrainings(BoringData):
    def train_dataloader(self):
        return {"a": loader(), "b": loader()}


class WithoutTests(BoringData):
    test_dataloader = pl.LightningDataModule.test_dataloader


class WithEmptyTests(BoringData):
    def test_dataloader(self):
        return []


class WithOtherTests(BoringData):
    def test_dataloader(self):
        return range(3)


class Integers(TensorDataset):
    def __init__(self):
        super().__init__(torch.arange(40).reshape(10, 4))


class FromIntegers(nn.Sequential):
    def forward(self, inputs):
        return super().forward(inputs.float())


EXACT = [EmpiricalSensitivity(method="exact")]
FITS = {
    "no validation to measure after": (
        {"measure_at": "validation_epoch_end"},
        {},
        MisconfigurationException,
        "measure_at='validation_epoch_end': expected a validation loop, but the Trainer has none",
    ),
    "no validation set to refer to": (
        {"reference": "val"},
        {},
        MisconfigurationException,
        "reference='val': expected the Trainer to have one val DataLoader, but got none",
    ),
    "two validation sets to refer to": (
        {"reference": "val"},
        {"data": WithValidations()},
        MisconfigurationException,
        "reference='val': expected the Trainer to have one val DataLoader, but got list of 2",
    ),
    "two training sets": (
        {},
        {"data": WithTrainings(), "module": lambda: Summed()},
        MisconfigurationException,
        "reference='train': expected the Trainer to have one train DataLoader, but got dict of 2",
    ),
    "no test set": ({}, {"data": loader()}, MisconfigurationException, "expected a test set (labels are not needed), but"),
    "no test set in the datamodule": ({}, {"data": WithoutTests()}, MisconfigurationException, "expected a test set"),
    "no test loader in the list": ({}, {"data": WithEmptyTests()}, MisconfigurationException, "expected a test set"),
    "a test loader that is none": ({}, {"data": WithOtherTests()}, MisconfigurationException, "expected a test set"),
    "an empty test set": (
        {"test_dataloaders": Points(0)},
        {},
        MisconfigurationException,
        "the test set cannot be measured: expected a set with at least one sample, but it is empty",
    ),
    "integers": (
        {"test_dataloaders": Integers(), "measures": EXACT},
        {"module": lambda: BoringModule(FromIntegers(*mlp()))},
        TypeError,
        "expected a floating-point tensor",
    ),
    "a reference without labels": (
        {"reference": Points(labels=None)},
        {},
        ValueError,
        "expected the reference set to have labels, because its loss is measured, but its batches hold inputs alone",
    ),
    "a reference without labels, of which copies are needed": (
        {"reference": Points(labels=None), "estimators": None},
        {},
        ValueError,
        "expected the reference set to have labels, because its loss is measured, but its batches hold inputs alone",
    ),
    "a test set of another width": (
        {"test_dataloaders": TensorDataset(torch.zeros(10, 5)), "estimators": None},
        {},
        RuntimeError,
        "the test set cannot be measured: expected inputs that the network takes, but on inputs of shape (5, 5) it raises",
    ),
    "a test set without the labels asked for": (
        {"test_dataloaders": Points(labels=None), "compare_with_labels": True},
        {},
        ValueError,
        "expected the test set to have labels",
    ),
    "triples without unpack": (
        {"test_dataloaders": TensorDataset(*[torch.zeros(10, 4)] * 3)},
        {},
        TypeError,
        "batch: expected a tuple or list (inputs, targets) or (inputs,), but got list of 3; pass unpack=callable",
    ),
    "an unpack that returns nothing": (
        {"unpack": lambda batch: None},
        {},
        TypeError,
        "unpack: expected a callable that returns (inputs, targets), but it returned NoneType; return (inputs, None)",
    ),
    "an unpack for other batches": (
        {"unpack": lambda batch: (batch["image"], batch["label"])},
        {},
        TypeError,
        "unpack: expected a callable that takes a batch, but with list it raised TypeError: list indices must be integers",
    ),
    "an output that is not there": (
        {"output": lambda value: value.logits},
        {},
        TypeError,
        "output: expected a callable that picks the outputs from what the network returns, but with Tensor it raised Attri",
    ),
    "an unknown submodule": (
        {"network": "backbone"},
        {},
        MisconfigurationException,
        "network='backbone': expected the name of a submodule of BoringModule, whose children are ['network']",
    ),
    "a network that mixes samples": (
        {"measures": EXACT},
        {"module": lambda: BoringModule(mlp(extra=[nn.BatchNorm1d(6, track_running_stats=False)]))},
        UnsupportedNetworkError,
        "network.1",
    ),
    "a network without activations": (
        {"measures": [ActiveNodeSensitivity()]},
        {"module": lambda: BoringModule(nn.Linear(4, 3))},
        UnsupportedNetworkError,
        "expected a network with activation functions, but BoringModule calls none that is known",
    ),
}  # fmt: skip


class Summed(BoringModule):
    def training_step(self, batch, index):
        return sum(BoringModule.training_step(self, part, index) for part in batch.values())


class Before(Recorder):
    """Records what the training begins with; stands before the monitor."""

    def on_train_start(self, trainer, pl_module):
        self.on_train_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer, pl_module):
        """The sanity check is not of interest."""


@pytest.mark.parametrize(("arguments", "options", "error", "message"), FITS.values(), ids=FITS)
def test_what_cannot_be_measured_is_refused_before_the_first_step(arguments, options, error, message):
    from tests.boring import state_of
    from tests.test_monitor_training import assert_same

    before = Before()
    seen = []

    class After(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            seen.append(state_of(trainer))

    with pytest.raises(error, match=re.escape(message)):
        fit(before, make_monitor(**arguments), After(), **options)
    assert not before.losses
    states = [{key: value for key, value in state.items() if key != "random"} for state in (before.epochs[0], seen[0])]
    assert states[0]["modes"]["network"] is True
    assert_same(*states)


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_a_part_of_a_wrapped_network_is_refused(strategy, monkeypatch):
    trainer = make_trainer()
    monkeypatch.setattr(type(trainer), "strategy", strategy.__new__(strategy))
    message = f"network='network': expected None with {strategy.__name__}, which only calls the whole LightningModule"
    with pytest.raises(MisconfigurationException, match=message):
        sharding_of(trainer, "network", budget=0)


def said(monitor, *callbacks, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(*callbacks, monitor, **options)
    messages = [str(warning.message) for warning in caught]
    return [message for message in messages if message.startswith(("TangentSensitivityMonitor", "lightning-tansens"))]


def test_fewer_samples_than_asked_for_are_all_used(caplog):
    monitor = make_monitor(num_samples=11)
    with caplog.at_level("INFO"):
        fit(monitor)
    notes = [unwrapped(message) for message in caplog.messages if "all are used" in unwrapped(message)]
    assert notes == ["TangentSensitivityMonitor: of sets with fewer samples than num_samples=11 all are used: test 10"]
    assert len(monitor.history) == 2
    whole = make_monitor(num_samples=10)
    fit(whole)
    for row, other in zip(monitor.history, whole.history):
        assert row["tansens/empirical/test"] == pytest.approx(other["tansens/empirical/test"], rel=1e-6)


def test_exactly_as_many_samples_as_asked_for_need_no_note(caplog):
    with caplog.at_level("INFO"):
        fit(make_monitor(num_samples=10))
    assert not any("all are used" in unwrapped(message) for message in caplog.messages)


class Broken(pl.Callback):
    """Makes a weight infinite at the end of two epochs."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.current_epoch in (1, 2) and trainer.is_last_batch:
            with torch.no_grad():
                pl_module.network[0].weight[0, 0] = torch.inf

    def on_train_epoch_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.network[0].weight.nan_to_num_(posinf=0.1)


def test_non_finite_weights_are_not_measured_and_training_goes_on():
    monitor = make_monitor()
    messages = said(monitor, Broken(), module=lambda: BoringModule(lr=0.0), max_epochs=5)
    (message,) = messages
    assert (
        "the measurement after epoch 1 failed, its values are left out and the run goes on: NonFiniteWeightsError" in message
    )
    assert "expected finite weights, but 'network.0.weight' has infinite ones or ones that are not a number" in message
    assert [row["epoch"] for row in monitor.history] == [0, 3, 4]


def test_a_value_that_is_not_finite_is_left_out_and_said_once():
    # finite weights, and a loss that is not a number
    monitor = make_monitor(measures=[EmpiricalSensitivity()], criterion=lambda outputs, targets: outputs.sum() * torch.nan)
    messages = said(monitor)
    assert "TangentSensitivityMonitor: train_loss is left out of the log: its value is nan (said once)" in messages
    assert len(messages) == len(set(messages))
    for row in monitor.history:
        assert "tansens/train_loss" not in row
        assert "tansens/test_loss/empirical" not in row
        assert "tansens/empirical/test" in row


def test_dicts_with_unpack():
    rows = []
    for as_dict in (False, True):
        monitor = make_monitor(
            test_dataloaders=Points(10, seed=2, as_dict=as_dict),
            unpack=split_dict if as_dict else None,
            compare_with_labels=True,
        )
        fit(monitor, data=DataLoader(Points(as_dict=as_dict), batch_size=4))
        rows.append([{k: v for k, v in row.items() if k != "tansens/seconds"} for row in monitor.history])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("failure", "error"), [(lambda: None, RuntimeError), ({}.popitem, KeyError)])
def test_a_failure_of_one_process_is_one_of_all(failure, error):
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=lambda decision: False))
    message = "failed on another one" if error is RuntimeError else "dictionary is empty"
    with pytest.raises(error, match=message), together(trainer):
        failure()
