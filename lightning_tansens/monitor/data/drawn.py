"""Draws the subsets of a Trainer's sets."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_tansens.monitor.data.subsets import CacheBudget, Subset
from lightning_tansens.monitor.data.trainer_data import Found, by_name
from lightning_tansens.monitor.processes import largest, together
from lightning_tansens.show.notices import tell


def draw_subset(
    trainer: pl.Trainer,
    name: str,
    found: Found,
    num_samples: int,
    batch_size: int,
    seed: int,
    head: int | None = None,
    budget: CacheBudget | None = None,
) -> Subset:
    """Draws this process's share of a fixed subset, of all samples where the set is smaller than asked for.

    Args:
        trainer: The Trainer.
        name: The set's name, for messages.
        found: Where the samples come from.
        num_samples: The number of samples of all processes.
        batch_size: The number of samples in a batch.
        seed: Decides which subset is drawn.
        head: The number of samples on which the measures are taken; None for all.
        budget: The memory in which the samples are kept; None for a budget of its own.

    Raises:
        MisconfigurationException: If no subset can be drawn.
    """
    try:
        return Subset(
            found.data,
            num_samples,
            batch_size,
            seed,
            trainer.global_rank,
            trainer.world_size,
            head,
            budget,
            original=not _is_trained_on(trainer, found.data),
            tell=partial(_tell_of, name),
        )
    except ValueError as error:
        raise MisconfigurationException(f"the {name} set cannot be measured: {error}") from error


def small_note(subsets: Mapping[str, Subset], num_samples: int) -> str | None:
    """Returns what to say of sets that have fewer samples than were asked for; None if there are none."""
    small = ", ".join(f"{name} {len(subset)}" for name, subset in subsets.items() if len(subset) < num_samples)
    return f"of sets with fewer samples than num_samples={num_samples} all are used: {small}" if small else None


def _tell_of(name: str, note: str) -> None:
    tell(f"the {name} set: {note}")


def agree(trainer: pl.Trainer, subsets: Sequence[Subset]) -> None:
    """Makes all processes draw the same subsets, in case each has followed a sampler that shows it other samples.

    All processes must call it, with subsets of the same sets.
    """
    agreed: list[tuple[Subset, list[int]]] = []
    for subset in subsets if trainer.world_size > 1 else ():
        numbers = subset.followed and all(isinstance(key, int) for key in subset.keys)
        # all processes take part, even those with nothing to say, so that none waits for another
        longest, shortest, any_followed = largest(trainer, [subset.length, -subset.length, int(numbers)])
        if not any_followed:
            continue
        seen = torch.zeros(longest, dtype=torch.int32)
        seen[list(subset.keys) if numbers else []] = 1
        keys = [key for key, visited in enumerate(largest(trainer, seen)) if visited]
        if numbers and longest == -shortest and keys != list(subset.keys):  # else each process has data of its own
            agreed.append((subset, keys))
    with together(trainer):
        for subset, keys in agreed:
            subset.draw_from(keys)


def _is_trained_on(trainer: pl.Trainer, data: Any) -> bool:
    """Whether the Trainer or its datamodule reads these data, or what they are a part of."""
    loaded = [trainer.train_dataloader, trainer.val_dataloaders, trainer.test_dataloaders]
    held = list(vars(getattr(trainer, "datamodule", None) or nn.Module()).values())
    read = {
        id(part)
        for loader in [*(loader for own in loaded for loader in by_name(own).values()), *held]
        for part in _parts(loader)
    }
    return any(id(part) in read for part in _parts(data))


def _parts(data: Any) -> Iterator[Any]:
    """Yields a loader, its data set, and the data sets that this one wraps."""
    yield data
    wrapped = [getattr(data, "dataset", None), *(getattr(data, "datasets", None) or ())]
    for part in wrapped:
        if part is not None:
            yield from _parts(part)
