"""Takes a share of the training data away from the training, as a labelled reference."""

import inspect
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler, Subset

from lightning_tansens.show.notices import tell

#: What the loader of fewer samples has of its own.
_OWN = ("dataset", "sampler", "batch_sampler", "shuffle")


class HeldOut:
    """Stands between a Trainer and the source of its training data, and holds a share of the samples back.

    The Trainer may ask for the loader whenever it likes, and again in later epochs; the same samples, which the seed names,
    are held back.
    """

    def __init__(self, source: Any, share: float, seed: int) -> None:
        self._source, self._share, self._seed = source, share, seed
        self._order: list[int] = []
        #: The samples that are held back; None before the Trainer has asked for its loader.
        self.data: Dataset[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy that is being made has no source yet
            raise AttributeError(name)
        return getattr(self._source, name)

    def dataloader(self) -> DataLoader[Any]:
        """Returns the Trainer's loader without the samples that are held back.

        Raises:
            MisconfigurationException: If it is not a plain DataLoader over all samples of a data set.
        """
        loader: Any = self._source.dataloader()
        dataset: Any = getattr(loader, "dataset", None)
        sampler: Any = getattr(loader, "sampler", None)
        plain = type(loader) is DataLoader and loader.batch_size is not None
        shuffled = type(sampler) is RandomSampler and not sampler.replacement
        if not plain or not (shuffled or type(sampler) is SequentialSampler):
            raise self._refusal(f"a {type(loader).__name__}" + (f" with a {type(sampler).__name__}" if sampler else ""))
        samples = len(dataset)
        if sampler.data_source is not dataset or len(sampler) != samples:
            raise self._refusal(f"a {type(sampler).__name__} of {len(sampler)} of {samples} samples")
        if self._order and len(self._order) != samples:
            raise self._refusal(f"{samples} samples where there were {len(self._order)} before")
        count = round(self._share * samples)
        if not 0 < count < samples:
            raise self._refusal(f"{count} of {samples} samples")
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(self._seed)).tolist()
        self._order, left = order, Subset(dataset, sorted(order[count:]))
        if self.data is None:
            tell(
                f"reference={self._share} holds {count:,} of the {samples:,} training samples "
                "out of the training, as the labelled reference"
            )
        self.data = Subset(dataset, sorted(order[:count]))
        settings = {name: getattr(loader, name) for name in inspect.signature(DataLoader).parameters if name not in _OWN}
        own = RandomSampler(left, generator=sampler.generator) if shuffled else SequentialSampler(left)
        return DataLoader(left, sampler=own, **settings)

    def _refusal(self, came: str) -> MisconfigurationException:
        return MisconfigurationException(
            f"reference={self._share}: expected one training DataLoader that visits each sample of its data set, of which "
            f"some are left on either side, but got {came}; split the data yourself and pass the held-out part: "
            "TangentSensitivityMonitor(reference=...)"
        )


def hold_out(trainer: pl.Trainer, share: float, seed: int, stages: ExitStack) -> HeldOut:
    """Holds a share of the training data, not loaded yet, back from the fit that begins, until ``stages`` are closed.

    Raises:
        MisconfigurationException: If another monitor holds data back.
    """
    loop = trainer.fit_loop
    source: Any = loop._data_source
    if isinstance(source, HeldOut):
        raise MisconfigurationException(
            f"reference={share}: expected one monitor that holds training data back, but another one of this Trainer does; "
            "pass this one a labelled reference: TangentSensitivityMonitor(reference=...)"
        )
    held: Any = HeldOut(source, share, seed)
    stages.callback(setattr, loop, "_data_source", source)
    loop._data_source = held
    return held  # type: ignore[no-any-return]
