"""When values are logged: for other callbacks to monitor, and at which step of a logger's axis."""

import csv
from collections import defaultdict
from itertools import cycle
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, IterableDataset

from lightning_tansens.estimators import TemporalEnsemble
from lightning_tansens.metrics import LayerwiseNormSensitivity
from lightning_tansens.metrics.outputs import SetOutputs
from tests.boring import BoringData, BoringModule, Points, Recorder, fit, make_monitor, measured
from tests.test_monitor_training import TwoOptimizers
from tests.tiers import cases

KEY = "tansens/test_loss/empirical"

VALIDATIONS = {
    "none": (False, {}),
    "every epoch": (True, {}),
    "every other epoch": (True, {"check_val_every_n_epoch": 2}),
    "twice an epoch": (True, {"val_check_interval": 1}),
}


def validated_and_ending(*endings):
    """The kinds of validation, each with the values of Lightning's ``on_train_epoch_end`` that go with it."""
    return {
        f"{name}, {ending}": (validation, options, ending)
        for name, (validation, options) in VALIDATIONS.items()
        for ending in endings
        if validation or ending is not False  # there is no validation to act after
    }


@pytest.mark.parametrize(
    ("validation", "options", "on_train_epoch_end"),
    cases(validated_and_ending(True, False), "none, True", "every other epoch, False", "twice an epoch, True"),
)
def test_checkpoints_are_chosen_by_the_values_of_their_own_weights(validation, options, on_train_epoch_end, tmp_path):
    checkpoint = ModelCheckpoint(
        tmp_path,
        "{epoch}-{step}",
        KEY,
        save_top_k=-1,
        save_on_train_epoch_end=on_train_epoch_end,
        auto_insert_metric_name=False,
    )
    monitor = make_monitor()
    data = BoringData(validation=validation)
    fit(checkpoint, monitor, data=data, enable_checkpointing=True, max_epochs=4, **options)
    values = {row["step"] + 1: np.float32(row[KEY]) for row in monitor.history}
    saved = {torch.load(path)["global_step"]: score for path, score in checkpoint.best_k_models.items()}
    assert saved
    assert len(saved) == (2 if options.get("check_val_every_n_epoch") and not on_train_epoch_end else len(saved))
    for step, score in saved.items():
        assert float(score) == values[step]


@pytest.mark.parametrize(
    ("validation", "options", "on_train_epoch_end"),
    cases(
        validated_and_ending(None, True, False),
        *("none, None", "every epoch, False", "every other epoch, True", "twice an epoch, None"),
    ),
)
def test_early_stopping_stops_by_an_estimate(validation, options, on_train_epoch_end):
    # with no learning nothing improves: the check after the first one stops
    stopping = EarlyStopping(KEY, patience=1, check_on_train_epoch_end=on_train_epoch_end, verbose=False)
    data = BoringData(validation=validation)
    trainer = fit(stopping, make_monitor(), module=BoringModule(lr=0.0), data=data, max_epochs=9, **options)
    assert stopping.stopped_epoch == trainer.current_epoch - 1 < 4


MEASURE_AT = {
    ("auto", "none"): [0, 1, 2, 3],
    ("auto", "every other epoch"): [0, 1, 2, 3],
    ("auto", "twice an epoch"): [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3],
    ("train_epoch_end", "none"): [0, 1, 2, 3],
    ("train_epoch_end", "every epoch"): [0, 1, 2, 3],
    ("train_epoch_end", "twice an epoch"): [0, 1, 2, 3],
    ("validation_epoch_end", "every epoch"): [0, 1, 2, 3],
    ("validation_epoch_end", "every other epoch"): [1, 3],
}


@pytest.mark.parametrize(("case", "epochs"), MEASURE_AT.items(), ids=map(", ".join, MEASURE_AT))
def test_measure_at_chooses_the_hook(case, epochs):
    measure_at, name = case
    validation, options = VALIDATIONS[name]
    monitor = make_monitor(measure_at=measure_at, measures=[LayerwiseNormSensitivity()])
    fit(monitor, data=BoringData(validation=validation), max_epochs=4, **options)
    assert [row["epoch"] for row in monitor.history] == epochs
    steps = [row["step"] for row in monitor.history]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("validation", [False, True])
def test_every_n_epochs(validation):
    monitor = make_monitor(every_n_epochs=3)
    recorder = Recorder()
    fit(monitor, recorder, data=BoringData(validation=validation), max_epochs=7)
    assert [row["epoch"] for row in monitor.history] == [2, 5]
    assert KEY not in recorder.metrics[1]
    # layer_norm's estimate: against the weights of three epochs before
    ratio = monitor.history[1]["tansens/test_loss/layer_norm"] / monitor.history[1]["tansens/train_loss"]
    norms = [row["tansens/layer_norm"] for row in monitor.history]
    assert ratio == pytest.approx(norms[0] / norms[1], rel=1e-6)


def events_of(folder):
    """Scalars and histograms of an event file: for each tag, (step, value)."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, {tag: events.Histograms(tag) for tag in events.Tags()["histograms"]}


def rows_of(path):
    scalars = defaultdict(list)
    with Path(path).open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key not in ("step", "epoch"):
                    scalars[key].append((int(row["step"]), float(np.float32(float(value)))))
    return dict(scalars)


LOGGED = {
    "no validation": (BoringModule, False, {}),
    "validation": (BoringModule, True, {}),
    "validation within the epoch": (BoringModule, True, {"val_check_interval": 2}),
    "accumulation": (BoringModule, False, {"accumulate_grad_batches": 2}),
    "two optimizers": (TwoOptimizers, False, {}),
}


@pytest.mark.parametrize(("module", "validation", "options"), cases(LOGGED, "validation within the epoch", "two optimizers"))
def test_event_file_csv_file_and_history_agree(module, validation, options, tmp_path):
    loggers = [TensorBoardLogger(tmp_path, "", ""), CSVLogger(tmp_path, "", "")]
    monitor = make_monitor()
    fit(monitor, module=module, data=BoringData(validation=validation), logger=loggers, log_every_n_steps=1, **options)
    scalars, histograms = events_of(tmp_path)
    rows = rows_of(tmp_path / "metrics.csv")
    expected = defaultdict(list)
    for row in monitor.history:
        for key, value in row.items():
            if key.startswith("tansens/"):
                expected[key].append((row["step"], float(np.float32(value))))
    borders = ("_low", "_high")  # of TensorBoard's bands
    for found in (scalars, rows):
        own = {tag: points for tag, points in found.items() if tag.startswith("tansens/") and not tag.endswith(borders)}
        assert own == expected
    # on the axis of the module's own values: those of an epoch's last batch have the same step
    own = {step for step, _ in scalars["train_loss"]}
    assert {row["step"] for row in monitor.history} <= own
    assert set(histograms) == {f"tansens/active_nodes_histogram/{name}" for name in ("train", "test")}
    for tag, points in histograms.items():
        assert [point.step for point in points] == [row["step"] for row in monitor.history]
        for point, row in zip(points, monitor.history):
            mean = row["tansens/active_nodes_mean/" + tag.rsplit("/", 1)[1]]
            assert point.histogram_value.num == 7
            assert point.histogram_value.sum / 7 == pytest.approx(mean)


def test_one_folder_holds_everything(tmp_path):
    fit(make_monitor(), logger=TensorBoardLogger(tmp_path, "", ""), max_epochs=1)
    # Lightning's, the monitor's, and the list of compared values, which TensorBoard must read first
    assert {path.parent for path in tmp_path.rglob("events.out.*")} == {tmp_path}
    assert len(list(tmp_path.rglob("events.out.*"))) == 3


def test_the_sanity_check_does_not_measure():
    class Failing(Recorder):
        def on_sanity_check_end(self, trainer, pl_module):
            assert not measured(trainer)
            assert not monitor.history

    monitor = make_monitor()
    fit(monitor, Failing(), data=BoringData(validation=True), max_epochs=1, num_sanity_val_steps=2)
    assert len(monitor.history) == 1


def test_fast_dev_run():
    monitor = make_monitor()
    trainer = fit(monitor, data=BoringData(validation=True), fast_dev_run=True, logger=True)
    assert len(monitor.history) == 1
    assert KEY in trainer.callback_metrics


def test_barebones_measures_without_logging():
    monitor = make_monitor()
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = fit(monitor, barebones=True, **dict.fromkeys(names))
    assert len(monitor.history) == 2
    assert not measured(trainer)


def test_other_callbacks_are_not_disturbed(tmp_path):
    fit(make_monitor(), LearningRateMonitor("epoch"), logger=TensorBoardLogger(tmp_path, "", ""))
    assert any(tag.startswith("lr-") for tag in events_of(tmp_path)[0])


class TwelvePredictions(pl.Callback):
    """The predictions on the test set after the first, second and third batch of each epoch, as a user would keep them."""

    def __init__(self):
        self.predictions = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with torch.no_grad():
            self.predictions.append(pl_module.eval()(Points(10, seed=2).inputs).argmax(1).tolist())
        pl_module.train()


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 1}], ids=["at the end", "validation after each batch"])
def test_a_fit_of_few_epochs_has_several_snapshots_in_each(options):
    monitor = make_monitor(estimators=[TemporalEnsemble()], snapshots_per_epoch=3)
    kept = TwelvePredictions()
    fit(monitor, kept, data=BoringData(validation=bool(options)), max_epochs=4, **options)
    target = monitor._run.sets[1]
    assert target.trajectory.count == len(kept.predictions) == 12
    assert target.trajectory.predictions.tolist() == np.array(kept.predictions)[:, target.subset.indices].tolist()


def test_weights_that_have_not_changed_give_no_second_snapshot():
    monitor = make_monitor(estimators=[TemporalEnsemble()], snapshots_per_epoch=3)
    fit(monitor, data=BoringData(), max_epochs=2, accumulate_grad_batches=3)
    assert monitor._run.sets[1].trajectory.count == 2


class Endless(IterableDataset):
    """Points without an end."""

    def __iter__(self):
        return cycle(list(Points()))


@pytest.mark.parametrize(("options", "snapshots"), [({"limit_train_batches": 4}, 4), ({"max_steps": 8}, 1)])
def test_a_stream_has_snapshots_within_an_epoch_where_its_length_is_known(options, snapshots, monkeypatch):
    said = []
    monkeypatch.setattr("lightning_tansens.monitor.callback.tell", said.append)
    monitor = make_monitor(estimators=[TemporalEnsemble()], snapshots_per_epoch=2, test_dataloaders=Points(10, seed=2))
    fit(monitor, data=DataLoader(Endless(), batch_size=4), **options)
    target = monitor._run.sets[1]
    assert target.trajectory.count == snapshots
    assert [note for note in said if "limit_train_batches" in note] == said[-1:] * (snapshots == 1)


def test_a_failed_snapshot_is_said_once_and_the_training_goes_on():
    class FailsOnce(BoringModule):
        def forward(self, inputs):
            if not self.training and self.trainer.global_step == 1:
                raise RuntimeError("not now")
            return super().forward(inputs)

    monitor = make_monitor(estimators=[TemporalEnsemble()], snapshots_per_epoch=3)
    with pytest.warns(UserWarning, match="not now"):
        fit(monitor, module=FailsOnce, data=BoringData())
    assert monitor._run.sets[1].trajectory.count == 5


def test_a_snapshot_is_kept_for_all_sets_or_for_none(monkeypatch):
    of_set, fails = SetOutputs.arrays, []

    def arrays(self):
        found = of_set(self)
        if fails and found.get("labels") is None:  # the target, which comes after the reference
            raise RuntimeError("not now")
        return found

    monkeypatch.setattr(SetOutputs, "arrays", arrays)

    class Failing(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            fails[:] = [1] * (trainer.global_step == 1)

        def on_train_epoch_end(self, trainer, *_):
            fails[:] = [1] * (trainer.current_epoch == 1)

    monitor = make_monitor(estimators=[TemporalEnsemble()], snapshots_per_epoch=3)
    with pytest.warns(UserWarning, match="not now"):
        fit(Failing(), monitor, data=BoringData(validation=False), max_epochs=3)
    assert [measured.trajectory.count for measured in monitor._run.sets] == [7, 7]


def test_an_epoch_without_a_measurement_begins_without_a_snapshot():
    monitor = make_monitor(estimators=[TemporalEnsemble()], every_n_epochs=3)
    fit(monitor, data=BoringData(), max_epochs=6)
    assert monitor._run.sets[1].trajectory.count == 2


class CountsCalls(BoringData):
    calls = 0

    def val_dataloader(self):
        self.calls += 1
        return super().val_dataloader()


@pytest.mark.parametrize(("reference", "more"), [("auto", 1), ("val", 1), ("train", 0)])
@pytest.mark.parametrize("options", [{"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}, {}], ids=["late", "early"])
def test_validation_data_are_made_once_more_at_the_most(reference, more, options):
    alone, data = CountsCalls(validation=True), CountsCalls(validation=True)
    fit(data=alone, **options)
    fit(make_monitor(reference=reference), data=data, **options)
    # before an epoch that does not validate, the Trainer has no validation data yet
    assert data.calls == alone.calls + (more if options else 0)
