"""Measurements in ``Trainer.validate`` and ``Trainer.test``."""

import copy

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.boring import BoringData, BoringModule, Points, fit, loader, make_monitor, make_trainer, measured, untimed

STAGES = ("validate", "test")


def evaluate(trainer, stage, module=None, **kwargs):
    return getattr(trainer, stage)(module or trainer.lightning_module, verbose=False, **kwargs)


def values(row):
    return {key: value for key, value in row.items() if "/" in key and not key.endswith("/seconds")}


@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("stage", STAGES)
def test_an_evaluation_measures_what_the_fit_measured_last(stage, inference_mode):
    monitor = make_monitor(on_failure="raise")
    data = BoringData(validation=True)
    trainer = fit(monitor, data=data, inference_mode=inference_mode)
    state = copy.deepcopy(monitor.state_dict())
    (results,) = evaluate(trainer, stage, datamodule=data)
    assert not any(key.startswith("tansens/") for key in results)  # the table that is printed does not grow
    results = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert len(monitor.history) == 3
    before, now = values(monitor.history[1]), values(monitor.history[2])
    assert now.keys() == before.keys()
    same = [key for key in now if not ("_loss/layer_norm" in key or "_accuracy/layer_norm" in key)]
    assert [now[key] for key in same] == pytest.approx([before[key] for key in same], rel=1e-12)
    # the weights have not moved since the last measurement, with which this one is compared
    assert now["tansens/test_loss/layer_norm"] == now["tansens/train_loss"]
    assert {key: results[key] for key in now} == pytest.approx(now)
    after = monitor.state_dict()
    assert after.pop("records")[:2] == state.pop("records")
    assert after == state


@pytest.mark.parametrize("stage", STAGES)
def test_an_evaluation_needs_no_fit(stage):
    monitor = make_monitor(on_failure="raise", compare_with_labels=True)
    trainer = make_trainer(monitor)
    evaluate(trainer, stage, BoringModule(), datamodule=BoringData(validation=True))
    assert measured(trainer) == {key.removeprefix("tansens/") for key in monitor.history[0] if "/" in key}


def test_an_evaluation_of_a_checkpoint_continues_its_history(tmp_path):
    data = BoringData(validation=True)
    monitor = make_monitor()
    fit(monitor, ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1), data=data, enable_checkpointing=True)
    again = make_monitor(on_failure="raise")
    evaluate(make_trainer(again), "test", BoringModule(), datamodule=data, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert untimed(again.history[:1]) == untimed(monitor.history[:1])
    assert again.history[1]["tansens/empirical/test"] == pytest.approx(monitor.history[0]["tansens/empirical/test"])


class Bare(BoringModule):
    """Has no data of its own."""


@pytest.mark.parametrize("stage", STAGES)
def test_without_a_reference_the_evaluation_is_left_alone_with_a_warning(stage):
    trainer = make_trainer(make_monitor(test_dataloaders=loader()))
    with pytest.warns(UserWarning, match="expected the Trainer to have one train DataLoader, but got none"):
        assert evaluate(trainer, stage, Bare(), dataloaders=loader())[0].keys() == {f"{stage[:4].rstrip('i')}_loss"}
    assert not measured(trainer)
    with pytest.raises(MisconfigurationException, match="pass the labelled reference itself"):
        evaluate(
            make_trainer(make_monitor(test_dataloaders=loader(), on_failure="raise")), stage, Bare(), dataloaders=loader()
        )


def test_the_validated_loader_is_the_reference_and_the_tested_one_the_test_set():
    validated, tested = loader(Points(8, seed=1)), loader(Points(10, seed=2))
    in_fit = make_monitor(test_dataloaders=tested, reference=validated)
    trainer = fit(in_fit, data=loader(), max_epochs=1)
    for stage, monitor, data in (
        ("validate", make_monitor(test_dataloaders=tested, reference="val", on_failure="raise"), validated),
        ("test", make_monitor(reference=validated, on_failure="raise"), tested),
    ):
        evaluate(make_trainer(monitor), stage, trainer.lightning_module, dataloaders=data)
        key = "tansens/test_loss/empirical"
        assert monitor.history[0][key] == pytest.approx(in_fit.history[0][key])


def test_predictions_are_left_alone():
    monitor = make_monitor()
    data = BoringData()
    trainer = fit(monitor, data=data, max_epochs=1)
    data.predict_dataloader = lambda: loader(Points())
    trainer.predict(trainer.lightning_module, datamodule=data)
    assert len(monitor.history) == 1
    assert not measured(trainer)


def test_loaders_of_a_fit_are_known_to_a_test_that_follows():
    monitor = make_monitor(test_dataloaders=Points(10, seed=2))
    trainer = fit(monitor, data=loader())
    of_fit = dict(monitor.history[-1])
    trainer.test(trainer.lightning_module, loader(Points(10, seed=2)), verbose=False)
    assert len(monitor.history) == 3
    assert monitor.history[-1]["tansens/test_loss/empirical"] == of_fit["tansens/test_loss/empirical"]
