"""Samplers and streams of every kind: a subset of what they visit, from the seed alone, within bounds."""

import collections
import itertools
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from lightning_tansens.monitor.data import subsets
from lightning_tansens.monitor.data.batches import is_batch, rows
from lightning_tansens.monitor.data.drawn import agree
from lightning_tansens.monitor.data.sources import STREAMED
from lightning_tansens.monitor.data.subsets import CacheBudget, Subset

NUMBERS = TensorDataset(torch.arange(100.0))
ASKED = collections.UserList()  # of a module: a copy of a stream would keep what it remembers itself; a list is refused
Pair = collections.namedtuple("Pair", "x y")


class Visits(Sampler):
    """Visits what a function yields, anew each time."""

    def __init__(self, function):
        self.function = function

    def __iter__(self):
        return iter(self.function())

    def __len__(self):
        return 100


def endless(choices):
    return lambda: itertools.cycle(choices)


def random_forever():
    while True:
        yield from torch.randperm(100).tolist()  # from the global state, unseeded


def own_generator():
    class Unseeded(Sampler):
        def __init__(self):
            self.generator = torch.Generator()
            self.generator.seed()

        def __iter__(self):
            return iter(torch.randint(100, (60,), generator=self.generator).tolist())

    return Unseeded()


class OwnOrder(BatchSampler):
    """Batches of a few classes, as few-shot learning has them; what it is built on says nothing."""

    def __iter__(self):
        return iter([[10, 11], [12, 11]])


EVEN = list(range(0, 100, 2))
SAMPLERS = {
    "endless": ({"sampler": Visits(endless(range(100)))}, list(range(100))),
    "endless, of a part": ({"sampler": Visits(endless(EVEN))}, EVEN),
    "endless and random": ({"sampler": Visits(random_forever)}, list(range(100))),
    "endless batches": ({"batch_sampler": Visits(endless([[1, 2], [4, 3]]))}, [1, 2, 3, 4]),
    "empty batches forever": ({"batch_sampler": Visits(endless([[]]))}, list(range(100))),
    "tensors": ({"sampler": Visits(lambda: torch.tensor([3, 5]))}, [3, 5]),
    "own batch sampler": ({"batch_sampler": OwnOrder(range(100), 2, False)}, [10, 11, 12]),
    "weights": ({"sampler": WeightedRandomSampler(torch.arange(100.0) % 2, 3)}, list(range(1, 100, 2))),
    "few weights": ({"sampler": WeightedRandomSampler([1.0, 0.0, 1e-9], 3)}, [0, 2]),
    "all weights zero": ({"sampler": WeightedRandomSampler([0.0] * 100, 3)}, list(range(100))),
    "lists without batches": ({"sampler": BatchSampler(Visits(lambda: EVEN), 4, False), "batch_size": None}, EVEN),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_subset_of_what_the_sampler_visits(name):
    arguments, expected = SAMPLERS[name]
    subset = Subset(DataLoader(NUMBERS, **arguments), 1000, 8)
    assert sorted(subset.indices) == expected
    assert sorted(value for batch in subset for value in batch[0].tolist()) == expected


@pytest.mark.parametrize(
    "make",
    [own_generator, lambda: Visits(lambda: torch.randint(100, (60,)).tolist())],
    ids=["own generator", "global state"],
)
def test_unseeded_samplers_follow_the_monitor_s_seed(make):
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(Subset(DataLoader(NUMBERS, sampler=make()), 20, 8).indices)
    assert drawn[0] == drawn[1]
    assert Subset(DataLoader(NUMBERS, sampler=make()), 20, 8, seed=1).indices != drawn[0]


class ByKey(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, key):
        name, size = key
        return torch.full((2,), float(size)), name


class Processes:
    """Trainers of processes that are threads, which exchange what they reduce."""

    def __init__(self, count):
        self.count, self.barrier, self.values = count, threading.Barrier(count, timeout=20), [None] * count

    def reduce(self, rank, value, operation):
        self.values[rank] = value
        self.barrier.wait()
        result = operation(self.values)
        self.barrier.wait()
        return result

    def trainer(self, rank):
        largest = lambda values: torch.stack(values).amax(0)  # noqa: E731
        strategy = types.SimpleNamespace(
            root_device="cpu",
            reduce=lambda value, reduce_op: self.reduce(rank, value, largest),
            reduce_boolean_decision=lambda value: self.reduce(rank, value, all),
        )
        return types.SimpleNamespace(world_size=self.count, strategy=strategy)


def sharded(rank):
    return DataLoader(NUMBERS, sampler=Visits(lambda: range(rank, 100, 2)))


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (sharded, set(range(100))),
        (lambda rank: DataLoader(NUMBERS, sampler=Visits(lambda: range(rank, 50, 2))), set(range(50))),
        (lambda rank: DataLoader(NUMBERS, shuffle=True), set(range(100))),
        (lambda rank: DataLoader(ByKey(), sampler=[("a", 1), ("b", 2)]), {("a", 1), ("b", 2)}),
        (lambda rank: DataLoader(Stream(lambda: X), batch_size=4), set(range(20))),
        (lambda rank: DataLoader(TensorDataset(X[: 10 + rank]), sampler=Visits(lambda: range(10 + rank))), None),
    ],
    ids=["shards", "shards of a part", "shuffled", "keys", "stream", "data of their own"],
)
def test_processes_agree_on_what_a_sampler_visits(loader, expected):
    processes = Processes(2)
    drawn = [Subset(loader(rank), 20, 8, rank=rank, world_size=2) for rank in range(2)]
    before = [list(subset.indices) for subset in drawn]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rank: agree(processes.trainer(rank), [drawn[rank]]), range(2)))
    if expected is None:
        assert [subset.indices for subset in drawn] == before
        return
    assert set(drawn[0].keys) == set(drawn[1].keys) == expected
    assert drawn[0].indices == drawn[1].indices


def test_keys_that_are_no_numbers():
    keys = [("a", 1), ("b", 2), ("c", 3)]
    subset = Subset(DataLoader(ByKey(), sampler=keys), 10, 4)
    assert {(name, float(x[0])) for x, name in zip(*next(iter(subset)))} == set(keys)


class ByList(Dataset):
    """Takes lists of keys alone, as BatchSampler without batches gives them."""

    def __len__(self):
        return 10

    def __getitem__(self, keys):
        assert isinstance(keys, list)
        return torch.tensor(keys).float(), torch.stack([torch.full((2,), float(key)) for key in keys])


def test_a_data_set_of_lists():
    loader = DataLoader(ByList(), sampler=BatchSampler(Visits(lambda: range(10)), 4, False), batch_size=None)
    subset = Subset(loader, 10, 4)
    for key, x in subset:
        assert torch.equal(x, key[:, None].expand(-1, 2))
    assert sorted(torch.cat([key for key, _ in subset]).tolist()) == list(range(10))


class Stream(IterableDataset):
    def __init__(self, elements):
        self.elements = elements

    def __iter__(self):
        return iter(self.elements())


class PreBatched(Dataset):
    def __init__(self, elements):
        self.elements = elements

    def __len__(self):
        return len(self.elements)

    def __getitem__(self, index):
        return self.elements[index]


X, Y = torch.arange(120.0).reshape(40, 3), torch.arange(40)
BATCHES = {
    "tuples": lambda: [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)],
    "tuples of one": lambda: [(X[i : i + 8],) for i in range(0, 40, 8)],
    "tensors": lambda: list(X.split(8)),
    "lists": lambda: [[X[i : i + 8], Y[i : i + 8].tolist()] for i in range(0, 40, 8)],
    "dicts": lambda: [{"x": X[i : i + 8], "y": Y[i : i + 8]} for i in range(0, 40, 8)],
    "named tuples": lambda: [Pair(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)],
    "arrays": lambda: [(X[i : i + 8].numpy(), Y[i : i + 8].numpy()) for i in range(0, 40, 8)],
    "uneven": lambda: [(X[:5], Y[:5]), (X[5:], Y[5:])],
}
LOADERS = {
    "stream": lambda batches: DataLoader(Stream(batches), batch_size=None),
    "data set": lambda batches: DataLoader(PreBatched(batches()), batch_size=None),
    "endless stream": lambda batches: DataLoader(Stream(lambda: itertools.cycle(batches())), batch_size=None),
    "list": lambda batches: batches(),
}


def inputs_of(batch):
    batch = list(batch.values()) if isinstance(batch, dict) else batch
    return batch if isinstance(batch, torch.Tensor) else batch[0]


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("loader", LOADERS)
def test_batches_are_split_into_samples(kind, loader):
    if loader == "list" and kind == "arrays":
        pytest.skip("a Trainer converts no arrays of a list")
    subset = Subset(LOADERS[loader](BATCHES[kind]), 12, 5)
    found = list(subset)
    assert [len(inputs_of(batch)) for batch in found] == [5, 5, 2]
    assert type(found[0]) in (dict, list, tuple, Pair, torch.Tensor)
    samples = {tuple(row.tolist()) for batch in found for row in inputs_of(batch)}
    assert samples <= {tuple(row.tolist()) for row in X}
    assert len(samples) == 12 or loader == "endless stream"
    for batch in found if kind not in ("tensors", "tuples of one") else ():
        x, y = batch.values() if isinstance(batch, dict) else batch
        assert torch.equal(x[:, 0].long() // 3, torch.as_tensor(y))
    assert inputs_of(found[0]).untyped_storage().nbytes() < 40 * 3 * 4, "a view keeps the stream's batches"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((torch.zeros(3, 2), torch.zeros(3)), True),
        ((torch.zeros(3, 2), torch.zeros(2)), False),
        ((torch.zeros(3, 2), torch.tensor(1)), False),
        ((torch.zeros(3, 2), 1), False),
        ((torch.zeros(3, 2), "name"), False),
        ((torch.zeros(3, 2), ["a", "b", "c"]), True),
        ({"x": np.zeros((3, 2))}, True),
        (torch.zeros(4), False),
        (torch.zeros(0, 4), False),
        ([], False),
    ],
)
def test_what_a_batch_is(value, expected):
    assert is_batch(value) is expected


def test_rows_of_nested_batches():
    first, second = rows({"a": (torch.zeros(2, 3), ["p", "q"]), "b": [np.ones((2, 1))], "c": 3})
    assert first["a"][1] == "p"
    assert second["b"][0].shape == (1,)
    assert second["c"] == 3


def test_a_stream_of_single_samples_without_batches():
    loader = DataLoader(Stream(lambda: ((X[i], int(Y[i])) for i in range(40))), batch_size=None)
    x, y = next(iter(Subset(loader, 12, 12)))
    assert torch.equal(x[:, 0].long() // 3, y)


def test_a_stream_sorted_by_class_is_drawn_from_ten_times_as_many():
    def sorted_by_class():
        for i in range(10_000):
            ASKED.append(i)
            yield torch.tensor([i // 50])

    subset = Subset(Stream(sorted_by_class), 40, 40)
    (batch,) = subset
    assert max(ASKED) < STREAMED * 40 == subset.available
    shares = torch.bincount(batch.flatten(), minlength=8)
    assert len(shares) == 8
    assert shares.min() > 0
    other = Subset(Stream(sorted_by_class), 40, 40, seed=1)
    assert not torch.equal(next(iter(other)), batch)
    assert torch.equal(next(iter(Subset(Stream(sorted_by_class), 40, 40))), batch)


def test_each_sample_of_a_stream_is_as_likely():
    counts = torch.zeros(20)
    for seed in range(400):
        counts[torch.stack(Subset(Stream(lambda: torch.arange(20)), 5, 5, seed=seed)._drawn)] += 1
    assert float((counts - 100).abs().max()) < 5 * (400 * 0.25 * 0.75) ** 0.5


def test_a_stream_of_random_samples_repeats():
    stream = Stream(lambda: (torch.rand(3) for _ in range(30)))
    torch.manual_seed(5)
    first = list(Subset(stream, 8, 3))
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(first, Subset(stream, 8, 3)))
    assert torch.equal(torch.get_rng_state(), state)


class Lines(IterableDataset):
    """Yields the length of what it holds, which runs out."""

    def __init__(self, held):
        self.held = held

    def __iter__(self):
        return (torch.tensor([len(str(element))]) for element in self.held)


def test_a_stream_over_a_generator_is_refused_and_not_read():
    stream = Lines(i for i in range(30))
    with pytest.raises(ValueError, match=r"Lines\.held holds a generator"):
        Subset(stream, 8, 3)
    assert len(list(stream)) == 30
    own = Lines(i for i in range(30))
    assert len(Subset(own, 8, 3, original=True)) == 8


def test_a_stream_over_an_open_file():
    with open(__file__) as file:
        subset = Subset(Lines(file), 8, 3)
        assert file.tell() == 0
    assert len(torch.cat(list(subset))) == 8


def test_one_budget_for_all_subsets(monkeypatch):
    reads = []

    class Counted(TensorDataset):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(subsets, "CACHE_BYTES", 2 * 10 * 4)
    budget = CacheBudget()
    sets = [Subset(Counted(torch.arange(10.0)), 10, 4, seed=seed, budget=budget) for seed in range(3)]
    passes = []
    for _ in range(2):
        for subset in sets:
            reads.clear()
            assert sum(len(batch[0]) for batch in subset) == 10
            passes.append(len(reads))
    assert passes == [10, 10, 10, 0, 0, 10]
    assert budget.left == 0
    next(iter(Subset(Counted(torch.arange(10.0)), 10, 4, budget=(own := CacheBudget()))))
    assert own.left == 80  # a pass that was broken off gives back what it took


def test_a_set_that_does_not_fit_gives_back_what_its_first_batches_took(monkeypatch):
    monkeypatch.setattr(subsets, "CACHE_BYTES", 20)  # a batch of four samples, and not two
    data, budget = TensorDataset(torch.arange(10.0)), CacheBudget()
    assert sum(len(batch[0]) for batch in Subset(data, 10, 4, budget=budget)) == 10
    assert budget.left == 20
    smaller = Subset(data, 5, 5, budget=budget)
    list(smaller)
    assert smaller._cache is not None


def test_a_stream_of_a_million_is_bounded_by_the_subset():
    yielded = itertools.count()
    subset = Subset(Stream(lambda: (torch.tensor([next(yielded)]) for _ in range(1_000_000))), 50, 20)
    assert len(subset._drawn) == len(subset) == 50
    list(subset)
    assert subset._cache is None  # they are in memory already


class Shards(IterableDataset):
    """As sets of shards are streamed: it has a length, remembers where it is, and gives each worker its own shards."""

    def __init__(self, shards, samples):
        self.shards, self.samples, self.at = shards, samples, 0

    def __len__(self):
        return self.shards * self.samples

    def state_dict(self):
        return {"at": self.at}

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for shard in range(first, self.shards, step):
            for sample in range(self.samples):
                self.at += 1
                yield {"x": torch.tensor([float(shard), float(sample)])}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_that_is_streamed_from_shards_is_drawn_once_and_stays_where_it_is(workers):
    data = Shards(1000, 1000)
    loader = DataLoader(data, batch_size=16, num_workers=workers)
    subset = Subset(loader, 20, 8)
    assert subset.available == STREAMED * 20
    found = [torch.cat([batch["x"] for batch in subset]) for _ in range(2)]
    assert torch.equal(*found)
    assert len({tuple(row) for row in found[0].tolist()}) == 20
    assert data.state_dict() == {"at": 0}
