"""Counters, caches and generators that a data set keeps in its class or module are found before the first step."""

import collections
import functools
import random

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler, default_collate
from torch.utils.data import Subset as Part

from lightning_tansens.monitor.data.subsets import Subset
from tests.boring import BoringModule, Points, fit, loader, make_monitor

COUNT, NAMES, TOKENIZER, LOADED, BATCHES = 0, {}, None, {}, 0
SEEN, RECENT, NAN = [], collections.deque(maxlen=2), float("nan")
TORCH, NUMPY, PYTHON, LEGACY = torch.Generator(), np.random.default_rng(0), random.Random(0), np.random.RandomState(0)


class Reads(Dataset):
    """Twelve samples; what reading them does besides is ``also``."""

    count, cache, mean = 0, {}, float("nan")

    def __init__(self, also, transform=None):
        self.also, self.transform = also, transform

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.also(index)
        sample = torch.arange(4.0) + index
        return sample if self.transform is None else self.transform(sample)


class Inherits(Reads):
    pass


def counts_in_the_class(index):
    Reads.count += 1


def caches_in_the_class(index):
    Reads.cache.setdefault(index, index)


def counts_in_the_module(index):
    global COUNT
    COUNT += 1


def counts_in_a_dict(index):
    NAMES["reads"] = NAMES.get("reads", 0) + 1


def appends(index):
    SEEN.append(index)


def keeps_recent(index):
    RECENT.append(index)


class Counts:
    """A transform."""

    calls = 0

    def __call__(self, sample):
        type(self).calls += 1
        return sample


def collate(samples):
    global BATCHES
    BATCHES += 1
    return default_collate(samples)


FOUND = {
    "counter of the class": (lambda: Reads(counts_in_the_class), "Reads.count"),
    "counter of a parent class": (lambda: Inherits(counts_in_the_class), "Reads.count"),
    "cache of the class": (lambda: Reads(caches_in_the_class), "Reads.cache"),
    "counter of the module": (lambda: Reads(counts_in_the_module), "test_shared_state.COUNT"),
    "counter in a dict": (lambda: Reads(counts_in_a_dict), "test_shared_state.NAMES"),
    "list": (lambda: Reads(appends), "test_shared_state.SEEN"),
    "full queue": (lambda: Reads(keeps_recent), "test_shared_state.RECENT"),
    "torch's generator": (lambda: Reads(lambda _: torch.rand(1, generator=TORCH)), "test_shared_state.TORCH"),
    "NumPy's generator": (lambda: Reads(lambda _: NUMPY.random()), "test_shared_state.NUMPY"),
    "NumPy's old generator": (lambda: Reads(lambda _: LEGACY.rand()), "test_shared_state.LEGACY"),
    "Python's generator": (lambda: Reads(lambda _: PYTHON.random()), "test_shared_state.PYTHON"),
    "counter of a transform": (lambda: Reads(id, transform=Counts()), "Counts.calls"),
    "a part of a set of sets": (
        lambda: Part(ConcatDataset([Points(5), Reads(counts_in_the_class)]), range(5, 15)),
        "Reads.count",
    ),
    "collate function": (lambda: DataLoader(Reads(id), collate_fn=collate), "test_shared_state.BATCHES"),
}


def kept():
    """What the classes and this module keep."""
    containers = dict(Reads.cache), dict(NAMES), list(SEEN), list(RECENT)
    generators = TORCH.get_state().tolist(), NUMPY.bit_generator.state, PYTHON.getstate(), repr(LEGACY.get_state())
    return Reads.count, Counts.calls, COUNT, BATCHES, containers, generators


@pytest.mark.parametrize("name", FOUND)
def test_what_a_copy_would_share_is_refused_and_put_back(name):
    make, place = FOUND[name]
    RECENT.extend([-1, -2])
    data, before = make(), kept()
    with pytest.raises(
        ValueError, match=rf"but reading a sample changed \S*{place}, which the training's data and"
    ) as caught:
        Subset(data, 8, 3)
    assert "keep it in an attribute of the data set, or pass the monitor a Dataset of another class" in str(caught.value)
    assert kept() == before
    assert len(Subset(data, 8, 3, original=True)) == 8  # which the training does not read


@functools.lru_cache
def cached(index):
    return index


def loads_once(index):
    global TOKENIZER
    if TOKENIZER is None:
        TOKENIZER = {"a": 1}


def fills_a_registry(index):
    LOADED.setdefault("model", object())


def imports(index):
    global wave
    import wave


HARMLESS = {
    "nothing": lambda: Reads(id),
    "cache of a function": lambda: Reads(cached),
    "loaded at the first access": lambda: Reads(loads_once),
    "registry": lambda: Reads(fills_a_registry),
    "import at the first access": lambda: Reads(imports),
    "global generators": lambda: Reads(lambda _: (torch.rand(1), np.random.rand(), random.random())),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_counts_nothing_is_read(name):
    global TOKENIZER
    TOKENIZER = None
    LOADED.clear()
    assert len(Subset(HARMLESS[name](), 8, 3)) == 8


def test_transforms_of_torchvision_are_no_false_alarm():
    transforms = pytest.importorskip("torchvision.transforms.v2")
    flip = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.ToDtype(torch.float32), transforms.RandomErasing()]
    )
    data = Reads(id, transform=lambda sample: flip(sample.expand(3, 4, 4)))
    assert len(Subset(DataLoader(data), 8, 3)) == 8


class Counted(Points):
    """Augments by how often it was read, in whatever process."""

    reads = 0

    def __getitem__(self, index):
        Counted.reads += 1
        inputs, label = super().__getitem__(index)
        return inputs + 0.01 * Counted.reads, label


@pytest.mark.parametrize("reference", ["train", "Points"])
def test_a_training_that_counts_its_reads_is_refused_or_untouched(reference):
    Counted.reads = 0
    given = Points(12) if reference == "Points" else reference
    monitor = make_monitor(reference=given, test_dataloaders=Points(10, seed=2))
    if reference == "train":
        with pytest.raises(MisconfigurationException, match=r"the train set cannot be measured: .* changed Counted\.reads"):
            fit(monitor, data=loader(Counted()))
        assert Counted.reads == 0
        return
    watched = fit(monitor, data=loader(Counted())).lightning_module.state_dict()
    assert Counted.reads == 24
    Counted.reads = 0
    plain = fit(module=BoringModule, data=loader(Counted())).lightning_module.state_dict()
    assert len(monitor.history) == 2
    assert all(torch.equal(watched[key], plain[key]) for key in plain)


class CountsEpochs(Sampler):
    """Counts in its class, and draws from a generator of the module."""

    epochs = 0

    def __iter__(self):
        CountsEpochs.epochs += 1
        return iter(torch.randperm(12, generator=TORCH).tolist())

    def __len__(self):
        return 12


def test_what_a_sampler_counts_and_draws_elsewhere_is_put_back():
    state = TORCH.get_state()
    subset = Subset(DataLoader(Reads(lambda index: None), 4, sampler=CountsEpochs()), 5, 5)
    assert subset.followed
    assert CountsEpochs.epochs == 0
    assert torch.equal(TORCH.get_state(), state)


class LazyStream(IterableDataset):
    """Lists its files once, in a list of the module."""

    def __iter__(self):
        if not SEEN:
            SEEN.extend(range(5))
        return iter(torch.arange(20.0).reshape(5, 4))


def test_a_stream_may_fill_a_list_of_its_module():
    SEEN.clear()
    assert len(Subset(LazyStream(), 5, 5)) == 5
    assert SEEN == []


WARNED = False


def warns_once(index):
    global WARNED
    WARNED = WARNED or index == 7


def test_a_flag_that_is_set_once_is_no_reason_to_refuse():
    for _ in range(3):
        Subset(Reads(warns_once), 12, 12)


class Proxy:
    """Stands for what does not exist yet, as proxies of web frameworks do."""

    @property
    def __class__(self):
        raise RuntimeError("working outside of context")


def test_a_proxy_is_not_asked_for_its_class(monkeypatch):
    monkeypatch.setitem(globals(), "PROXY", Proxy())
    assert len(Subset(Reads(lambda index: None), 5, 5)) == 5
