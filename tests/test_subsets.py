"""The same samples in every epoch and for every number of processes."""

import collections
import random

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_tansens.monitor.data import subsets
from lightning_tansens.monitor.data.subsets import Subset

NUMBERS = TensorDataset(torch.arange(100.0))


class Reads(collections.UserDict):
    """Counts where nobody looks: a copy of a data set would keep what it counts itself."""

    def __missing__(self, index):
        return 0


READS = Reads()


class Augmented(Dataset):
    """Each sample carries noise of three sources."""

    def __init__(self, length=40):
        self.length = length
        READS.clear()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        READS[index] += 1
        return torch.tensor([index, torch.rand(()), np.random.rand(), random.random()], dtype=torch.float64)


class Stream(IterableDataset):
    def __init__(self, length=10):
        self.length = length

    def __iter__(self):
        for i in range(self.length):
            yield torch.tensor([i, torch.rand(())])


def flat(subset):
    return [value for batch in subset for value in batch[0].tolist()]


def rows(subset):
    """All samples of a subset by their index."""
    return {int(row[0]): tuple(row.tolist()) for batch in subset for row in batch}


def random_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), np.random.get_state()[2], random.getstate()


@pytest.mark.parametrize("num_samples", [1, 2, 7, 10, 100, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shares_make_up_the_subset(num_samples, world_size):
    whole = Subset(NUMBERS, num_samples, batch_size=4)
    shares = [Subset(NUMBERS, num_samples, batch_size=4, rank=r, world_size=world_size) for r in range(world_size)]
    assert all(share.indices == whole.indices for share in shares)
    assert {len(share) for share in shares} == {min(num_samples, 100)}
    visited = [flat(share) for share in shares]
    assert sorted(value for share in visited for value in share) == sorted(map(float, whole.indices))
    assert len(set(whole.indices)) == min(num_samples, 100)
    assert max(map(len, visited)) - min(map(len, visited)) <= 32  # probes are drawn in blocks of this size
    assert whole.available == 100
    assert {float(share.samples([0])[0]) for share in shares} == {whole.indices[0]}


@pytest.mark.parametrize(("head", "sizes"), [(None, [4, 4, 2]), (5, [4, 1, 4, 1]), (4, [4, 4, 2]), (99, [4, 4, 2])])
def test_batches_do_not_cross_the_border(head, sizes):
    subset = Subset(NUMBERS, 10, batch_size=4, head=head)
    assert [len(positions) for positions in subset.positions()] == [len(batch[0]) for batch in subset] == sizes
    assert flat(subset) == flat(Subset(NUMBERS, 10, batch_size=4))
    assert subset.head == min(head or 10, 10)


def test_batches_are_divided_where_some_samples_are_read_alone():
    subset = Subset(NUMBERS, 10, batch_size=4, head=3)
    before = flat(subset)
    subset.divide(6)
    assert [len(positions) for positions in subset.positions()] == [len(batch[0]) for batch in subset] == [3, 3, 4]
    assert flat(subset) == before


def test_a_process_without_a_share():
    share = Subset(NUMBERS, 2, batch_size=4, rank=2, world_size=3)
    assert list(share) == []
    assert list(share) == []
    assert len(share) == 2
    assert len(share.samples([0])[0]) == 1


def test_drawing_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = Subset(NUMBERS, 10, 4).indices
    torch.manual_seed(2)
    assert Subset(NUMBERS, 10, 5).indices == first
    assert Subset(NUMBERS, 10, 4, seed=1).indices != first
    assert first != sorted(first)


@pytest.mark.parametrize("batch_size", [1, 4, 40])
@pytest.mark.parametrize("world_size", [1, 3])
def test_augmentation_is_a_sample_s_own(batch_size, world_size):
    expected = rows(Subset(Augmented(), 20, batch_size=7))
    assert len({row[1:] for row in expected.values()}) == 20, "all samples are augmented alike"
    found = {}
    for rank in range(world_size):
        random.seed(rank), np.random.seed(rank), torch.manual_seed(rank)
        found |= rows(Subset(Augmented(), 20, batch_size=batch_size, rank=rank, world_size=world_size))
    assert found == expected
    assert rows(Subset(Augmented(), 20, batch_size=7, seed=1)) != expected


def test_random_states_outside_are_left_alone():
    before = random_states()
    data = DataLoader(Augmented(), batch_size=4, shuffle=True)
    subset = Subset(data, 10, batch_size=4)
    subset.samples([0])
    for _ in range(2):
        for _ in subset:
            assert random_states() == before
    for _ in Subset(Stream(), 5, batch_size=2):
        assert random_states() == before
    Subset(DataLoader(NUMBERS, sampler=WeightedRandomSampler(torch.ones(100), 50)), 10, 5)
    assert random_states() == before


def test_the_second_pass_is_the_first_from_memory():
    data = Augmented()
    subset = Subset(data, 10, batch_size=4)
    first = [batch.clone() for batch in subset]
    reads = dict(READS)
    for batch, expected in zip(subset, first):
        assert torch.equal(batch, expected)
        batch.zero_()  # a yielded batch may be changed
    assert all(torch.equal(batch, expected) for batch, expected in zip(subset, first))
    assert dict(READS) == reads


def test_a_change_in_the_first_pass_does_not_stay():
    subset = Subset(NUMBERS, 10, batch_size=4)
    for batch in subset:
        batch[0].zero_()
    assert sorted(flat(subset)) == sorted(map(float, subset.indices))


def test_a_broken_off_pass_is_not_kept():
    subset = Subset(NUMBERS, 10, batch_size=4)
    next(iter(subset))
    assert len(flat(subset)) == 10
    assert len(flat(subset)) == 10


@pytest.mark.parametrize("kind", ["tensor", "dict", "list"])
def test_a_large_subset_is_loaded_again(kind, monkeypatch):
    data = Augmented()
    wrap = {"tensor": lambda x: x, "dict": lambda x: {"x": x, "scale": 1.0}, "list": lambda x: [x, 1]}[kind]
    collate = lambda samples: wrap(torch.stack(samples))  # noqa: E731
    bytes_of_a_batch = 4 * 4 * 8
    loader = DataLoader(data, collate_fn=collate)
    for limit, passes in [(2 * bytes_of_a_batch, 1), (2 * bytes_of_a_batch - 1, 2)]:
        monkeypatch.setattr(subsets, "CACHE_BYTES", limit)
        subset = Subset(loader, 8, batch_size=4)
        READS.clear()  # one sample was read to try it
        first, second = list(subset), list(subset)
        assert set(READS.values()) == {passes}
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_collate_function_is_used():
    loader = DataLoader(Augmented(), collate_fn=lambda samples: {"x": torch.stack(samples)})
    assert list(next(iter(Subset(loader, 4, 2)))) == ["x"]
    # a loader without batches has a conversion in its place
    loader = DataLoader(Augmented(), batch_size=None)
    assert next(iter(Subset(loader, 4, 2))).shape == (2, 4)


HALF = list(range(50, 100))
SPLITS = {
    "SubsetRandomSampler": lambda: DataLoader(NUMBERS, sampler=SubsetRandomSampler(HALF)),
    "indices as a tensor": lambda: DataLoader(NUMBERS, sampler=SubsetRandomSampler(torch.tensor(HALF))),
    "list": lambda: DataLoader(NUMBERS, sampler=HALF),
    "batch sampler": lambda: DataLoader(NUMBERS, batch_sampler=BatchSampler(SubsetRandomSampler(HALF), 4, False)),
    "wrapped for DDP": lambda: DataLoader(
        NUMBERS, sampler=DistributedSamplerWrapper(SubsetRandomSampler(HALF), num_replicas=2, rank=0)
    ),
    "weights": lambda: DataLoader(
        NUMBERS, sampler=WeightedRandomSampler([0.0] * 50 + [1.0] * 50, 2000, generator=torch.Generator().manual_seed(0))
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_by_a_sampler_is_respected(name):
    subset = Subset(SPLITS[name](), 1000, batch_size=8)
    assert sorted(subset.indices) == HALF
    assert subset.available == 50
    assert sorted(flat(subset)) == HALF


class Opaque:
    """A sampler of something that can be no key."""

    def __iter__(self):
        return iter([{0, 1}, {2, 3}])

    def __len__(self):
        return 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"shuffle": True},
        {"shuffle": False},
        {"sampler": RandomSampler(NUMBERS, num_samples=3)},
        {"sampler": DistributedSampler(NUMBERS, num_replicas=4, rank=1)},
        {"sampler": Opaque()},
        {"sampler": []},
    ],
    ids=["shuffled", "in order", "random", "distributed", "opaque", "empty"],
)
def test_other_samplers_stand_for_the_whole_set(arguments):
    assert sorted(Subset(DataLoader(NUMBERS, **arguments), 1000, 8).indices) == list(range(100))


def test_the_training_s_sampler_is_not_advanced():
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(
        NUMBERS, sampler=WeightedRandomSampler(torch.ones(100), 100, generator=generator), generator=generator
    )
    before = generator.get_state()
    indices = Subset(loader, 10, 5).indices
    assert torch.equal(generator.get_state(), before)
    assert Subset(loader, 10, 5).indices == indices


def test_iterable_sets():
    torch.manual_seed(0)
    stream = Stream()
    subset = Subset(DataLoader(stream, batch_size=3), 6, batch_size=4)
    assert len(rows(subset)) == 6
    assert set(rows(subset)) < set(range(10))
    assert subset.available == 10
    torch.manual_seed(1)  # another process has another state
    shares = [Subset(DataLoader(stream), 6, batch_size=4, rank=r, world_size=2) for r in range(2)]
    assert rows(shares[0]) | rows(shares[1]) == rows(subset)
    assert len(Subset(stream, 1000, 4)) == 10


@pytest.mark.parametrize("data", [TensorDataset(torch.zeros(0)), Stream(0), DataLoader(TensorDataset(torch.zeros(0)))])
def test_empty_sets_are_refused(data):
    with pytest.raises(ValueError, match="expected a set with at least one sample, but it is empty"):
        Subset(data, 10, 5)


def test_a_set_without_a_length_is_refused():
    class Endless(Dataset):
        def __getitem__(self, index):
            return index

    with pytest.raises(
        ValueError, match="expected a data set with a length, but Endless has none; pass a map-style Dataset"
    ):
        Subset(Endless(), 10, 5)


class OwnGenerators(Dataset):
    """Random transforms that draw from generators of their own, as augmentation libraries do."""

    def __init__(self):
        self.transforms = [np.random.default_rng(0), {"a": torch.Generator().manual_seed(0)}]
        self.python, self.legacy = random.Random(0), np.random.RandomState(0)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        numpy, torch_ = self.transforms[0], self.transforms[1]["a"]
        draws = [numpy.random(), self.python.random(), self.legacy.rand(), torch.rand((), generator=torch_).item()]
        return torch.tensor([index, *draws])


def test_generators_of_the_data_set_are_seeded_and_put_back():
    data, untouched = OwnGenerators(), OwnGenerators()
    first = torch.cat(list(Subset(data, 6, 4)))
    assert torch.equal(first, torch.cat(list(Subset(data, 6, 3))))
    assert all(torch.equal(data[i], untouched[i]) for i in range(6))


class Billion(Dataset):
    """A billion samples, each of which is its index."""

    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        return torch.tensor(float(index), dtype=torch.float64)


def test_a_subset_of_a_billion_samples_is_drawn_without_a_permutation_of_them():
    subset = Subset(Billion(), num_samples=4000, batch_size=1000, seed=3)
    other, again = Subset(Billion(), 4000, 1000, seed=4), Subset(Billion(), 5000, 1000, seed=3)
    assert len(set(subset.indices)) == 4000
    assert abs(sum(subset.indices) / 4000 - 5e8) < 5 * 1e9 / (12 * 4000) ** 0.5
    assert again.indices[:4000] == subset.indices
    assert not set(other.indices) & set(subset.indices[:5])
    values = torch.cat(list(subset)).long().tolist()
    assert values == subset.indices
