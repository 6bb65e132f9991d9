"""What a checkpoint keeps of a monitor."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_tansens.metrics import EmpiricalSensitivity, LayerwiseNormSensitivity
from lightning_tansens.record import Record
from lightning_tansens.show.keys import flat_row
from tests.boring import BoringData, fit, make_monitor, untimed
from tests.tiers import cases


def train(folder, validation=False, ckpt_path=None, every_n_epochs=1, **kwargs):
    measures = [EmpiricalSensitivity(per_layer=True), LayerwiseNormSensitivity()]
    monitor = make_monitor(measures=measures, every_n_epochs=every_n_epochs)
    save = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=not validation)
    data = BoringData(shuffle=False, validation=validation)
    fit(save, monitor, data=data, enable_checkpointing=True, ckpt_path=ckpt_path, **kwargs)
    return monitor


RESUMED = {
    f"{'validated' if validation else 'not validated'}, {every}, {saved}": (validation, every, saved)
    for validation in (False, True)
    for every, saved in ((1, 1), (2, 1), (2, 2))  # also between two measurements
}


@pytest.mark.parametrize(
    ("validation", "every", "saved"), cases(RESUMED, "validated, 1, 1", "validated, 2, 1", "not validated, 2, 2")
)
def test_a_resumed_run_continues_the_series(validation, every, saved, tmp_path):
    options = {"validation": validation, "every_n_epochs": every, "max_epochs": 4}
    whole = train(tmp_path / "whole", **options)
    resumed = train(tmp_path / "resumed", ckpt_path=tmp_path / "whole" / f"epoch={saved}.ckpt", **options)
    assert all("tansens/test_loss/layer_norm" in row for row in whole.history)
    assert len(whole.history) == 4 // every
    assert untimed(resumed.history) == untimed(whole.history)


def test_the_state_loads_with_weights_only(tmp_path):
    monitor = train(tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    state = checkpoint["callbacks"][monitor.state_key]
    assert state == monitor.state_dict()
    assert [flat_row(Record.from_state(record)) for record in state["records"]] == monitor.history
    assert state["weights_before"]["layer_norm"]["layer_norm"] == monitor.history[0]["tansens/layer_norm"]


def test_the_saved_history_does_not_grow_with_the_run():
    monitor = make_monitor()
    fit(monitor, max_epochs=1)
    other = make_monitor()
    other.load_state_dict(monitor.state_dict())
    other.records.append(other.records[0])
    assert len(monitor.history) == 1


def test_a_checkpoint_without_a_monitor_can_be_continued_with_one(tmp_path):
    save = ModelCheckpoint(tmp_path, "first")
    fit(save, enable_checkpointing=True, max_epochs=1)
    monitor = make_monitor()
    fit(monitor, ckpt_path=tmp_path / "first.ckpt", max_epochs=3)
    assert [row["epoch"] for row in monitor.history] == [1, 2]
    assert all("tansens/test_loss/layer_norm" in row for row in monitor.history)


def test_two_monitors_with_different_prefixes(tmp_path):
    one, two = make_monitor(), make_monitor(prefix="second", seed=5)
    save = ModelCheckpoint(tmp_path, "last")
    trainer = fit(one, two, save, enable_checkpointing=True)
    alone = make_monitor(prefix="second", seed=5)
    fit(alone)
    assert untimed(two.history) == untimed(alone.history)
    assert {"tansens/test_loss/empirical", "second/test_loss/empirical"} <= set(trainer.callback_metrics)
    assert {one.state_key, two.state_key} <= set(torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"])
    assert one.state_key != two.state_key


def test_two_monitors_with_one_prefix_are_refused():
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        fit(make_monitor(), make_monitor())
