"""Early stopping and checkpoints see each measurement once, with the weights it was taken on."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_tansens import FreshEarlyStopping, FreshModelCheckpoint
from lightning_tansens.metrics import EmpiricalSensitivity
from tests.boring import BoringData, BoringModule, fit, make_monitor
from tests.tiers import cases

KEY = "tansens/empirical/test"


class Grows(BoringModule):
    """Its sensitivity grows with every step, so that a measurement is never better than the one before."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)

    def on_train_batch_end(self, *_):
        with torch.no_grad():
            self.network[0].weight *= 1.05


class OnlyOnce(pl.Callback):
    """Lets a monitor measure after the first epoch alone."""

    def __init__(self, monitor):
        self.monitor = monitor

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch:
            self.monitor.every_n_epochs = 100


def stopped_after(stop, monitor, **options):
    trainer = fit(monitor, stop, module=Grows, data=BoringData(validation=True), max_epochs=30, **options)
    return trainer.current_epoch


SCHEDULES = {
    "every epoch": ({}, {}),
    "every second validation": ({}, {"check_val_every_n_epoch": 2}),
    "two validations an epoch": ({}, {"val_check_interval": 0.5}),
    "every third epoch": ({"every_n_epochs": 3}, {}),
    "every third epoch, every second validation": ({"every_n_epochs": 3}, {"check_val_every_n_epoch": 2}),
    "at the epoch's end": ({"measure_at": "train_epoch_end", "every_n_epochs": 2}, {}),
    "no validation loop": ({"every_n_epochs": 2}, {"limit_val_batches": 0}),
}


CHECKED = {
    f"{name}, {at_epoch_end}": (arguments, options, at_epoch_end)
    for name, (arguments, options) in SCHEDULES.items()
    for at_epoch_end in (None, True)
}
BY_DEFAULT = (
    *("every epoch, None", "every second validation, None", "two validations an epoch, None"),
    *("two validations an epoch, True", "every third epoch, True", "every third epoch, every second validation, None"),
    *("at the epoch's end, True", "no validation loop, None"),
)


@pytest.mark.parametrize(("arguments", "options", "at_epoch_end"), cases(CHECKED, *BY_DEFAULT))
def test_patience_counts_measurements(arguments, options, at_epoch_end):
    monitor = make_monitor(measures=[EmpiricalSensitivity()], **arguments)
    stop = FreshEarlyStopping(KEY, patience=2, check_on_train_epoch_end=at_epoch_end)
    stopped_after(stop, monitor, **options)
    values = [row[KEY] for row in monitor.history]
    assert values == sorted(values)
    # the best, and two that are no better; Lightning checks after validations by default where they are not once an epoch
    every_validation = not at_epoch_end
    between = 1
    if options.get("check_val_every_n_epoch") and every_validation:
        between = 2  # of two measurements one falls on a validation
    elif options.get("val_check_interval") and at_epoch_end:
        between = 3  # three validations an epoch, and one check
    assert len(values) == 3 * between
    assert stop.wait_count == 2
    assert stop.stopped_epoch == monitor.history[-1]["epoch"]


def test_lightnings_own_counts_old_values():
    """What the subclass is for."""
    monitor = make_monitor(measures=[EmpiricalSensitivity()], every_n_epochs=3)
    with pytest.raises(RuntimeError, match="Early stopping conditioned on metric"):
        stopped_after(EarlyStopping(KEY, patience=2), monitor)
    monitor = make_monitor(measures=[EmpiricalSensitivity()], every_n_epochs=3)
    assert stopped_after(EarlyStopping(KEY, patience=2, strict=False), monitor) == 5
    assert len(monitor.history) == 1


def test_a_failed_measurement_is_waited_for():
    calls = []

    def criterion(outputs, targets):
        if len(targets) == 3:  # a batch of a measurement: two of them, and one of one sample
            calls.append(len(targets))
            if len(calls) in (3, 4):
                raise ZeroDivisionError
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    monitor = make_monitor(measures=[EmpiricalSensitivity()], criterion=criterion, on_failure="ignore")
    stop = FreshEarlyStopping(KEY, patience=2)
    trainer = fit(monitor, stop, module=Grows, data=BoringData(), max_epochs=30)
    assert [row["epoch"] for row in monitor.history] != list(range(len(monitor.history)))
    assert stop.wait_count == 2
    assert len(monitor.history) == 3
    assert trainer.current_epoch > 3


@pytest.mark.parametrize(("arguments", "options", "at_epoch_end"), cases(CHECKED, *BY_DEFAULT))
def test_checkpoints_are_of_measured_weights(arguments, options, at_epoch_end, tmp_path):
    monitor = make_monitor(measures=[EmpiricalSensitivity()], **arguments)
    save = FreshModelCheckpoint(
        tmp_path, "{step}", monitor=KEY, mode="max", save_top_k=-1, save_on_train_epoch_end=at_epoch_end
    )
    data = BoringData(validation=True)
    fit(monitor, save, module=Grows, data=data, max_epochs=6, enable_checkpointing=True, **options)
    measured = {row["step"] + 1: row[KEY] for row in monitor.history}
    assert save.best_k_models
    for path, value in save.best_k_models.items():
        step = torch.load(path, weights_only=True)["global_step"]
        assert float(value) == pytest.approx(measured[step])
    assert save.best_model_score == pytest.approx(max(row[KEY] for row in monitor.history))


def test_lightnings_own_ranks_new_weights_by_old_values(tmp_path):
    """What the subclass is for."""
    monitor = make_monitor(measures=[EmpiricalSensitivity()], every_n_epochs=2)
    save = ModelCheckpoint(tmp_path, "{step}", monitor=KEY, mode="max", save_top_k=-1)
    options = {"module": Grows, "data": BoringData(validation=True), "enable_checkpointing": True}
    with pytest.raises(MisconfigurationException, match="could not find the monitored key"):
        fit(monitor, save, **options)
    # from a measurement after the first epoch on
    monitor = make_monitor(measures=[EmpiricalSensitivity()])
    save = ModelCheckpoint(tmp_path, "{step}", monitor=KEY, mode="max", save_top_k=-1)
    fit(monitor, save, OnlyOnce(monitor), max_epochs=3, **options)
    steps = {torch.load(path, weights_only=True)["global_step"] for path in save.best_k_models}
    assert len(monitor.history) == 1
    assert len(steps) == 3


def test_without_a_key_it_is_lightnings_own(tmp_path):
    save = FreshModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(make_monitor(every_n_epochs=2), save, max_epochs=3, enable_checkpointing=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"]


@pytest.mark.parametrize("make", [FreshEarlyStopping, lambda key: FreshModelCheckpoint(monitor=key)])
def test_other_keys_are_refused(make, tmp_path):
    message = "expected a key of a TangentSensitivityMonitor among the Trainer's callbacks, but got 'val_loss'"
    with pytest.raises(MisconfigurationException, match=message):
        fit(make_monitor(), make("val_loss"), enable_checkpointing=True, default_root_dir=tmp_path)


@pytest.mark.parametrize("make", [FreshEarlyStopping, lambda key: FreshModelCheckpoint(monitor=key)])
def test_a_misspelt_key_is_told_with_those_that_there_are(make, tmp_path):
    message = (
        "has done nothing, because no measurement had a value of 'tansens/test_los/empirical'.*tansens/test_loss/empirical"
    )
    with pytest.warns(UserWarning, match=message):
        fit(make_monitor(), make("tansens/test_los/empirical"), enable_checkpointing=True, default_root_dir=tmp_path)


def test_two_monitors():
    often, seldom = make_monitor(prefix="often"), make_monitor(prefix="seldom", every_n_epochs=4)
    stop = FreshEarlyStopping("seldom/empirical/test", patience=1)
    trainer = fit(often, seldom, stop, module=Grows, data=BoringData(), max_epochs=30)
    assert trainer.current_epoch == 8
    assert len(seldom.history) == 2
