"""A number as the reference takes that share of the training data away from the training."""

import copy
import pickle

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    WeightedRandomSampler,
)

from tests.boring import BoringData, BoringModule, Points, Recorder, fit, make_monitor, make_trainer

TARGET = Points(10, seed=2, labels=None)


def held_monitor(share=0.25, **kwargs):
    return make_monitor(reference=share, test_dataloaders=TARGET, **kwargs)


def test_held_out_samples_are_the_reference_and_are_not_trained_on():
    monitor, recorder = held_monitor(), Recorder()
    data = Points(12)
    fit(monitor, recorder, data=DataLoader(data, 4, shuffle=True))
    held = monitor._run.sets[0]
    assert held.name == "reference"
    reference = held.batches.inputs(range(3))
    trained = torch.cat([batch[0] for _, batch in recorder.losses])
    assert len(reference) == 3
    assert len(trained) == 2 * 9
    everything = {tuple(row) for row in torch.cat([reference, trained]).tolist()}
    assert everything == {tuple(row) for row in data.inputs.tolist()}


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_training_is_that_on_the_samples_that_are_left(shuffle):
    runs = []
    for own in (True, False):
        monitor, recorder = held_monitor(), Recorder()
        data = Points(12)
        if own:
            fit(monitor, recorder, data=DataLoader(data, 4, shuffle=shuffle))
            kept = sorted(set(range(12)) - set(monitor.held_out.data.indices))
        else:
            fit(recorder, data=DataLoader(Subset(data, kept), 4, shuffle=shuffle))
        runs.append(recorder)
    assert len(runs[0].losses) == len(runs[1].losses) == 6
    for (loss, batch), (other, same) in zip(runs[0].losses, runs[1].losses, strict=True):
        assert loss == other
        assert torch.equal(batch[0], same[0])
    for weights, same in zip(runs[0].weights, runs[1].weights, strict=True):
        assert all(torch.equal(weights[name], same[name]) for name in weights)


class CountsSteps(BoringModule):
    """Asks for the training data before the fit has loaded them."""

    def configure_optimizers(self):
        self.steps = self.trainer.estimated_stepping_batches
        return super().configure_optimizers()


def test_the_same_samples_are_held_back_whenever_the_trainer_asks():
    monitor = held_monitor()
    trainer = fit(monitor, module=CountsSteps, data=BoringData(), reload_dataloaders_every_n_epochs=1, max_epochs=3)
    assert trainer.lightning_module.steps == 3 * 3  # nine samples in batches of four
    assert trainer.global_step == 9
    first = list(monitor.held_out.data.indices)
    again = held_monitor()
    fit(again, data=BoringData())
    assert list(again.held_out.data.indices) == first
    other = held_monitor(seed=1)
    fit(other, data=BoringData())
    assert list(other.held_out.data.indices) != first


def test_the_trainer_has_its_data_back_after_the_fit():
    monitor = held_monitor()
    trainer = fit(monitor, data=BoringData())
    assert len(trainer.fit_loop._data_source.dataloader().dataset) == 12
    trainer.validate(trainer.lightning_module, DataLoader(Points(8, seed=1), 4), verbose=False)
    assert "tansens/reference_loss" in monitor.history[-1]

    class Fails(BoringModule):
        def on_train_epoch_end(self):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(monitor, module=Fails, data=BoringData())
    trainer = fit(monitor, data=BoringData())
    assert trainer.global_step == 2 * 3


def test_without_a_fit_nothing_is_held_out():
    monitor = held_monitor(on_failure="raise")
    with pytest.raises(MisconfigurationException, match=r"reference=0\.25: expected a fit, which holds these samples out"):
        make_trainer(monitor).validate(BoringModule(), DataLoader(Points(8, seed=1), 4), verbose=False)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Points())


class OwnLoader(DataLoader):
    pass


REFUSED = {
    "a weighted sampler": lambda data: DataLoader(data, 4, sampler=WeightedRandomSampler([1.0] * 12, 12)),
    "with replacement": lambda data: DataLoader(data, 4, sampler=RandomSampler(data, replacement=True)),
    "batches of its own": lambda data: DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 4, False)),
    "a loader of its own": lambda data: OwnLoader(data, 4),
    "a part of the samples": lambda data: DataLoader(data, 4, sampler=SequentialSampler(range(8))),
    "fewer samples an epoch": lambda data: DataLoader(data, 4, sampler=RandomSampler(data, num_samples=4)),
    "a stream": lambda data: DataLoader(Stream(), 4),
    "several loaders": lambda data: [DataLoader(data, 4), DataLoader(data, 4)],
    "too few samples": lambda data: DataLoader(Subset(data, [0]), 1),
}


@pytest.mark.parametrize("loader", REFUSED.values(), ids=REFUSED)
def test_data_of_which_no_share_can_be_taken_are_refused(loader):
    with pytest.raises(MisconfigurationException, match=r"reference=0\.25: expected one training DataLoader"):
        fit(held_monitor(), data=loader(Points(12)))


@pytest.mark.parametrize("share", [0.0, 1.0, 2.5, float("nan")])
def test_a_share_lies_between_none_and_all(share):
    with pytest.raises(ValueError, match="reference: expected a number between 0 and 1"):
        held_monitor(share)


def test_a_sampler_keeps_its_generator():
    orders = []
    for seed in (0, 1):
        recorder, data = Recorder(), Points(12)
        sampler = RandomSampler(data, generator=torch.Generator().manual_seed(3))
        fit(held_monitor(), recorder, data=DataLoader(data, 4, sampler=sampler), seed=seed)
        orders.append(torch.cat([batch[0] for _, batch in recorder.losses]))
    assert torch.equal(*orders)


def test_two_monitors_do_not_both_hold_data_back():
    with pytest.raises(MisconfigurationException, match="expected one monitor that holds training data back"):
        fit(held_monitor(), held_monitor(prefix="other"), data=BoringData())


def test_a_monitor_that_held_data_back_can_be_copied():
    monitor = held_monitor()
    fit(monitor, data=BoringData())
    assert copy.deepcopy(monitor.held_out).data.indices == monitor.held_out.data.indices
    assert len(pickle.loads(pickle.dumps(monitor.held_out)).data) == 3


class Grows(BoringData):
    """Has a sample more at each epoch."""

    def train_dataloader(self):
        self.samples = getattr(self, "samples", 11) + 1
        return DataLoader(Points(self.samples), 4)


def test_a_training_set_that_changes_its_length_is_refused():
    with pytest.raises(MisconfigurationException, match="13 samples where there were 12 before"):
        fit(held_monitor(), data=Grows(), reload_dataloaders_every_n_epochs=1)
