"""A batch passes the hooks of the stage that its set belongs to, and the Trainer's own stage is put back."""

from contextlib import suppress

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_tansens import (
    FreshEarlyStopping,
    FreshModelCheckpoint,
    GeneralizationBoundMonitor,
    TangentSensitivityMonitor,
)
from lightning_tansens.monitor.data.transfer import in_stage, to_device
from tests.boring import BoringData, BoringModule, Points, fit, loader, make_monitor, make_trainer, mlp, untimed
from tests.tiers import cases

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
    "accelerator": "cpu",
    "max_epochs": 2,
}


def spoil(batch):
    return [batch[0] + 100 * torch.rand(1), *batch[1:]]


TOLD = []  # what the hooks were told; a module would forget it with the measurement


class Augmenting(BoringModule):
    """Spoils batches in the stages for which ``guard`` holds."""

    def __init__(self, guard):
        super().__init__(lr=0.0)
        self.guard = guard

    def on_after_batch_transfer(self, batch, dataloader_idx):
        TOLD.append((self.trainer.state.fn.value, self.trainer.state.stage.value, dataloader_idx, len(batch)))
        return spoil(batch) if self.guard(self) else batch

    def validation_step(self, batch, _, dataloader_idx=0):
        pass


class AugmentingBefore(Augmenting):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch

    on_before_batch_transfer = Augmenting.on_after_batch_transfer


class AugmentingData(BoringData):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return spoil(batch) if self.trainer.training else batch


GUARDS = {
    "the Trainer trains": lambda module: module.trainer.training,
    "its stage": lambda module: module.trainer.state.stage == "train",
    "the module trains": lambda module: module.training,
    "a part of it trains": lambda module: module.network[0].training,
    "no test and no validation": lambda module: not (module.trainer.testing or module.trainer.validating),
}


def values(monitor):
    return [{key: value for key, value in row.items() if key not in ("epoch", "step")} for row in untimed(monitor.history)]


KINDS = {"after": Augmenting, "before": AugmentingBefore, "the datamodule's": AugmentingData}
AUGMENTED = {
    f"{guard}, {kind}, {'validated' if validation else 'not validated'}": (guard, KINDS[kind], validation)
    for guard in GUARDS
    for kind in KINDS
    for validation in (False, True)
    if guard == "the Trainer trains" or kind != "the datamodule's"  # which asks the Trainer alone
}
BY_DEFAULT = (
    *(f"{guard}, after, validated" for guard in GUARDS),
    *("the Trainer trains, before, validated", "a part of it trains, before, not validated"),
    "the Trainer trains, the datamodule's, not validated",
)


@pytest.fixture(scope="module")
def plain_values():
    """What is measured without augmentation, without and with a validation."""
    found = []
    for validation in (False, True):
        plain = make_monitor()
        fit(plain, module=lambda: BoringModule(lr=0.0), data=BoringData(validation=validation))
        found.append(values(plain))
    return found


@pytest.mark.parametrize(("guard", "kind", "validation"), cases(AUGMENTED, *BY_DEFAULT))
def test_augmentation_for_the_training_touches_no_set(guard, kind, validation, plain_values):
    augmented = make_monitor()
    with torch.no_grad():
        if kind is AugmentingData:
            fit(augmented, module=lambda: BoringModule(lr=0.0), data=AugmentingData(validation=validation))
        else:
            fit(augmented, module=lambda: kind(GUARDS[guard]), data=BoringData(validation=validation))
    assert values(augmented) == plain_values[validation]
    assert values(augmented)[0] == values(augmented)[1]


def test_augmentation_without_a_guard_repeats():
    monitor = make_monitor()
    fit(monitor, module=lambda: Augmenting(lambda module: True))
    assert values(monitor)[0] == values(monitor)[1]


def test_hooks_are_told_stage_and_loader():
    module = Augmenting(lambda module: False)
    monitor = make_monitor(reference="val:1")
    trainer = make_trainer(monitor, num_sanity_val_steps=0, max_epochs=1)

    class Several(BoringData):
        def val_dataloader(self):
            return [loader(Points(8, seed=1)), loader(Points(10, seed=2))]

        def test_dataloader(self):
            return [loader(Points(8, seed=3, labels=None)), loader(Points(8, seed=4, labels=None))]

    TOLD.clear()
    trainer.fit(module, datamodule=Several())
    told = {entry[:3] for entry in TOLD}
    assert {("fit", "validate", 1), ("test", "test", 0), ("test", "test", 1), ("fit", "train", 0)} <= told
    assert all(stage == "test" for _, stage, _, length in TOLD if length == 1)
    assert [measured.name for measured in monitor._run.sets] == ["val", "test_0", "test_1"]


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("namespace", [pl, pytorch_lightning])
def test_the_stage_is_put_back(stage, namespace):
    trainer = namespace.Trainer(**QUIET)
    states = namespace.trainer.states
    for fn, running in (("fit", "train"), ("validate", "validate"), ("fit", None)):
        trainer.state.fn, trainer.state.stage = states.TrainerFn(fn), running and states.RunningStage(running)
        before = trainer.state.fn, trainer.state.stage
        with suppress(KeyError), in_stage(trainer, stage):
            assert trainer.testing == (stage == "test")
            assert trainer.validating == (stage == "validate")
            assert not trainer.training
            assert trainer.state.fn == ("fit" if (fn, stage) == ("fit", "validate") else stage)
            raise KeyError
        assert (trainer.state.fn, trainer.state.stage) == before


def test_frozen_parts_keep_their_modes():
    modes = []

    class Frozen(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.network[1].eval()
            modes.append([part.training for part in pl_module.modules()])
            TOLD.clear()
            to_device(trainer, (torch.zeros(2, 4),))
            modes.append([part.training for part in pl_module.modules()])

    class Asked(BoringModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            TOLD.append([part.training for part in self.modules()])
            return batch

    fit(Frozen(), module=lambda: Asked(mlp(extra=[nn.BatchNorm1d(6)])), max_epochs=1)
    assert not any(TOLD[-1])
    assert modes[0] == modes[1]
    assert len(set(modes[0])) == 2


# ------------------------------------------------------------------------------------------------ the datamodule's stages


class Staged(BoringData):
    """Counts its stages, and in its ``setup`` forgets the other one's data."""

    calls = ()

    def __init__(self, clear):
        super().__init__()
        self.sets, self.clear = {}, clear

    def setup(self, stage):
        Staged.calls = (*Staged.calls, f"setup {getattr(stage, 'value', stage)}")
        if self.clear == "in place":
            self.sets.clear()
        elif self.clear == "anew":
            self.sets = {}
        self.sets["test" if stage == "test" else "fit"] = Points(10, seed=2) if stage == "test" else Points()

    def teardown(self, stage):
        Staged.calls = (*Staged.calls, f"teardown {getattr(stage, 'value', stage)}")

    def train_dataloader(self):
        return loader(self.sets["fit"])

    def test_dataloader(self):
        return loader(self.sets["test"])


@pytest.mark.parametrize("clear", [None, "anew", "in place"])
def test_stages_come_in_pairs_and_the_training_keeps_its_own(clear):
    rows, weights = [], []
    for monitors in ([], [make_monitor()], [make_monitor(), make_monitor(prefix="other")]):
        Staged.calls, data = (), Staged(clear)
        trainer = fit(*monitors, data=data, reload_dataloaders_every_n_epochs=1)
        weights.append([parameter.detach().clone() for parameter in trainer.lightning_module.parameters()])
        assert sorted(Staged.calls) == sorted(
            ["setup fit", "teardown fit", *["setup test", "teardown test"] * len(monitors)]
        )
        assert list(data.sets) == ["fit"]
        rows += [untimed(monitor.history) for monitor in monitors[:1]]
    assert rows[0] == rows[1]
    assert all(torch.equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other))


def test_stages_end_with_a_run_that_fails():
    class Failing(BoringModule):
        def training_step(self, batch, index):
            raise RuntimeError("stop")

    Staged.calls = ()
    with pytest.raises(RuntimeError, match="stop"):
        fit(make_monitor(), module=Failing, data=Staged(None))
    assert Staged.calls.count("teardown test") == Staged.calls.count("setup test") == 1


class Handle:
    def __reduce_ex__(self, protocol):
        raise TypeError("cannot be pickled")


@pytest.mark.parametrize("fault", ["handle", "setup", "loader"])
def test_a_datamodule_of_one_stage_is_refused(fault):
    class Single(BoringData):
        def __init__(self):
            super().__init__()
            self.handle = Handle() if fault == "handle" else None

        def setup(self, stage):
            if fault == "setup" and stage == "test":
                raise OSError("no such server")

        def test_dataloader(self):
            return loader(self.test.missing) if fault == "loader" else loader()

    came = {"handle": "holds a Handle", "setup": "OSError: no such server", "loader": "AttributeError"}[fault]
    with pytest.raises(
        MisconfigurationException, match=f"expected Single.test_dataloader to give data.*{came}.*pass these data"
    ):
        fit(make_monitor(), data=Single())
    fit(make_monitor(test_dataloaders=Points(10, seed=2)), data=Single())  # the way out


# ------------------------------------------------------------------------------------------------------- choosing a set


class NoValidation(pl.LightningModule):
    """No validation_step, as in a project that measures elsewhere."""

    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, _):
        batch = batch["labelled"] if isinstance(batch, dict) else batch
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_validation_data_without_a_validation_step():
    monitor = make_monitor(reference="val", test_dataloaders=Points(10, seed=2))
    fit(monitor, module=NoValidation, data=(loader(), loader(Points(8, seed=1))))
    assert "tansens/val_loss" in monitor.history[0]
    monitor = make_monitor(reference="val")
    fit(monitor, module=NoValidation, data=BoringData(validation=True))
    assert "tansens/val_loss" in monitor.history[0]
    monitor = make_monitor(reference="val", test_dataloaders=Points(10, seed=2))
    fit(monitor, data=BoringData(validation=True), limit_val_batches=0)
    assert "tansens/val_loss" in monitor.history[0]


def test_the_validation_data_as_the_target():
    monitor = make_monitor(reference="train", test_dataloaders="val")
    fit(monitor, data=BoringData(validation=True))
    expected = make_monitor(reference="train", test_dataloaders={"validation": Points(8, seed=1)})
    fit(expected, data=BoringData(validation=True))
    assert untimed(monitor.history) == untimed(expected.history)
    with pytest.raises(ValueError, match="expected other data than the reference's, but got 'val' for both"):
        make_monitor(reference="val", test_dataloaders="val")


COMBINED = {
    "dict": {"labelled": loader(), "other": loader(Points(9, seed=5))},
    "nested": {"labelled": loader(), "other": [loader(Points(9, seed=5))]},
    "combined": pl.utilities.CombinedLoader({"labelled": loader(), "other": loader(Points(9, seed=5))}, "max_size_cycle"),
}


@pytest.mark.parametrize("name", COMBINED)
def test_one_of_several_training_loaders(name):
    monitor = make_monitor(reference="train:labelled", test_dataloaders=Points(10, seed=2))
    fit(monitor, module=NoValidation, data=COMBINED[name])
    expected = make_monitor(reference=Points(), test_dataloaders=Points(10, seed=2))
    fit(expected, module=NoValidation, data=COMBINED[name])
    assert monitor.history[0]["tansens/train_loss"] == expected.history[0]["tansens/reference_loss"]
    other = "train:other.0" if name == "nested" else "train:other"
    with pytest.raises(
        MisconfigurationException,
        match=f"to have one train DataLoader, but got dict of 2; choose one of .*'{other}', or pass",
    ):
        fit(make_monitor(test_dataloaders=Points()), module=NoValidation, data=COMBINED[name])


@pytest.mark.parametrize("reference", ["val:2", "val:x"])
def test_a_loader_that_there_is_not(reference):
    with pytest.raises(
        MisconfigurationException, match="of that name, but got none; choose one of 'val:0', 'val:1', or pass"
    ):
        fit(make_monitor(reference=reference), data=(loader(), [loader(), loader()]))


@pytest.mark.parametrize("choice", ["test", "val:", "vals:1", ""])
def test_a_choice_is_checked_when_the_monitor_is_made(choice):
    with pytest.raises(
        ValueError, match=r"reference: expected one of \['train', 'val'\] or a DataLoader or a Dataset, but got"
    ):
        make_monitor(reference=choice)
    with pytest.raises(ValueError, match="test_dataloaders: expected one of"):
        make_monitor(test_dataloaders=choice)


def test_batches_in_a_list_are_a_reference():
    inputs, labels = Points(12).inputs, Points(12).labels
    batches = [(inputs[i : i + 4], labels[i : i + 4]) for i in range(0, 12, 4)]

    class Batches(IterableDataset):
        def __iter__(self):
            return iter(batches)

    monitor = make_monitor(num_samples=12, num_loss_samples=12, test_dataloaders=Points(10, seed=2))
    fit(monitor, data=DataLoader(Batches(), batch_size=None))
    expected = make_monitor(num_samples=12, num_loss_samples=12, test_dataloaders=Points(10, seed=2))
    fit(expected, data=DataLoader(TensorDataset(inputs, labels), 4))
    assert monitor.history[0]["tansens/train_loss"] == pytest.approx(expected.history[0]["tansens/train_loss"])


class Opening(Dataset):
    """Holds a handle of which there is one."""

    def __init__(self):
        self.handle, self.points = Handle(), Points()

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index]


def test_training_data_that_cannot_be_copied_are_refused_and_the_way_out_works():
    data = Opening()
    for wrapped in (data, torch.utils.data.Subset(data, range(8)), torch.utils.data.ConcatDataset([data, data])):
        with pytest.raises(
            MisconfigurationException, match=r"the train set cannot be measured: .* holds a Handle .* pass the"
        ):
            fit(make_monitor(test_dataloaders=Points()), data=loader(wrapped))
        with pytest.raises(MisconfigurationException, match="the reference set cannot be measured"):
            fit(make_monitor(reference=data, test_dataloaders=Points()), data=loader(wrapped))
        fit(make_monitor(reference=Opening(), test_dataloaders=Opening()), data=loader(wrapped))


# ---------------------------------------------------------------------------------------------------- pytorch_lightning


def project(namespace):
    """The same module, data and Trainer of one namespace."""

    class Module(namespace.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = mlp()

        forward = BoringModule.forward
        training_step = BoringModule.training_step
        configure_optimizers = BoringModule.configure_optimizers
        lr, loss = 0.1, "cross_entropy"

        def validation_step(self, batch, _):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        def test_step(self, batch, batch_idx):
            self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

    class Data(namespace.LightningDataModule):
        train_dataloader, test_dataloader, setup = BoringData.train_dataloader, BoringData.test_dataloader, BoringData.setup
        val_dataloader = BoringData.val_dataloader
        loader_args, noise, validation, shuffle = {"batch_size": 4}, False, True, True

    namespace.seed_everything(0, verbose=False)
    return Module(), Data()


@pytest.mark.parametrize("reference", ["val", pytest.param("train", marks=pytest.mark.thorough)])
def test_both_namespaces_measure_the_same(reference, tmp_path):
    histories = []
    for namespace in (pl, pytorch_lightning):
        module, data = project(namespace)
        monitor = make_monitor(reference=reference)
        assert isinstance(monitor, TangentSensitivityMonitor)
        logger = namespace.loggers.CSVLogger(tmp_path / namespace.__name__)
        trainer = namespace.Trainer(callbacks=[monitor], **{**QUIET, "logger": logger, "default_root_dir": tmp_path})
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
        histories.append(untimed(monitor.history))
    assert len(histories[0]) == 3
    assert histories[0] == histories[1]


def test_sets_of_the_other_namespace_s_module():
    module, _ = project(pytorch_lightning)
    type(module).test_dataloader = lambda self: loader(Points(10, seed=2))
    monitor = make_monitor()
    pytorch_lightning.Trainer(callbacks=[monitor], **QUIET).fit(module, loader())
    assert "tansens/empirical/test" in monitor.history[0]


OTHERS = {
    "bound": (GeneralizationBoundMonitor(num_samples=7), 2),
    "early stopping": (FreshEarlyStopping("tansens/test_loss/empirical", patience=1, mode="max", min_delta=1e9), 2),
    "checkpoints": (FreshModelCheckpoint(monitor="tansens/test_loss/empirical"), 3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_callbacks_in_the_other_namespace(name, tmp_path):
    callback, epochs = OTHERS[name]
    module, data = project(pytorch_lightning)
    options = {**QUIET, "default_root_dir": tmp_path, "enable_checkpointing": True, "max_epochs": 3}
    trainer = pytorch_lightning.Trainer(callbacks=[make_monitor(), callback], **options)
    trainer.fit(module, datamodule=data)
    if name == "bound":
        assert [row["epoch"] for row in callback.history] == [0, 1, 2]
        return
    assert trainer.current_epoch == epochs
    if name == "checkpoints":
        best = torch.load(callback.best_model_path, weights_only=True)
        assert "pytorch-lightning_version" in best
        assert callback.best_model_score == min(callback.best_k_models.values())
