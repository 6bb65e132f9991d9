"""What a loader reads: which samples there are, and the samples themselves, from a copy of the data set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    WeightedRandomSampler,
    default_collate,
)

from lightning_tansens.monitor.data.batches import is_batch, rows
from lightning_tansens.monitor.data.copying import Copier, CopyError
from lightning_tansens.monitor.data.passes import timed
from lightning_tansens.monitor.data.shared import unwritten
from lightning_tansens.tangent.isolation import Randomness

#: For how many times the length of the data set an endless sampler is followed.
VISITS = 4

#: From how many times its own size a subset of a stream is drawn.
STREAMED = 10

#: These visit all samples, in whatever order and share.
_WHOLE = (RandomSampler, SequentialSampler, DistributedSampler)


class Opened:
    """A copy that may be read, for as long as it lives.

    Args:
        parts: The data set, the loader's collate function and the sampler.
        generators: Random generators that they are known to hold.
        shared: The memory that they share with the training's.
        unbatched: Whether the loader passes on what the data set gives, without making batches.
        by_list: Whether the data set takes lists of keys.
    """

    def __init__(
        self,
        parts: tuple[Any, Callable[[Any], Any], Any],
        generators: Sequence[Any],
        shared: list[tuple[int, int]],
        unbatched: bool,
        by_list: bool,
    ) -> None:
        self.dataset, self._collate, self.sampler = parts
        self._unbatched = unbatched
        self._randomness = Randomness([generators, *parts])
        self._shared, self._by_list = shared, by_list

    @contextmanager
    def reading(self, seed: int = 0) -> Iterator[None]:
        """Leaves random states outside as they were, and lets nobody write to shared memory."""
        with self._randomness.isolated(), unwritten(self._shared):
            self._randomness.seed(seed)
            yield

    def collate(self, samples: list[Any]) -> Any:
        """Makes a batch of samples."""
        return (default_collate if self._unbatched else self._collate)(samples)

    def samples(self, elements: Iterable[Any]) -> Iterator[Any]:
        """Yields the samples of what the data set gives, which may be whole batches if the loader makes none itself."""
        for element in elements:
            converted = self._collate(element) if self._unbatched else element
            if self._unbatched and is_batch(converted):
                yield from rows(converted)
            else:
                yield converted

    def is_batch(self, key: Any) -> bool:
        """Whether the data set gives a whole batch for a key; inside :meth:`reading`."""
        return is_batch(self._collate(self.dataset[key]))

    def sample(self, key: Any, seed: int) -> Any:
        """Returns a sample, whose random transforms have a seed of their own; inside :meth:`reading`."""
        self._randomness.seed(seed)
        return next(rows(self.dataset[[key]])) if self._by_list else self.dataset[key]


class Source:
    """The samples that a loader reads.

    They are read from copies; each copy is made before the first access and dropped afterwards. The data set
    that was given is never called, and no file that a copy opens is still open when workers are forked.

    Args:
        data: A DataLoader, a Dataset, or an iterable of whole batches.
        seed: Seed of samplers and streams.
        original: Whether data that cannot be copied may be read themselves.
        share: Whether copies share large arrays with the data set; writing to them is refused then.
        tell: Takes a note if a pass over the set takes long.

    Raises:
        CopyError: If something cannot be copied.
    """

    def __init__(
        self, data: Any, seed: int, original: bool = False, share: bool = True, tell: Callable[[str], object] = repr
    ) -> None:
        loader = data if isinstance(data, DataLoader) else None
        dataset: Any = data if loader is None else loader.dataset
        collate = getattr(loader, "collate_fn", None) or default_collate
        self._seed, self._share, self._tell = seed, share, tell
        batches = loader is None and not isinstance(data, Dataset)
        self._iterates = batches or isinstance(dataset, IterableDataset)
        #: Whether what the data set gives is a batch for the Trainer.
        self._unbatched = batches or (loader is not None and loader.batch_size is None and loader.batch_sampler is None)
        #: Copies of the data set, the collate function and the sampler, which stay unread.
        self.parts = (dataset, _as_it_is if batches else collate, _sampler(loader))
        self._copies = True
        try:
            self.parts = Copier(share).copy(self.parts)
        except CopyError:
            if not original:
                raise
            self._copies = False
        self._by_list = False
        #: The length of the data set; 0 for a stream.
        self.length = 0

    def open(self) -> Opened:
        """Returns a copy to read."""
        copier = Copier(self._share)
        parts = copier.copy(self.parts) if self._copies else self.parts
        return Opened(parts, copier.generators, copier.shared, self._unbatched, self._by_list)

    def stream(self, count: int) -> tuple[list[Any], int] | None:
        """Returns samples drawn from the first ``10 * count`` of a stream, and how many were seen; None for other data."""
        if not self._iterates and not self._unbatched:
            return None
        keys = [] if self._iterates else list(self.keys()[0])
        opened = self.open()
        with opened.reading(self._seed):
            if self._iterates:
                elements: Iterable[Any] = opened.dataset
            elif self._by_list or not any(map(opened.is_batch, keys[:1])):
                return None
            else:
                order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(self._seed)).tolist()
                elements = (opened.dataset[keys[place]] for place in order)
            limit = STREAMED * count
            most = min(limit, _length(opened.dataset, limit)) if self._iterates else limit
            samples = timed(opened.samples(elements), most, lambda seconds: self._tell(_of_stream(count, most, seconds)))
            return _reservoir(samples, count, limit, self._seed)

    def keys(self) -> tuple[list[Any] | range, bool]:
        """Returns the keys of the samples, and whether a sampler had to be followed to find them.

        Raises:
            ValueError: If the data set has no length.
        """
        opened = self.open()
        with opened.reading(self._seed):
            try:
                everything = range(len(opened.dataset))
            except TypeError:
                came = type(opened.dataset).__name__
                raise ValueError(
                    f"expected a data set with a length, but {came} has none; pass a map-style Dataset"
                ) from None
            self.length = len(everything)
            sampler = opened.sampler
            known = sampler is None or _is_known(sampler)
            if known and isinstance(sampler, SubsetRandomSampler):
                return sorted(map(int, sampler.indices)), False
            if known and isinstance(sampler, WeightedRandomSampler):
                return sampler.weights.nonzero().flatten().tolist() or everything, False
            if known and (sampler is None or isinstance(sampler, _WHOLE)):
                return everything, False
            try:
                followed = timed(sampler, _length(sampler, self.length), lambda seconds: self._tell(_of_sampler(seconds)))
                keys, lists = _visited(followed, self.length)
            except (TypeError, ValueError):  # it names samples in a way of its own
                return everything, False
            self._by_list = lists and self._unbatched
            return keys or everything, True


def _of_stream(count: int, limit: int, seconds: float) -> str:
    return (
        f"to draw {count:,} samples of a stream, the first {limit:,} are read once, which takes about {seconds:.0f} s; "
        "smaller num_samples and Options(num_loss_samples=...) shorten it"
    )


def _of_sampler(seconds: float) -> str:
    return (
        "its sampler is followed once to find the samples that it visits, which takes about "
        f"{seconds:.0f} s; the Dataset instead of its loader needs no such pass"
    )


def _length(sampler: Any, otherwise: int) -> int:
    try:
        return len(sampler)
    except Exception:  # whatever a sampler without a length raises
        return otherwise


def _as_it_is(batch: Any) -> Any:
    return batch


def _sampler(loader: DataLoader[Any] | None) -> Any:
    """Returns the sampler that says which samples there are."""
    if loader is None or isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    whole = batches is None or (_is_known(batches) and hasattr(batches, "sampler"))
    sampler: Any = getattr(batches, "sampler", loader.sampler) if whole else batches
    # Lightning wraps samplers for DDP; what is wrapped says which samples there are
    return getattr(getattr(sampler, "dataset", None), "_sampler", sampler)


def _is_known(sampler: Any) -> bool:
    """Says whether torch or Lightning wrote the code by which a sampler visits its samples."""
    module = getattr(getattr(type(sampler), "__iter__", None), "__module__", None) or ""
    return module.startswith(("torch.", "lightning.", "pytorch_lightning."))


def _visited(sampler: Iterable[Any], length: int) -> tuple[list[Any], bool]:
    """Returns the keys that a sampler visits, sorted if they are numbers, and whether it gives lists of them.

    It stops following an endless sampler once that has visited everything, or after a while.
    """
    visited: dict[Any, None] = {}
    visits, limit, lists = 0, VISITS * max(length, 1000), False
    for key in sampler:
        lists = isinstance(key, list)
        parts = key if lists else [key]
        visited.update((part if isinstance(part, (str, bytes, tuple)) else int(part), None) for part in parts)
        visits += len(parts) or 1
        if visits >= limit or len(visited) >= length:
            break
    keys = list(visited)
    return (sorted(keys) if all(isinstance(key, int) for key in keys) else keys), lists


def _reservoir(stream: Iterator[Any], count: int, limit: int, seed: int) -> tuple[list[Any], int]:
    """Draws samples from the first ``limit`` of a stream, all equally likely."""
    generator = torch.Generator().manual_seed(seed)
    kept: list[Any] = []
    seen = 0
    for sample in islice(stream, limit):
        seen += 1
        if len(kept) < count:
            kept.append(sample)
            continue
        place = int(torch.randint(seen, (), generator=generator))
        if place < count:
            kept[place] = sample
    return kept, seen
