"""The monitor in LightningCLI: every argument from YAML, and the same event file as from Python."""

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from lightning_tansens import Display, TangentSensitivityMonitor
from lightning_tansens.estimators import Limits
from lightning_tansens.estimators.calibrated import Contrast, Masked, Noise
from lightning_tansens.monitor import Options
from tests import boring
from tests.boring import BoringData, BoringModule, Points, fit, untimed
from tests.test_monitor_steps import events_of

MONITOR = "lightning_tansens.TangentSensitivityMonitor"
OPTIONS = "lightning_tansens.monitor.Options"
EVERYTHING = """
test_dataloaders: {class_path: tests.boring.Points, init_args: {samples: 9, seed: 4, as_dict: true}}
reference: {class_path: tests.boring.Points, init_args: {samples: 9, as_dict: true}}
measures:
  - class_path: lightning_tansens.metrics.EmpiricalSensitivity
    init_args: {outputs: each, method: auto, num_probes: 2, quantiles: [0.25], per_layer: true}
  - {class_path: lightning_tansens.metrics.LayerwiseNormSensitivity, init_args: {form: linear}}
  - {class_path: lightning_tansens.metrics.ActiveNodeSensitivity, init_args: {depth: 3}}
estimators:
  - {class_path: lightning_tansens.estimators.AverageConfidence}
  - class_path: lightning_tansens.estimators.Calibrated
    init_args:
      copies:
        - {class_path: lightning_tansens.estimators.calibrated.Noise, init_args: {scale: 0.1}}
        - {class_path: lightning_tansens.estimators.calibrated.Masked, init_args: {share: 0.3}}
        - {class_path: lightning_tansens.estimators.calibrated.Contrast, init_args: {factor: 0.5}}
      features: [entropy, sensitivity]
num_samples: 8
every_n_epochs: 2
unpack: tests.boring.split_dict
criterion: torch.nn.functional.cross_entropy
compare_with_labels: true
network: network
display: {log: all, layout: false, figure_time: 0.5, num_images: 2}
verbose: true
options:
  num_loss_samples: 9
  num_label_samples: 8
  batch_size: 3
  seed: 7
  measure_at: train_epoch_end
  on_failure: raise
  accuracy_form: ratio
  by_class: true
  correlate_with_gap: true
  limits: {errors: 3, deviations: 2.0}
  prefix: mine
"""


def run(tmp_path, monitor, command="fit", **trainer):
    quiet = ("enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    config = {
        "seed_everything": 0,
        "trainer": {
            **dict.fromkeys(quiet, False),
            **{"max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False},
            "callbacks": [{"class_path": MONITOR, "init_args": monitor}],
            **trainer,
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    cli = LightningCLI(BoringModule, BoringData, args=[command, "--config", str(path)], save_config_callback=None)
    return next(callback for callback in cli.trainer.callbacks if isinstance(callback, TangentSensitivityMonitor))


def test_the_command_line_and_python_write_the_same_event_file(tmp_path):
    logger = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path / "cli"), "name": "", "version": ""}}
    from_yaml = run(tmp_path, {"num_samples": 7, "options": {"batch_size": 3}, "compare_with_labels": True}, logger=logger)
    from_python = TangentSensitivityMonitor(num_samples=7, options=Options(batch_size=3), compare_with_labels=True)
    fit(from_python, logger=TensorBoardLogger(tmp_path / "python", "", ""))
    assert untimed(from_yaml.history) == untimed(from_python.history)
    (scalars, histograms), (others, other_histograms) = (events_of(tmp_path / name) for name in ("cli", "python"))
    for found in (scalars, others):
        assert len(found.pop("tansens/seconds")) == 2
    assert len(scalars) > 20
    assert scalars == others
    assert histograms.keys() == other_histograms.keys() != set()
    for tag, points in histograms.items():
        for point, other in zip(points, other_histograms[tag], strict=True):
            assert (point.step, point.histogram_value) == (other.step, other.histogram_value)


def test_every_argument_can_be_set_from_yaml(tmp_path):
    monitor = run(tmp_path, yaml.safe_load(EVERYTHING))
    empirical, layer_norm, active_nodes = monitor.measures
    assert (empirical.tangent.outputs, empirical.tangent.num_probes) == ("each", 2)
    assert (empirical.quantiles, empirical.per_layer) == ((0.25,), True)
    assert (layer_norm.form, active_nodes.depth) == ("linear", 3)
    confidence, calibrated = monitor.estimators
    assert (confidence.key, calibrated.copies) == ("average_confidence", (Noise(0.1), Masked(0.3), Contrast(0.5)))
    assert (monitor.num_samples, monitor.every_n_epochs, monitor.network) == (8, 2, "network")
    assert monitor.options == Options(
        num_loss_samples=9,
        num_label_samples=8,
        batch_size=3,
        seed=7,
        measure_at="train_epoch_end",
        on_failure="raise",
        accuracy_form="ratio",
        by_class=True,
        correlate_with_gap=True,
        limits=Limits(errors=3, deviations=2.0),
        prefix="mine",
    )
    assert monitor.display == Display(log="all", layout=False, figure_time=0.5, num_images=2)
    assert monitor.unpack is boring.split_dict
    assert monitor.criterion is nn.functional.cross_entropy
    assert [row["epoch"] for row in monitor.history] == [1]
    assert {"mine/empirical/test/0", "mine/empirical_q25/reference", "mine/test_loss/actual"} <= set(monitor.history[0])


@pytest.mark.parametrize(
    "options", [{"prefix": "mine"}, {"class_path": OPTIONS, "init_args": {"prefix": "mine"}}], ids=["a dict", "a class path"]
)
def test_options_are_a_dict_or_a_class_path(options, tmp_path):
    assert run(tmp_path, {"num_samples": 5, "options": options}, "test").options == Options(prefix="mine")


TEST_SETS = {
    "a dict": {
        "near": {"class_path": "tests.boring.Points"},
        "far": {"class_path": "tests.boring.Points", "init_args": {"seed": 9}},
    },
    "a Dataset": {"class_path": "tests.boring.Points"},
}


@pytest.mark.parametrize("data", TEST_SETS.values(), ids=TEST_SETS)
def test_test_sets_from_yaml(data, tmp_path):
    monitor = run(tmp_path, {"num_samples": 5, "test_dataloaders": data}, max_epochs=1)
    names = {"near", "far"} if "near" in data else {"test"}
    assert {f"tansens/{name}_loss/empirical" for name in names} <= set(monitor.history[0])
    sets = monitor.test_dataloaders.values() if "near" in data else [monitor.test_dataloaders]
    assert all(isinstance(found, Points) for found in sets)


@pytest.mark.parametrize("criterion", ["torch.nn.CrossEntropyLoss", {"class_path": "torch.nn.CrossEntropyLoss"}])
def test_a_module_as_criterion_and_the_validation_set_as_reference_from_yaml(criterion):
    arguments = {"num_samples": 5, "reference": "val", "criterion": criterion}
    if isinstance(criterion, dict):
        criterion["init_args"] = {"label_smoothing": 0.5}
    config = {"class_path": MONITOR, "init_args": arguments}
    options = ["--trainer.callbacks", yaml.safe_dump([config], default_flow_style=True, width=10_000)]
    quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    cli = LightningCLI(
        BoringModule,
        BoringData,
        args=["fit", *options, *quiet, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.validation=true"],
        save_config_callback=None,
    )
    (monitor,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, TangentSensitivityMonitor))
    assert isinstance(monitor.criterion, nn.CrossEntropyLoss)
    assert monitor.criterion.label_smoothing == (0.5 if isinstance(criterion, dict) else 0.0)
    assert "tansens/val_loss" in monitor.history[0]


def test_a_share_of_the_training_data_as_reference_from_yaml():
    config = {"class_path": MONITOR, "init_args": {"num_samples": 3, "reference": 0.25, "verbose": False}}
    options = ["--trainer.callbacks", yaml.safe_dump([config], default_flow_style=True, width=10_000)]
    quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    fixed = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    cli = LightningCLI(BoringModule, BoringData, args=["fit", *options, *quiet, *fixed], save_config_callback=None)
    (monitor,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, TangentSensitivityMonitor))
    assert len(monitor.held_out.data) == 3
    assert "tansens/reference_loss" in monitor.history[0]


def test_the_criterion_is_used(tmp_path):
    losses = [
        run(tmp_path, {"num_samples": 5, "criterion": {"class_path": "torch.nn.CrossEntropyLoss", "init_args": init}})
        for init in ({}, {"label_smoothing": 0.5})
    ]
    assert losses[0].history[0]["tansens/train_loss"] != losses[1].history[0]["tansens/train_loss"]


@pytest.mark.parametrize("options", [["--print_config"], ["--help"], [f"--trainer.callbacks.help={MONITOR}"]])
def test_help_and_print_config(options, capsys):
    callback = [] if "callbacks.help" in options[0] else [f"--trainer.callbacks+={MONITOR}"]
    with pytest.raises(SystemExit) as ended:
        LightningCLI(BoringModule, BoringData, args=["fit", *callback, *options])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    if "print_config" in options[0]:
        (printed,) = yaml.safe_load(shown)["trainer"]["callbacks"]
        defaults = {"num_samples": 128, "reference": "auto", "measures": None, "estimators": None, "options": None}
        assert defaults.items() <= printed["init_args"].items()
    elif "callbacks.help" in options[0]:
        assert "The number of samples of each set on which the measures are computed." in " ".join(shown.split())


def test_the_printed_configuration_runs(tmp_path, capsys):
    path = tmp_path / "monitor.yaml"
    path.write_text(
        yaml.safe_dump({"trainer": {"callbacks": [{"class_path": MONITOR, "init_args": yaml.safe_load(EVERYTHING)}]}})
    )
    with pytest.raises(SystemExit):
        LightningCLI(BoringModule, BoringData, args=["fit", "--config", str(path), "--print_config"])
    (printed,) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    again, first = run(tmp_path, printed["init_args"]), run(tmp_path, yaml.safe_load(EVERYTHING))
    assert untimed(again.history) == untimed(first.history)


def test_the_commands_without_a_fit_run_too(tmp_path):
    (row,) = run(tmp_path, {}, "test").history
    assert "tansens/test_loss/empirical" in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected a positive integer, but got 0"),
        ({"options": {"measure_at": "never"}}, "measure_at"),
        ({"samples": 3}, "samples"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, tmp_path, capsys):
    with pytest.raises((SystemExit, ValueError)) as error:
        run(tmp_path, arguments)
    assert message in f"{error.value}{capsys.readouterr().err}"
