"""A fixed random subset of a data set: the same samples in every epoch and for every number of processes."""

import copy
import sys
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from lightning_tansens.monitor.data.shared import SharedWriteError, no_file_left_open, nothing_shared_changes
from lightning_tansens.monitor.data.sources import Opened, Source
from lightning_tansens.tangent.isolation import sample_seed
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE
from lightning_tansens.tangent.tracing import bytes_in

#: Up to this size in total, a monitor keeps its subsets in memory; they are the same at every measurement.
CACHE_BYTES = 256 * 2**20

#: No permutation is drawn for a set with more samples, as it takes 8 bytes a sample.
LARGE = 2**24


class CacheBudget:
    """The memory that the subsets of one monitor may take together; a subset that does not fit is read each time.

    Example:
        >>> budget = CacheBudget()
        >>> budget.take(CACHE_BYTES), budget.take(1)
        (True, False)
    """

    def __init__(self) -> None:
        self.left = CACHE_BYTES

    def take(self, size: int) -> bool:
        """Takes some of it, if enough is left; a negative size gives some back."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


class Subset:
    """Samples drawn once from a data set, and this process's share of them.

    Samples are read from copies of the data set (see :class:`~lightning_tansens.monitor.data.sources.Source`), which is
    itself left alone. The drawing has a generator of its own, and each sample's random transforms are seeded by its index,
    so that a measurement repeats. All samples that a loader's sampler may visit are equally likely, whatever their weights;
    the samples of a stream are drawn from its first ``10 * num_samples``. A stream of batches is split into samples.

    Args:
        data: A DataLoader, whose data set, sampler's range and collate function are used, a Dataset, or an iterable of
            batches.
        num_samples: The number of samples to draw; the whole set if it has fewer.
        batch_size: The number of samples in a batch.
        seed: Seed of the drawing and of the transforms.
        rank: This process's number.
        world_size: The number of processes.
        head: Each batch lies within the first ``head`` samples or behind them; None for no such border.
        budget: The memory in which the samples are kept; None for a budget of its own.
        original: Whether data that cannot be copied may be read themselves.
        tell: Takes a note if a pass over the set takes long.

    Raises:
        ValueError: If the set is empty, or cannot be copied.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.arange(10.0))
        >>> subset = Subset(data, num_samples=4, batch_size=3)
        >>> [len(batch[0]) for batch in subset], len(subset)
        ([3, 1], 4)
    """

    def __init__(
        self,
        data: Any,
        num_samples: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        head: int | None = None,
        budget: CacheBudget | None = None,
        original: bool = False,
        tell: Callable[[str], object] = repr,
    ) -> None:
        self._batch_size, self._seed = batch_size, seed
        self._count, self._head, self._rank, self._world_size = num_samples, head, rank, world_size
        self._borders: set[int] = set()
        self._budget = CacheBudget() if budget is None else budget
        workers = getattr(data, "num_workers", 0) > 0
        try:
            self._read(Source(data, seed, original, tell=tell), workers, original)
        except SharedWriteError:
            self._read(Source(data, seed, original, share=False, tell=tell), workers, original)

    def _read(self, source: Source, workers: bool, original: bool) -> None:
        with no_file_left_open(workers), nothing_shared_changes([] if original else source.parts) as shared:
            self._find(source, shared.put_back)
            if self._drawn is None:
                shared.renew()
                for position in range(min(len(self), 3))[::-1]:
                    self.samples([position])

    def _find(self, source: Source, put_back: Callable[[], None]) -> None:
        self._source = source
        drawn = source.stream(self._count)
        put_back()  # whatever a stream counted in its class
        #: The samples of a stream, which cannot be read again; None for other sets.
        self._drawn: list[Any] | None = None if drawn is None else drawn[0]
        #: Whether a sampler had to be followed to find the keys: processes may have seen different parts of them.
        self.followed = False
        if drawn is None:
            keys, self.followed = source.keys()
            put_back()  # and a sampler that was followed
            self.draw_from(keys)
        else:
            self.draw_from(range(len(drawn[0])), available=drawn[1])
        #: The length of the data set, whether or not a sampler visits all of it; 0 for a stream.
        self.length = source.length
        self.samples([0])

    def draw_from(self, keys: Sequence[Any], available: int | None = None) -> None:
        """Draws from keys, the same on every process, which stand for all available samples (None for as many as keys).

        Raises:
            ValueError: If there are none.
        """
        if not len(keys):
            raise ValueError("expected a set with at least one sample, but it is empty")
        self.keys = keys
        self.available = len(keys) if available is None else available
        self.indices = [keys[place] for place in _drawn(len(keys), self._count, self._seed)]
        self.head = min(self._head or len(self), len(self))
        self.share(self._rank, self._world_size)

    def share(self, rank: int, world_size: int) -> None:
        """Gives this process another share of the samples, by its number and the number of shares."""
        self._rank, self._world_size = rank, world_size
        self._positions = _share(len(self.indices), rank, world_size)
        self._cache: list[Any] | None = None

    def divide(self, position: int) -> None:
        """Lets each batch lie before a position or behind it, so that the first samples can be read alone."""
        if position not in self._borders:
            self._borders.add(position)
            self._cache = None

    def extend(self, num_samples: int | None = None) -> None:
        """Draws further samples, up to that number (None for all), behind those already drawn; a stream has no more."""
        if self._drawn is None:
            self._count = max(self._count, sys.maxsize if num_samples is None else num_samples)
            self.draw_from(self.keys)

    @property
    def fingerprint(self) -> int:
        """Tells whether two runs drew the same samples."""
        return zlib.crc32(repr(self.indices).encode())

    def __len__(self) -> int:
        """The number of samples of all processes."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        """Yields this process's batches."""
        if self._cache is not None:
            yield from map(copy.deepcopy, self._cache)
            return
        cache: list[Any] | None = [] if self._drawn is None else None
        taken = 0
        try:
            opened = self._source.open()
            for positions in self.positions():
                batch = self._batch(opened, positions)
                size = bytes_in(batch)
                if cache is not None and self._budget.take(size):
                    cache.append(copy.deepcopy(batch))
                    taken += size
                elif cache is not None:
                    self._budget.take(-taken)
                    cache, taken = None, 0
                yield batch
            self._cache, taken = cache, 0
        finally:
            self._budget.take(-taken)

    def positions(self) -> list[list[int]]:
        """Returns the positions in the subset of each of this process's batches; they name random probes."""
        size, own = self._batch_size, self._positions
        places = [0, *(bisect_left(own, border) for border in sorted({self.head, *self._borders})), len(own)]
        parts = [own[start:end] for start, end in pairwise(places)]
        return [part[start : start + size] for part in parts for start in range(0, len(part), size)]

    def samples(self, positions: Sequence[int]) -> Any:
        """Returns a batch of the samples at these positions, whichever process measures them."""
        return self._batch(self._source.open(), positions)

    def _batch(self, opened: Opened, positions: Sequence[int]) -> Any:
        keys = [self.indices[position] for position in positions]
        if self._drawn is not None:
            with opened.reading():
                return opened.collate([copy.deepcopy(self._drawn[key]) for key in keys])
        seeds = [sample_seed(self._seed, key if isinstance(key, int) else p) for key, p in zip(keys, positions)]
        with opened.reading():
            return opened.collate([opened.sample(key, seed) for key, seed in zip(keys, seeds)])


def _drawn(available: int, count: int, seed: int) -> list[int]:
    """Returns random places without repetition; for a large set without a permutation of all places."""
    generator = torch.Generator().manual_seed(seed)
    if available <= LARGE or 2 * count > available:
        return torch.randperm(available, generator=generator)[:count].tolist()
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn.update(dict.fromkeys(torch.randint(available, (count - len(drawn),), generator=generator).tolist()))
    return list(drawn)


def _share(count: int, rank: int, world_size: int) -> list[int]:
    """Returns the positions of one process: whole blocks of samples that share a probe, where there are enough of them."""
    block = BLOCK_SIZE if count >= BLOCK_SIZE * world_size else 1
    return [position for position in range(count) if position // block % world_size == rank]
