"""A measurement that fails takes its own values with it and nothing else, on one process or on two."""

import os
import warnings

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import Dataset

from lightning_tansens.errors import FailedElsewhereError, NonFiniteWeightsError
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity
from lightning_tansens.monitor.data import subsets
from lightning_tansens.show.loggers.tensorboard import TensorBoardWriter
from tests.boring import BoringData, BoringModule, Points, Recorder, fit, make_monitor
from tests.processes import launch, several_processes
from tests.test_monitor_training import assert_same
from tests.tiers import cases

EPOCHS = 4


class Switch:
    """Fails while it is armed; what is tried before the first step succeeds. Copies of it are armed together."""

    armed = False

    def __init__(self, error, only_rank=None):
        self.error, self.only_rank = error, only_rank
        Switch.armed = False

    def __call__(self):
        torch.rand(7)  # random numbers that are used up before the failure must be given back
        if self.armed and self.only_rank in (None, int(os.environ.get("LOCAL_RANK", "0"))):
            raise self.error


class Arming(Recorder):
    """Arms the switch for the measurement after the second epoch, and lets go of it after the third."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        Switch.armed = trainer.is_last_batch and trainer.current_epoch in (1, 2)


class BreaksHalfway(Dataset):
    """Test data that cannot be read past the third sample."""

    def __init__(self, switch):
        self.switch, self.points = switch, Points(10, seed=2)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        if index % 3 == 0:
            self.switch()
        return self.points[index]


class ChangesShape(BreaksHalfway):
    """Test data whose samples come in two shapes once the switch is on."""

    def __getitem__(self, index):
        inputs, label = self.points[index]
        return (inputs[:2] if self.switch.armed and index > 4 else inputs), label


class FailsInEval(nn.ReLU):
    """A layer that fails in eval mode, in which measurements are taken."""

    switch = None

    def forward(self, inputs):
        if not self.training:
            type(self).switch()
        return super().forward(inputs)


class Fails(EmpiricalSensitivity):
    """A measure that is accumulated and then has no values."""

    switch = None

    def values(self):
        type(self).switch()
        return super().values()


def criterion(switch):
    def loss(outputs, targets):
        switch()
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    return loss


def case(name, switch):
    """Arguments of the monitor, and the module, for one kind of failure."""
    FailsInEval.switch = Fails.switch = switch
    return {
        "criterion": lambda: ({"criterion": criterion(switch)}, None),
        "layer": lambda: ({}, lambda: BoringModule(nn.Sequential(nn.Linear(4, 6), FailsInEval(), nn.Linear(6, 3)))),
        "test loader": lambda: ({"test_dataloaders": BreaksHalfway(switch)}, None),
        "changing shapes": lambda: ({"test_dataloaders": ChangesShape(switch)}, None),
        "values": lambda: ({"measures": [ActiveNodeSensitivity(), Fails()]}, None),
    }[name]()


CASES = {
    "criterion": ZeroDivisionError("float division by zero"),
    "layer": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 TiB"),
    "test loader": OSError("the disk is gone"),
    "changing shapes": RuntimeError("stack expects each tensor to be equal size"),
    "values": ValueError("no value"),
}

#: Failures of the whole measurement; the others take the values of one measure alone.
WHOLE = [name for name in CASES if name != "values"]

VALUES_LEFT_OUT = "TangentSensitivityMonitor: empirical is left out of the log: ValueError: no value (said once)"


def run(name, policy, only_rank=None, **options):
    switch = Switch(CASES[name], only_rank)
    arguments, module = case(name, switch)
    # samples are read anew at each measurement, so that a reader can fail
    monitor, recorder = make_monitor(on_failure=policy, verbose=True, **arguments), Arming()
    options = {"data": BoringData(noise=True), "module": module, "max_epochs": EPOCHS, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(recorder, monitor, **options)
    said = [str(w.message) for w in caught if str(w.message).startswith("TangentSensitivityMonitor")]
    return monitor, recorder, said


#: What goes to a logger through the writer; each takes the same way.
WRITTEN = ("histogram", "figure", "text", "layout", "compare")


@pytest.fixture(scope="module")
def undisturbed():
    """A run without a monitor."""
    recorder = Recorder()
    fit(recorder, data=BoringData(noise=True), max_epochs=EPOCHS)
    return recorder


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(subsets, "CACHE_BYTES", -1)


@pytest.mark.parametrize(
    ("name", "policy"),
    cases(
        {f"{name}, {policy}": (name, policy) for name in WHOLE for policy in ("warn", "ignore")},
        *(f"{name}, warn" for name in WHOLE),
        "layer, ignore",
    ),
)
def test_training_goes_on_without_the_failed_epochs(name, policy, undisturbed):
    monitor, recorder, said = run(name, policy)
    assert [row["epoch"] for row in monitor.history] == [0, 3]
    assert_same(recorder.epochs, undisturbed.epochs)
    if policy == "ignore":
        assert said == []
    else:
        (message,) = said
        assert "TangentSensitivityMonitor: the measurement after epoch 1 failed, its values are left out" in message
        assert str(CASES[name]) in message
        assert type(CASES[name]).__name__ in message


def without_empirical(monitor):
    """The epochs whose measurement has no empirical sensitivity, for which the record says why."""
    missing = [record for record in monitor.records if "empirical" not in record.reference.measures]
    assert all(one.missing["empirical"].reason for record in missing for one in record.sets)
    return [record.epoch for record in missing]


def test_a_measure_that_fails_loses_only_its_own_values(undisturbed):
    monitor, recorder, said = run("values", "warn")
    assert said == [VALUES_LEFT_OUT]
    assert [row["epoch"] for row in monitor.history] == list(range(EPOCHS))
    assert all("tansens/test_loss/active_nodes" in row for row in monitor.history)
    assert without_empirical(monitor) == [1, 2]
    assert_same(recorder.epochs, undisturbed.epochs)


@pytest.mark.parametrize("name", CASES)
def test_raise_stops_the_training(name):
    with pytest.raises(type(CASES[name]), match=str(CASES[name])[:20]):
        run(name, "raise")


def test_diverged_weights():
    class Diverges(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            with torch.no_grad():
                pl_module.network[2].bias[0] = torch.nan

    with pytest.raises(NonFiniteWeightsError, match=r"expected finite weights, but '\S+' has infinite ones"):
        fit(Diverges(), make_monitor(on_failure="raise"))


@pytest.mark.parametrize("what", cases({what: what for what in WRITTEN}, "histogram", "figure", "compare"))
def test_a_full_disk_under_the_logger(what, tmp_path, monkeypatch):
    """Scalars are Lightning's to write; histograms, figures and texts, which are ours, fail by the policy."""

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoardWriter, what, full)
    monitor = make_monitor()
    with pytest.warns(UserWarning, match="No space left on device"):
        fit(monitor, logger=TensorBoardLogger(tmp_path), max_epochs=3)
    assert [row["epoch"] for row in monitor.history] == [0, 1, 2]
    with pytest.raises(OSError, match="No space left on device"):
        fit(make_monitor(on_failure="raise"), logger=TensorBoardLogger(tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_which_every_measurement_failed_says_so_at_its_end(capsys):
    class FailsOutsideOfTraining(BoringModule):
        def forward(self, inputs):
            if not self.training and self.trainer.global_step:
                raise RuntimeError("never again")
            return super().forward(inputs)

    fit(make_monitor(verbose=True), module=FailsOutsideOfTraining)
    said = capsys.readouterr().out
    assert "no measurement succeeded; the last one failed: RuntimeError in" in said
    assert "never again" in said


def test_the_policy_is_one_of_three():
    with pytest.raises(ValueError, match=r"on_failure: expected one of \['raise', 'warn', 'ignore'\], but got 'stop'"):
        make_monitor(on_failure="stop")


def test_an_interrupt_is_no_failure():
    def interrupt(outputs, targets):
        if armed:
            raise SystemExit(3)
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    armed = []

    class Arm(Recorder):
        def on_train_start(self, trainer, pl_module):
            armed.append(True)

    with pytest.raises(SystemExit):
        fit(make_monitor(criterion=interrupt, on_failure="ignore"), Arm())


# ---------------------------------------------------------------------------------------------- two processes


def work(launched):
    """One of two processes; only the second one fails."""
    subsets.CACHE_BYTES = -1
    found = {}
    for name in CASES:
        monitor, recorder, said = run(name, "warn", only_rank=1, **launched.trainer())
        weights = [epoch["weights"] for epoch in recorder.epochs]
        found[name] = [row["epoch"] for row in monitor.history], said, weights, without_empirical(monitor)
    switch = Switch(CASES["criterion"], only_rank=1)
    try:
        monitor = make_monitor(on_failure="raise", verbose=True, criterion=criterion(switch))
        fit(Arming(), monitor, max_epochs=EPOCHS, **launched.trainer())
    except Exception as error:
        found["raise"] = type(error).__name__
    launched.save(found)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return launch(work, tmp_path_factory.mktemp("failures"))


@several_processes
@pytest.mark.parametrize("name", CASES)
def test_a_failure_on_one_process_is_all_processes(name, processes):
    for rank in range(2):
        epochs, said, weights, without = processes[rank][name]
        assert_same(weights, processes[0][name][2])
        if name == "values":
            # the values were joined before: those of the first process stand
            assert (epochs, said, without) == (list(range(EPOCHS)), [], [])
            continue
        assert epochs == [0, 3]
        assert len(said) == 1
        if name == "changing shapes":  # which fails on both, each in its own way
            assert "RuntimeError in" in said[0]
        else:
            assert (str(CASES[name]) in said[0]) == (rank == 1)
    if name == "values":
        return
    elsewhere = "failed on another one, whose output says why" in processes[0][name][1][0]
    assert elsewhere == (name != "changing shapes")


@several_processes
def test_raising_on_one_process_stops_all(processes):
    assert processes[0]["raise"] == FailedElsewhereError.__name__
    assert processes[1]["raise"] == "ZeroDivisionError"
