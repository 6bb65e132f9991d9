"""What a measurement may cost: the keys that go through ``self.log``, the copies' samples, the share of a run's time."""

import itertools
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset, Sampler

from lightning_tansens import FreshEarlyStopping
from lightning_tansens.estimators import Calibrated, Headline
from lightning_tansens.estimators.calibrated import Noise
from lightning_tansens.monitor import Options, costs
from lightning_tansens.monitor.data import passes
from lightning_tansens.monitor.data.passes import timed
from lightning_tansens.show import Display
from lightning_tansens.show.notices import Notices, cost_note
from lightning_tansens.show.page import Page
from tests.boring import BoringData, BoringModule, Points, fit, loader, make_monitor, measured, mlp, unwrapped


def test_callbacks_get_a_handful_of_keys_and_those_they_ask_for(tmp_path):
    stop = EarlyStopping("tansens/empirical/test", patience=5)
    save = ModelCheckpoint(tmp_path, "{epoch}-{tansens/layer_norm:.2f}", monitor="tansens/active_nodes/test")
    monitor = make_monitor(test_dataloaders=Points(20, seed=2), estimators=None, display=Display())
    run = fit(monitor, stop, save, enable_checkpointing=True, data=loader(Points(20)))
    ends = ("", "_low", "_high", "_reliable")
    headline = {f"test_{quantity}/estimate{end}" for quantity in ("loss", "accuracy") for end in ends}
    asked = {"empirical/test", "layer_norm", "active_nodes/test"}
    assert measured(run) == {"train_loss", "train_accuracy", "seconds", *headline, *asked}


def test_schedulers_get_the_key_they_ask_for():
    class Plateau(BoringModule):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "tansens/empirical/train"}}

    run = fit(make_monitor(test_dataloaders=Points(20, seed=2), display=Display()), module=Plateau, data=loader(Points(20)))
    assert measured(run) == {"train_loss", "train_accuracy", "seconds", "empirical/train"}


def test_callbacks_may_watch_an_estimate_that_loggers_are_not_sent():
    key = "tansens/test_accuracy/atc_confidence"
    stop = FreshEarlyStopping(key, patience=5, mode="max", verbose=False)
    monitor = make_monitor(test_dataloaders=Points(20, seed=2), estimators=None, display=Display())
    run = fit(monitor, stop, data=loader(Points(20)), max_epochs=3)
    assert float(run.callback_metrics[key]) == pytest.approx(monitor.history[-1][key])


@pytest.mark.parametrize(
    ("estimators", "samples", "losses"),
    [
        ([Headline()], 200, 0),  # of a table all, up to 1,024
        ([Headline(copied_samples=128)], 128, 0),
        ([Headline(copied_samples=None)], 200, 7),
        ([Calibrated([Noise(0.5), Noise(1.0), Noise(2.0)])], 200, 3),
    ],
)
def test_a_copy_has_as_many_samples_as_its_estimators_need(estimators, samples, losses):
    monitor = make_monitor(
        test_dataloaders=Points(20, seed=2), estimators=estimators, num_samples=8, num_loss_samples=200, batch_size=60
    )
    fit(monitor, max_epochs=1, data=loader(Points(220)))
    copies = monitor._run.copies
    assert [len(copy.of_outputs.outputs.arrays()["outputs"]) for copy in copies] == [samples] * len(copies)
    assert sum(bool(copy.of_outputs.loss.count) for copy in copies) == losses
    read = sum(len(part) for part in copies[0].batches.positions())
    assert read == samples
    assert monitor.records[0].targets["test"].estimates


def test_a_share_of_the_time_leaves_measurements_out():
    monitor = make_monitor(max_share=1e-9)
    fit(monitor, max_epochs=4)
    assert [record.epoch for record in monitor.records] == [0]
    now = time.perf_counter()
    monitor._measured_at = now - 10 * monitor.records[0].seconds["total"]
    assert not monitor._too_soon(0.2)
    assert monitor._too_soon(0.01)


@pytest.mark.parametrize("share", [0, 1, -0.1, "a lot"])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(ValueError, match="max_share: expected a number between 0 and 1"):
        Options(max_share=share)


def test_seconds_count_what_the_page_takes(monkeypatch):
    monkeypatch.setattr(Page, "show", lambda *args, **kwargs: time.sleep(0.3))
    monitor = make_monitor()
    run = fit(monitor, max_epochs=1)
    assert monitor.records[0].seconds["total"] > 0.3
    assert float(run.callback_metrics["tansens/seconds"]) == pytest.approx(monitor.records[0].seconds["total"])


# -------------------------------------------------------------------------------------------------- passes over sets


class Counted(IterableDataset):
    """A stream of points."""

    def __iter__(self):
        return iter(Points(200))


class Short(Counted):
    """A stream that knows that it is short."""

    def __len__(self):
        return 40

    def __iter__(self):
        return iter(Points(40))


class Follow(Sampler):
    """A sampler that has to be followed."""

    def __len__(self):
        return 50

    def __iter__(self):
        return iter(range(50))


def each_call_takes(monkeypatch, seconds):
    ticks = itertools.count(0, seconds)
    monkeypatch.setattr(passes, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


def told_passes(caplog):
    """The notes on a pass over a whole set."""
    return [note for note in map(unwrapped, caplog.messages) if "read once" in note or "followed once" in note]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            Counted(),
            "the test set: to draw 7 samples of a stream, the first 70 are read once, which takes about 35 s",
        ),
        (
            Short(),
            "the test set: to draw 7 samples of a stream, the first 40 are read once, which takes about 20 s",
        ),
        (
            DataLoader(Points(60), sampler=Follow()),
            "the test set: its sampler is followed once to find the samples that it visits, which takes about 25 s",
        ),
    ],
)
def test_a_slow_pass_is_told_in_seconds_once(data, said, monkeypatch, caplog):
    each_call_takes(monkeypatch, 0.5)
    with caplog.at_level("INFO"):
        fit(make_monitor(test_dataloaders=data), max_epochs=1)
    (note,) = told_passes(caplog)
    assert said in note
    caplog.clear()
    each_call_takes(monkeypatch, 0.01)
    with caplog.at_level("INFO"):
        fit(make_monitor(test_dataloaders=data), max_epochs=1)
    assert not told_passes(caplog)


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ([0, 2, 2.01, 2.02, 2.03], []),  # the first item waits for what has to be opened
        ([0, 0.01, 0.02, 0.03, 0.04], []),
        ([0, 2, 2.1, 2.2, 2.3], [2 + 0.1 * 99]),
        ([0, 0.02, 0.04, 0.06, 9], [0.02 + 8.98 / 3 * 99]),
    ],
)
def test_how_long_a_pass_takes_follows_from_its_items_after_the_first(clock, said):
    found = []
    assert list(timed("abcd", 100, found.append, iter([*clock, 10]).__next__)) == [*"abcd"]
    assert found == pytest.approx(said)


def test_what_the_truth_of_a_large_test_set_takes_is_told_apart(monkeypatch, caplog):
    ticks = itertools.count()
    monkeypatch.setattr(costs, "_now", lambda: float(next(ticks)))
    monitor = make_monitor(test_dataloaders=Points(300), compare_with_labels=True)
    fit(monitor, max_epochs=1)
    seconds, samples = monitor._run.cost_of_truth()
    assert samples == 300
    assert 0 < seconds < monitor._run.expected_seconds()
    few = make_monitor(test_dataloaders=Points(300), compare_with_labels=True, num_label_samples=7)
    fit(few, max_epochs=1)
    assert few._run.cost_of_truth() == (0.0, 7)


def told_shares(caplog):
    return [note for note in map(unwrapped, caplog.messages) if "measurements have taken" in note]


def test_measurements_that_a_user_may_notice_are_told_once(caplog):
    notices = Notices()
    with caplog.at_level("INFO"):
        notices.cost(59.0, 100.0)
        assert not told_shares(caplog)
        for _ in range(3):
            notices.cost(2.0, 100.0)
    (note,) = told_shares(caplog)
    assert "have taken 30% of the time so far, 61 s; Options(max_share=0.03)" in note
    caplog.clear()
    cheap = Notices()
    with caplog.at_level("INFO"):
        cheap.cost(4000.0, 100_000.0)
    assert not told_shares(caplog)


def test_a_fit_tells_its_share_and_evaluations_do_not(monkeypatch, caplog):
    monkeypatch.setattr("lightning_tansens.show.notices._NOTICED", 0.0)
    monkeypatch.setattr("lightning_tansens.show.notices._MUCH", 0.0)
    with caplog.at_level("INFO"):
        fit(make_monitor(), max_epochs=1)
        assert not told_shares(caplog)
        fit(make_monitor(), max_epochs=3)
        assert len(told_shares(caplog)) == 1
        caplog.clear()
        fit(make_monitor(max_share=0.9), max_epochs=3)
        assert not told_shares(caplog)
        monitor = make_monitor()
        run = fit(monitor, data=BoringData(validation=True), max_epochs=1)
        for _ in range(3):
            run.validate(run.lightning_module, run.datamodule, verbose=False)
    assert not told_shares(caplog)


def test_a_slow_measurement_is_told_with_what_shortens_it():
    assert cost_note(4.9, 4.8, 10**6) is None
    assert "9 s, judging by a few samples; smaller num_samples" in cost_note(9.0, 4.0, 10**6)
    assert "smaller num_samples" in cost_note(9.0, 8.0, 10**4)
    assert "8 s of it are for the true loss, on 1,000,000 samples" in cost_note(9.0, 8.0, 10**6)
    assert "with Options(num_label_samples=10000) an accuracy is known" in cost_note(9.0, 8.0, 10**6)


# ------------------------------------------------------------------------------------------ many classes and targets


def test_scalars_do_not_grow_with_the_classes_and_are_few_for_each_target():
    found = []
    for classes in (3, 300):
        targets = {f"target {number}": Points(9, seed=number) for number in range(10)}
        monitor = make_monitor(test_dataloaders=targets, estimators=None, display=Display())
        fit(monitor, max_epochs=1, module=lambda classes=classes: BoringModule(mlp(classes)), data=loader(Points(20)))
        found.append(set(monitor.logged(monitor.records[-1])))
    assert found[0] == found[1]
    assert len(found[0]) <= 20 * 10
