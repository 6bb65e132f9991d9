"""Finding the reference and the test sets of a Trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sized
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_tansens.monitor.subsets import Subset

Data = DataLoader[Any] | Dataset[Any]


def reference_data(trainer: pl.Trainer, reference: str | Data) -> tuple[str, Data]:
    """Returns the reference set's name in the logged keys, and its data.

    Args:
        trainer: The Trainer, once its loop is set up.
        reference: "train", "val", a DataLoader or a Dataset.

    Raises:
        MisconfigurationException: If the Trainer does not have that set, or has several.

    """
    if not isinstance(reference, str):
        return "reference", reference
    loaders: Any = _training_data(trainer) if reference == "train" else _validation_data(trainer)
    if isinstance(loaders, (list, tuple)) and len(loaders) == 1:
        loaders = loaders[0]
    if not isinstance(loaders, DataLoader):
        came = f"{type(loaders).__name__} of {len(loaders)}" if isinstance(loaders, Sized) else type(loaders).__name__
        came = came if loaders else "none"
        raise MisconfigurationException(
            f"reference={reference!r}: expected the Trainer to have one {reference} DataLoader, but got {came}; pass the "
            "labelled reference itself, as a DataLoader or a Dataset: TangentSensitivityMonitor(reference=...)"
        )
    return reference, loaders


def test_data(trainer: pl.Trainer, test_dataloaders: Data | Mapping[str, Data] | None) -> dict[str, Data]:
    """Returns the test sets by their names in the logged keys.

    Args:
        trainer: The Trainer.
        test_dataloaders: A set, sets by name, or None for the datamodule's own (prepared by its ``setup("test")``), or
            the LightningModule's.

    Raises:
        MisconfigurationException: If there is no test set.

    """
    found: Any = test_dataloaders if test_dataloaders is not None else _own_test_data(trainer)
    if isinstance(found, (list, tuple)):
        found = {"test" if len(found) == 1 else f"test_{i}": data for i, data in enumerate(found)}
    if not isinstance(found, Mapping):
        found = {"test": found}
    if not found or not all(isinstance(data, (DataLoader, Dataset)) for data in found.values()):
        raise MisconfigurationException(
            "expected a test set (labels are not needed), but the Trainer's datamodule and LightningModule have none; pass "
            "one to the callback: TangentSensitivityMonitor(test_dataloaders=...)"
        )
    return dict(found)


def draw_subset(
    trainer: pl.Trainer, name: str, data: Data, num_samples: int, batch_size: int, seed: int, head: int | None = None
) -> Subset:
    """Draws this process's share of a fixed subset, and warns where the set is smaller than asked for.

    Args:
        trainer: The Trainer.
        name: The set's name, for messages.
        data: Where the samples come from.
        num_samples: The number of samples of all processes.
        batch_size: The number of samples in a batch.
        seed: Names the subset.
        head: The number of samples on which the measures are taken; None for all.

    Raises:
        MisconfigurationException: If no subset can be drawn.

    """
    try:
        subset = Subset(data, num_samples, batch_size, seed, trainer.global_rank, trainer.world_size, head=head)
    except ValueError as error:
        raise MisconfigurationException(f"the {name} set cannot be measured: {error}") from error
    measured = head or num_samples
    if len(subset) < measured:
        rank_zero_warn(
            f"lightning-tansens: the {name} set has {len(subset)} samples, fewer than num_samples={measured}; all of "
            "them are used"
        )
    return subset


def has_validation(trainer: pl.Trainer) -> bool:
    """Whether a fit validates: its data may turn out to be an empty list."""
    data = _validation_data(trainer)
    return trainer.enable_validation and not (isinstance(data, (list, tuple)) and not data)


def _training_data(trainer: pl.Trainer) -> Any:
    if trainer.train_dataloader is not None:
        return trainer.train_dataloader
    return _own_data(trainer, TrainerFn.FITTING, "train_dataloader")  # no fit has loaded it


def _validation_data(trainer: pl.Trainer) -> Any:
    if trainer.val_dataloaders is not None:
        return trainer.val_dataloaders
    if trainer.state.fn != TrainerFn.FITTING:
        return _own_data(trainer, TrainerFn.FITTING, "val_dataloader")
    if not trainer.enable_validation:
        return None
    # without a sanity check, the Trainer loads it only before the first epoch that validates
    with isolate_rng():
        return trainer.fit_loop.epoch_loop.val_loop._data_source.dataloader()


def _own_test_data(trainer: pl.Trainer) -> Any:
    if trainer.state.fn == TrainerFn.TESTING:
        return trainer.test_dataloaders
    return _own_data(trainer, TrainerFn.TESTING, "test_dataloader")


def _own_data(trainer: pl.Trainer, stage: TrainerFn, hook: str) -> Any:
    """What the datamodule (after its own ``setup``), or else the LightningModule, has for another stage."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    with isolate_rng():
        if datamodule is not None and is_overridden(hook, datamodule):
            own = copy.copy(datamodule)  # what setup replaces stays as it is for the training
            own.setup(stage.value)
            return getattr(own, hook)()
        if is_overridden(hook, trainer.lightning_module):
            return getattr(trainer.lightning_module, hook)()
    return None


def find_network(pl_module: pl.LightningModule, name: str | None) -> nn.Module:
    """Returns the submodule of that name, or the LightningModule itself for None.

    Raises:
        MisconfigurationException: If there is no such submodule.

    """
    if name is None:
        return pl_module
    try:
        return pl_module.get_submodule(name)
    except AttributeError:
        names = [child for child, _ in pl_module.named_children()]
        raise MisconfigurationException(
            f"network={name!r}: expected the name of a submodule of {type(pl_module).__name__}, whose children are {names}"
        ) from None


def batch_transfer(trainer: pl.Trainer) -> Callable[[Any], Any]:
    """Returns the way of a batch to the device: precision, the module's hooks, the strategy."""

    def transfer(batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    return transfer
