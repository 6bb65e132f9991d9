"""Finding the reference and the test sets of a Trainer."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset

from lightning_tansens.monitor.data.copying import Copier
from lightning_tansens.monitor.data.shared import SharedWriteError, unwritten
from lightning_tansens.monitor.data.transfer import Stage, Transfer, to_device
from lightning_tansens.monitor.module import defines
from lightning_tansens.tangent.isolation import isolated_rng

# without parameters, which jsonargparse does not resolve from YAML
Data = DataLoader | Dataset

#: The Trainer's sets that can be chosen by name.
STAGES = ("train", "val")


@dataclass(frozen=True)
class Found:
    """Data, and where the Trainer uses them."""

    data: Any  #: A DataLoader, a Dataset or an iterable of batches.
    stage: Stage = "validate"  #: What the Trainer does with such data.
    dataloader_idx: int = 0  #: Which of the stage's loaders it is.

    def transfer(self, trainer: pl.Trainer) -> Transfer:
        """Returns a callable that moves a batch of these data to the device."""
        return partial(to_device, trainer, stage=self.stage, dataloader_idx=self.dataloader_idx)


def check_choice_of_set(name: str, value: str) -> None:
    """Checks that a name is "train" or "val", with one of several loaders after a colon ("val:1").

    Raises:
        ValueError: If it is not.
    """
    if value.partition(":")[0] not in STAGES or value.endswith(":"):
        raise ValueError(
            f"{name}: expected one of {list(STAGES)} or a DataLoader or a Dataset, but got {value!r}; one of several "
            "loaders is chosen by its position or name ('val:1', 'train:labelled')"
        )


def reference_data(trainer: pl.Trainer, reference: str | Data, stages: ExitStack | None = None) -> tuple[str, Found]:
    """Returns the reference set's name in the logged keys, and its data.

    Args:
        trainer: The Trainer, once its loop is set up.
        reference: "train", "val", one of several by position or name ("val:1", "train:labelled"), "auto" for the validation
            data if a fit validates, else the training data, a DataLoader or a Dataset.
        stages: Where to register the datamodule's ``teardown``, if its ``setup`` has to be called for these data.

    Raises:
        MisconfigurationException: If the Trainer does not have that set, or has several.
    """
    if not isinstance(reference, str):
        return "reference", Found(reference)
    held, asked = None, reference
    if reference == "auto":  # one call of the user's val_dataloader, to find out and to have the data
        held = _loaders(trainer, "val", stages) if trainer.enable_validation else []
        reference = "train" if _is_empty(held) else "val"
    stage, _, which = reference.partition(":")
    if held is None or stage == "train":
        held = _loaders(trainer, stage, stages)
    loaders = by_name(held)
    name = which or next(iter(loaders), "")
    if name not in loaders or (not which and len(loaders) > 1):
        came = f"{type(held).__name__} of {len(loaders)}" if loaders and not which else "none"
        expected = f"a {stage} DataLoader of that name" if which else f"the Trainer to have one {stage} DataLoader"
        if asked == "auto" and not loaders:
            expected = "the Trainer to have validation or training data"
        choices = ", ".join(f"'{stage}:{name}'" for name in loaders)
        raise MisconfigurationException(
            f"reference={asked!r}: expected {expected}, but got {came}; "
            f"{f'choose one of {choices}, or ' if loaders else ''}pass the labelled reference itself, as a DataLoader or a "
            "Dataset: TangentSensitivityMonitor(reference=...)"
        )
    return stage, Found(loaders[name], "validate", list(loaders).index(name))


def test_data(
    trainer: pl.Trainer,
    test_dataloaders: Data | Mapping[str, Data] | str | None,
    stages: ExitStack | None = None,  # noqa: PT028  (it is no test)
) -> dict[str, Found]:
    """Returns the test sets by their names in the logged keys.

    Args:
        trainer: The Trainer.
        test_dataloaders: A set, sets by name, "val" for the validation data ("val:1" for one of several), or None for the
            datamodule's own (prepared by its ``setup("test")``), or the LightningModule's.
        stages: Where to register the datamodule's ``teardown``.

    Raises:
        MisconfigurationException: If there is no test set.
    """
    found: Any = test_dataloaders
    if isinstance(found, str):
        _, held = reference_data(trainer, found, stages)
        return {"validation" if found.startswith("val") else "training": held}
    if found is None and trainer.state.fn == TrainerFn.TESTING:
        found = trainer.test_dataloaders
    elif found is None:
        found = _own_data(trainer, TrainerFn.TESTING, "test_dataloader", stages)
    if isinstance(found, Mapping) and test_dataloaders is not None:
        named = dict(found)
    else:
        loaders = by_name(found)
        named = {f"test_{name}" if name.isdigit() else name: data for name, data in loaders.items()}
        if len(named) == 1 and not isinstance(found, Mapping):
            named = {"test": next(iter(named.values()))}
    if not named or not all(isinstance(data, (DataLoader, Dataset)) for data in named.values()):
        raise MisconfigurationException(
            "expected a test set (labels are not needed), but the Trainer's datamodule and LightningModule have none; pass "
            "one to the callback: TangentSensitivityMonitor(test_dataloaders=...)"
        )
    own = test_dataloaders is None
    return {name: Found(data, "test", place if own else 0) for place, (name, data) in enumerate(named.items())}


def has_validation(trainer: pl.Trainer) -> bool:
    """Says whether a fit validates: its data may turn out to be an empty list."""
    return bool(trainer.enable_validation) and not _is_empty(_loaders(trainer, "val"))


def _is_empty(loaders: Any) -> bool:
    return isinstance(loaders, (list, tuple)) and not loaders


def _loaders(trainer: pl.Trainer, stage: str, stages: ExitStack | None = None) -> Any:
    """Returns what the Trainer has loaded, or would load, for training or validation."""
    loaded = trainer.train_dataloader if stage == "train" else trainer.val_dataloaders
    if loaded is not None:
        return loaded
    if trainer.state.fn != TrainerFn.FITTING:
        return _own_data(trainer, TrainerFn.FITTING, f"{stage}_dataloader", stages)
    # without a sanity check, the Trainer loads validation data only before the first epoch that validates, and never
    # without a validation_step
    source = trainer.fit_loop.epoch_loop.val_loop._data_source if stage == "val" else trainer.fit_loop._data_source
    with isolated_rng():
        return source.dataloader() if source.instance is not None and source.is_defined() else None


def _own_data(trainer: pl.Trainer, stage: TrainerFn, hook: str, stages: ExitStack | None) -> Any:
    """Returns the datamodule's data for another stage (from a copy after its ``setup``), or the LightningModule's."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    owner = datamodule if defines(datamodule, hook) else trainer.lightning_module
    if not defines(owner, hook):
        return None
    with isolated_rng():
        try:
            if owner is datamodule:
                owner = _set_up(datamodule, stage.value)
                if stages is not None:
                    stages.callback(owner.teardown, stage.value)
            return getattr(owner, hook)()
        except Exception as error:  # what the user's hooks raise
            raise MisconfigurationException(
                f"expected {type(owner).__name__}.{hook} to give data while another stage is running (a datamodule after "
                f"setup({stage.value!r}) on a copy of it), but got {type(error).__name__}: {error}; pass these data "
                "themselves: TangentSensitivityMonitor(test_dataloaders=..., reference=...)"
            ) from error


def _set_up(datamodule: Any, stage: str) -> Any:
    """Returns a copy of the datamodule in another stage, so that its setup changes nothing for the training."""
    try:
        copier = Copier()
        own = copier.copy(datamodule)
        with unwritten(copier.shared):
            own.setup(stage)
    except SharedWriteError:
        own = Copier(share=False).copy(datamodule)
        own.setup(stage)
    return own


def by_name(loaders: Any, name: str = "") -> dict[str, Any]:
    """Returns loaders by position or name, from what a Trainer takes: one, a list, a dict or a CombinedLoader of them."""
    loaders = getattr(loaders, "iterables", loaders)
    if isinstance(loaders, Mapping):
        items: Iterable[tuple[Any, Any]] = loaders.items()
    elif isinstance(loaders, (list, tuple)):
        items = enumerate(loaders)
    else:
        return {} if loaders is None else {name or "0": loaders}
    flat: dict[str, Any] = {}
    for key, held in items:
        flat |= by_name(held, f"{name}.{key}" if name else str(key))
    return flat
