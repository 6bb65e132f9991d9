"""A fixed random subset of a data set: the same samples in every epoch and for every number of processes."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    default_collate,
)

from lightning_tansens.tangent.isolation import Randomness
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE

#: Up to this size a subset is kept in memory; it is the same at every measurement.
CACHE_BYTES = 256 * 2**20


class Subset:
    """Samples drawn once from a data set, and this process's share of them.

    The drawing has a generator of its own, and each sample's random transforms are seeded by its index, so that a
    measurement repeats. Random states outside are left as they were.

    Args:
        data: A DataLoader, whose data set, sampler's range and collate function are used, or a Dataset.
        num_samples: The number of samples to draw; the whole set if it has fewer.
        batch_size: The number of samples in a batch.
        seed: Seed of the drawing and of the transforms.
        rank: This process's number.
        world_size: The number of processes.
        head: Batches lie within the first ``head`` samples or behind them; None for no such border.

    Raises:
        ValueError: If the set is empty.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.arange(10.0))
        >>> subset = Subset(data, num_samples=4, batch_size=3)
        >>> [len(batch[0]) for batch in subset], len(subset)
        ([3, 1], 4)

    """

    def __init__(
        self,
        data: DataLoader[Any] | Dataset[Any],
        num_samples: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        head: int | None = None,
    ) -> None:
        loader = data if isinstance(data, DataLoader) else None
        self._dataset: Any = loader.dataset if loader is not None else data
        self._collate: Callable[[Any], Any] = getattr(loader, "collate_fn", None) or default_collate
        if loader is not None and loader.batch_size is None and loader.batch_sampler is None:
            self._collate = default_collate  # the loader does not collate: its data set gives single samples
        self._randomness = Randomness(self._dataset)
        with self._randomness.isolated():
            if isinstance(self._dataset, IterableDataset):
                self._randomness.seed(seed)
                self._dataset = list(islice(iter(copy.deepcopy(self._dataset)), num_samples))
                available: Sequence[int] = range(len(self._dataset))
            else:
                available = _available(loader, self._dataset)
        if not len(available):
            raise ValueError("expected a set with at least one sample, but it is empty")
        self.available = len(available)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(available), generator=generator)[:num_samples].tolist()
        self.indices = [available[i] for i in drawn]
        self._positions = _share(len(self.indices), rank, world_size)
        self.head = min(head or len(self), len(self))
        self._batch_size = batch_size
        self._seed = seed
        self._cache: list[Any] | None = None

    def __len__(self) -> int:
        """The number of samples of all processes."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        """Yields this process's batches."""
        if self._cache is not None:
            yield from copy.deepcopy(self._cache)
            return
        cache: list[Any] | None = []
        held = 0
        for positions in self.positions():
            batch = self._load([self.indices[position] for position in positions])
            held += _bytes(batch)
            if cache is not None:
                cache = [*cache, copy.deepcopy(batch)] if held <= CACHE_BYTES else None
            yield batch
        self._cache = cache

    def positions(self) -> list[list[int]]:
        """Returns the positions in the subset of each of this process's batches; they name random probes."""
        size, own = self._batch_size, self._positions
        border = bisect_left(own, self.head)
        parts = own[:border], own[border:]
        return [part[start : start + size] for part in parts for start in range(0, len(part), size)]

    def first(self) -> Any:
        """Returns a batch of one sample, the same on every process, also on one without a share."""
        return self._load(self.indices[:1])

    def samples(self, positions: Sequence[int]) -> Any:
        """Returns a batch of the samples at these positions, whichever process measures them."""
        return self._load([self.indices[position] for position in positions])

    def _load(self, indices: Sequence[int]) -> Any:
        with self._randomness.isolated():
            return self._collate([self._sample(index) for index in indices])

    def _sample(self, index: int) -> Any:
        self._randomness.seed(self._seed * 1_000_003 + index)
        return self._dataset[index]


def _share(count: int, rank: int, world_size: int) -> list[int]:
    """The positions of one process: whole blocks of samples that share a probe, where there are enough of them."""
    block = BLOCK_SIZE if count >= BLOCK_SIZE * world_size else 1
    return [position for position in range(count) if position // block % world_size == rank]


def _available(loader: DataLoader[Any] | None, dataset: Any) -> Sequence[int]:
    """The indices a loader draws from: all, or what a sampler that selects (a split) visits."""
    try:
        everything = range(len(dataset))
    except TypeError:
        raise ValueError(
            f"expected a data set with a length, but {type(dataset).__name__} has none; pass a map-style Dataset"
        ) from None
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", getattr(loader, "sampler", None))
    # Lightning wraps samplers for DDP; what is wrapped says which samples there are
    sampler = getattr(getattr(sampler, "dataset", None), "_sampler", sampler)
    if sampler is None or isinstance(sampler, (RandomSampler, SequentialSampler, DistributedSampler)):
        return everything
    if isinstance(sampler, SubsetRandomSampler):
        return sorted(map(int, sampler.indices))
    try:
        visited = {int(index) for index in copy.deepcopy(sampler)}  # a copy: the training's sampler may hold a state
    except TypeError:
        return everything
    return sorted(visited) or everything


def _bytes(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.numel() * batch.element_size()
    if isinstance(batch, dict):
        return sum(map(_bytes, batch.values()))
    if isinstance(batch, (list, tuple)):
        return sum(map(_bytes, batch))
    return 0
