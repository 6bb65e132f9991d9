"""Every mode of the Trainer: what the monitor promises to measure, to log and to leave alone."""

import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner

from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    InputOutputSensitivity,
    SensitivityMovement,
)
from lightning_tansens.record import Record
from tests.boring import (
    BoringData,
    BoringModule,
    Points,
    fit,
    loader,
    make_monitor,
    make_trainer,
    measured,
    state_of,
)
from tests.guarantees.recording import EveryStep, Ledger, Run, full_monitor, record
from tests.test_monitor_steps import rows_of
from tests.test_monitor_training import Noisy, assert_same
from tests.tiers import cases

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning advises for tiny trainings

BAREBONES = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps")


@pytest.fixture(autouse=True)
def _settings():
    """Takes back what ``Trainer(deterministic=True)`` leaves behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        before = torch.are_deterministic_algorithms_enabled()
        yield
        torch.use_deterministic_algorithms(before)


def validated():
    return BoringData(noise=True, validation=True)


# for each mode: the Trainer's options, the epochs that are measured, whether the values are logged
MODES = {
    "fit": ({}, [0, 1], True),
    "fit without a sanity check": ({"num_sanity_val_steps": 0}, [0, 1], True),
    "fit after a sanity check of everything": ({"num_sanity_val_steps": -1}, [0, 1], True),
    "fit without a validation": ({"limit_val_batches": 0}, [0, 1], True),
    "fit without a logger": ({"logger": False}, [0, 1], True),
    "inference_mode=False": ({"inference_mode": False}, [0, 1], True),
    "fast_dev_run": ({"fast_dev_run": True}, [0], True),
    "barebones": ({"barebones": True, **dict.fromkeys(BAREBONES)}, [0, 1], False),
    "overfit_batches": ({"overfit_batches": 2}, [0, 1], True),
    "16-true": ({"precision": "16-true"}, [0, 1], True),
    "bf16-true": ({"precision": "bf16-true"}, [0, 1], True),
    "64-true": ({"precision": "64-true"}, [0, 1], True),
    "deterministic": ({"deterministic": True}, [0, 1], True),
    "detect_anomaly": ({"detect_anomaly": True}, [0, 1], True),
    "profiled": ({"profiler": "simple"}, [0, 1], True),
}


@pytest.mark.parametrize(
    ("options", "epochs", "logs"), cases(MODES, "fit", "fast_dev_run", "barebones", "overfit_batches", "bf16-true")
)
def test_training_is_untouched_and_measured_in_every_kind_of_fit(options, epochs, logs, tmp_path):
    class Closing(pl.Callback):
        def on_fit_end(self, trainer, pl_module):
            self.keys = measured(trainer)

    closing, monitor = Closing(), full_monitor()
    run = Run(data=validated, callbacks=lambda: [closing], options={"default_root_dir": tmp_path, **options})
    assert_same(record(run), record(run, monitor))
    assert [row["epoch"] for row in monitor.history] == epochs
    rows = [{key: value for key, value in row.items() if key not in ("epoch", "step")} for row in monitor.history]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert "tansens/test_loss/empirical" in rows[-1]
    assert closing.keys == ({key.removeprefix("tansens/") for row in rows for key in row} if logs else set())


def test_nothing_is_measured_where_nothing_is_trained():
    for options in ({"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}):
        monitor, module = full_monitor(), Noisy()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        trainer = fit(monitor, module=module, data=validated(), **options)
        assert_same(dict(module.state_dict()), before)
        assert not monitor.history
        assert not measured(trainer)


# ------------------------------------------------------------------------------------------------------ precision

PRECISIONS = {"16-true": torch.float16, "bf16-true": torch.bfloat16, "64-true": torch.float64}


@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS.items())
def test_values_of_a_true_precision_are_those_of_the_rounded_weights(precision, dtype):
    # an independent computation, in double precision, on what the Trainer made of weights and inputs
    monitor = make_monitor(measures=[InputOutputSensitivity()], num_samples=12, num_loss_samples=12)
    trainer = fit(monitor, module=BoringModule(lr=0.0), data=BoringData(), precision=precision, max_epochs=1)
    network = trainer.lightning_module.network
    assert network[0].weight.dtype == dtype
    network = network.double()
    inputs = Points().inputs.to(dtype).double()
    jacobians = [torch.autograd.functional.jacobian(network, point) for point in inputs]
    expected = torch.stack([jacobian.norm() for jacobian in jacobians]).mean()
    assert monitor.history[0]["tansens/input_output/train"] == pytest.approx(float(expected), rel=torch.finfo(dtype).eps)


# -------------------------------------------------------------------------------------------------------- loggers


@pytest.mark.parametrize("validation", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_every_logger_gets_every_value_at_the_same_steps(validation, tmp_path):
    loggers = [CSVLogger(tmp_path, "a", ""), CSVLogger(tmp_path, "b", ""), Ledger()]
    monitor = make_monitor()
    fit(monitor, data=BoringData(validation=validation), logger=loggers)
    files = [rows_of(tmp_path / name / "metrics.csv") for name in "ab"]
    assert files[0] == files[1]
    steps = [row["step"] for row in monitor.history]
    assert [step for step, _ in files[0]["tansens/test_loss/empirical"]] == steps
    rows = [(step, metrics) for step, metrics in loggers[2].rows if "tansens/seconds" in metrics]
    assert [step for step, _ in rows] == steps
    for (_, metrics), row in zip(rows, monitor.history, strict=True):
        assert {key: metrics[key] for key in row if "/" in key} == {
            key: pytest.approx(value) for key, value in row.items() if "/" in key
        }


def test_without_a_logger_nothing_is_written(tmp_path):
    monitor = make_monitor()
    trainer = fit(monitor, data=validated(), logger=False, default_root_dir=tmp_path)
    assert measured(trainer) == {key.removeprefix("tansens/") for row in monitor.history for key in row if "/" in key}
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- other stages


class Predicting(BoringData):
    def predict_dataloader(self):
        return loader(Points(noise=True))


def without_measured(results):
    return [{key: value for key, value in row.items() if not key.startswith("tansens/")} for row in results]


def in_all_stages(*monitors, inference_mode):
    """Validates, fits, validates, tests, predicts and fits on; returns the results and the states in between."""
    ledger, steps = Ledger(), EveryStep()
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(*monitors, steps, logger=ledger, log_every_n_steps=1, inference_mode=inference_mode)
    module, data = Noisy(), Predicting(noise=True, validation=True)
    results = []
    for stage in ("validate", "fit", "validate", "test", "predict", "fit"):
        if stage == "fit":
            trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        quiet = {"verbose": False} if stage in ("validate", "test") else {}
        found = getattr(trainer, stage)(module, datamodule=data, **quiet)
        results.append((stage, without_measured(found) if quiet else found, state_of(trainer)))
        if stage == "predict":
            assert not measured(trainer)
    return {"results": results, "losses": steps.losses, "logged": ledger.own_rows()}, ledger


@pytest.mark.parametrize("inference_mode", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_results_of_all_stages_are_untouched_and_predictions_are_not_measured(inference_mode):
    monitor = full_monitor(measures=[EmpiricalSensitivity(), ActiveNodeSensitivity(), SensitivityMovement()])
    plain, _ = in_all_stages(inference_mode=inference_mode)
    watched, ledger = in_all_stages(monitor, inference_mode=inference_mode)
    assert_same(plain, watched)
    assert next(result for stage, result, _ in plain["results"] if stage == "predict")
    assert len([step for step, metrics in ledger.rows if "tansens/seconds" in metrics]) == 5
    assert [row["epoch"] for row in monitor.history] == [1]  # of the last fit


# ---------------------------------------------------------------------------------------------------- checkpoints


def with_checkpoints(folder, *monitors, **options):
    save = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    run = Run(data=validated, callbacks=lambda: [save], options={"enable_checkpointing": True, "max_epochs": 3})
    return record(run, *monitors, **options)


@pytest.mark.thorough
def test_checkpoints_hold_the_same_training_and_continue_it_the_same(tmp_path):
    monitor = full_monitor()
    plain = with_checkpoints(tmp_path / "plain")
    assert_same(plain, with_checkpoints(tmp_path / "watched", monitor))
    for epoch in range(3):
        states = [torch.load(tmp_path / name / f"epoch={epoch}.ckpt") for name in ("plain", "watched")]
        records = states[1]["callbacks"].pop(monitor.state_key)["records"]
        assert [Record.from_state(state) for state in records] == monitor.records[: epoch + 1]
        for state in states:
            state["callbacks"] = {key: {**value, "dirpath": None} for key, value in state["callbacks"].items()}
        assert_same(*[{**state, "callbacks": None} for state in states])
    for name in ("plain", "watched"):  # also where there was no monitor before
        resumed = [
            with_checkpoints(
                tmp_path / f"resumed {name} {len(monitors)}", *monitors, ckpt_path=tmp_path / name / "epoch=0.ckpt"
            )
            for monitors in ([], [full_monitor()])
        ]
        assert_same(*resumed)


# ---------------------------------------------------------------------------------------------------------- tuner


class Tunable(Noisy):
    """Has the two numbers that a tuner sets."""

    def __init__(self):
        super().__init__()
        self.batch_size = 2

    def train_dataloader(self):
        return loader(Points(16, noise=True), batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return loader(Points(8, seed=1))

    def test_dataloader(self):
        return loader(Points(10, seed=2))


SEARCHES = {
    "lr_find": lambda tuner, module: tuner.lr_find(module, num_training=20, update_attr=True).results,
    "scale_batch_size": lambda tuner, module: tuner.scale_batch_size(module, max_trials=2, steps_per_trial=1),
}


@pytest.mark.parametrize("search", cases(SEARCHES, "lr_find"))
def test_the_tuner_finds_the_same_and_measures_nothing_and_the_training_after_it_is_untouched(search, tmp_path):
    runs = []
    for monitors in ([], [full_monitor()]):
        pl.seed_everything(0, verbose=False)
        steps = EveryStep()
        trainer = make_trainer(*monitors, steps, default_root_dir=tmp_path)
        module = Tunable()
        found = search(Tuner(trainer), module)
        assert not any(monitor.history for monitor in monitors)
        assert not measured(trainer)
        trainer.fit(module)
        runs.append(
            {"found": found, "lr": module.lr, "size": module.batch_size, "states": steps.epochs, "losses": steps.losses}
        )
    assert_same(*runs)
    assert found
    assert [row["epoch"] for row in monitors[0].history] == [0, 1]


FINDERS = {
    "learning rate": (lambda: LearningRateFinder(num_training_steps=20), False),
    "batch size": (lambda: BatchSizeFinder(max_trials=2, steps_per_trial=1), True),
}


@pytest.mark.parametrize(("finder", "monitor_first"), cases(FINDERS, "learning rate"))
def test_a_finder_beside_the_monitor_finds_the_same_and_the_training_is_untouched(finder, monitor_first, tmp_path):
    runs = []
    for monitors in ([], [full_monitor()]):
        pl.seed_everything(0, verbose=False)
        steps = EveryStep()
        callbacks = [*monitors, finder()] if monitor_first else [finder(), *monitors]
        trainer = make_trainer(*callbacks, steps, default_root_dir=tmp_path)
        module = Tunable()
        trainer.fit(module)
        runs.append({"lr": module.lr, "size": module.batch_size, "states": steps.epochs, "losses": steps.losses})
    assert_same(*runs)
    assert (module.lr, module.batch_size) != (0.1, 2)
    assert [row["epoch"] for row in monitors[0].history] == [0, 1]
