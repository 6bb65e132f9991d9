"""What a measurement may cost: the keys that go through ``self.log``, the copies' samples, the share of a run's time."""

import time

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_tansens import FreshEarlyStopping
from lightning_tansens.estimators import Calibrated, Headline
from lightning_tansens.estimators.calibrated import Noise
from lightning_tansens.monitor import Options
from lightning_tansens.show import Display
from lightning_tansens.show.page import Page
from tests.boring import BoringModule, Points, fit, loader, make_monitor, measured


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
