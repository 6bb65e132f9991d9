"""Data of the training are not touched: what a data set holds is copied, or refused with the way out."""

import functools
import io
import random
import threading
import types
import zipfile
from multiprocessing import shared_memory

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_tansens.monitor.data import copying
from lightning_tansens.monitor.data.copying import Copier, CopyError
from lightning_tansens.monitor.data.shared import SharedWriteError, no_file_left_open, unwritten
from lightning_tansens.monitor.data.subsets import Subset

OPENED = {}


class Held(Dataset):
    """Twelve samples, each of which ``read`` makes from what the data set holds."""

    def __init__(self, read, **held):
        vars(self).update(held)
        self.read = read

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor([float(self.read(self, index)), index])


class WithClassCache(Held):
    cache = {}  # noqa: RUF012  (what is tested)

    @functools.lru_cache(maxsize=5)  # noqa: B019  (what is tested)
    def loaded(self, index):
        return index

    @staticmethod
    @functools.lru_cache
    def loaded_statically(index):
        return index


def counted(self, index):
    self.count += 1
    return self.count


def cached(self, index):
    return self.cache.setdefault(index, index)


def appended(self, index):
    seen = self.function(index)
    return len(seen)


def closure():
    seen = []

    def function(index):
        seen.append(index)
        return seen

    return function


def default_argument(index, seen=[]):  # noqa: B006  (what is tested)
    seen.append(index)
    return seen


def written(self, index):
    self.array[index] += 1
    return self.array[index].sum()


def seeks(self, index):
    self.file.seek(index)
    return ord(self.file.read(1))


def opens(self, index):
    if self.file is None:
        self.file = open(self.path, "rb")  # noqa: SIM115
    return seeks(self, index)


def unzips(self, index):
    return len(self.archive.read(str(index)))


def files(folder):
    path = folder / "bytes"
    path.write_bytes(bytes(range(50)))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for number in range(12):
            archive.writestr(str(number), "x" * number)
    return path


#: What the data set is, and what of it must be as before.
TOUCHED = {
    "counter": (lambda _: Held(counted, count=0), lambda data: data.count),
    "cache": (lambda _: Held(cached, cache={}), lambda data: len(data.cache)),
    "cache of the class": (lambda _: WithClassCache(cached), lambda data: len(data.cache)),
    "lru_cache of a method": (
        lambda _: WithClassCache(lambda self, index: self.loaded(index)),
        lambda data: data.loaded.cache_info(),
    ),
    "lru_cache of a static method": (
        lambda _: WithClassCache(lambda self, index: self.loaded_statically(index)),
        lambda data: data.loaded_statically.cache_info(),
    ),
    "closure": (lambda _: Held(appended, function=closure()), lambda data: list(data.function.__closure__[0].cell_contents)),
    "bound method of a list": (
        lambda _: Held(lambda self, index: self.append(index) or index, append=[].append),
        lambda data: list(data.append.__self__),
    ),
    "argument by default": (
        lambda _: Held(appended, function=types.FunctionType(default_argument.__code__, globals(), "f", ([],))),
        lambda data: list(data.function.__defaults__[0]),
    ),
    "partial": (
        lambda _: Held(appended, function=functools.partial(closure())),
        lambda data: list(data.function.func.__closure__[0].cell_contents),
    ),
    "array": (lambda _: Held(written, array=np.zeros((12, 3))), lambda data: data.array.sum()),
    "tensor": (lambda _: Held(written, array=torch.zeros(12, 3)), lambda data: float(data.array.sum())),
    "list of tensors": (lambda _: Held(written, array=[torch.zeros(3)] * 12), lambda data: float(sum(data.array).sum())),
    "array of objects": (
        lambda _: Held(written, array=np.array([np.zeros(3), np.zeros(2)] * 6, dtype=object)),
        lambda data: sum(held.sum() for held in data.array),
    ),
    "random generators": (
        lambda _: Held(
            lambda self, index: self.torch.initial_seed() * 0 + self.numpy.random() + self.python.random(),
            torch=torch.Generator(),
            numpy=np.random.default_rng(0),
            python=random.Random(0),
        ),
        lambda data: (data.numpy.bit_generator.state["state"], data.python.getstate()),
    ),
    "deep generator": (
        lambda _: Held(
            lambda self, index: self.deep[150][0][0][0][0][0][0][0].random(),
            deep=[0] * 150 + [[[[[[[[random.Random(0)]]]]]]]],
        ),
        lambda data: data.deep[150][0][0][0][0][0][0][0].getstate(),
    ),
    "file opened at first access": (lambda path: Held(opens, path=path, file=None), lambda data: data.file),
    "open file": (lambda path: Held(seeks, file=path.open("rb")), lambda data: data.file.tell()),
    "open file without a buffer": (
        lambda path: Held(seeks, file=path.open("rb", buffering=0)),
        lambda data: data.file.tell(),
    ),
    "open text": (lambda path: Held(seeks, file=path.open()), lambda data: data.file.tell()),
    "archive": (
        lambda path: Held(unzips, archive=zipfile.ZipFile(path.parent / "a.zip")),
        lambda data: data.archive.fp.tell(),
    ),
    "lock": (
        lambda _: Held(lambda self, index: self.lock.acquire(blocking=False), lock=threading.Lock()),
        lambda data: data.lock.locked(),
    ),
    "thread's own": (
        lambda _: Held(lambda self, index: vars(self.local).setdefault("index", index), local=threading.local()),
        lambda data: dict(vars(data.local)),
    ),
}


@pytest.mark.parametrize("name", TOUCHED)
def test_the_data_set_is_left_as_it_was(name, tmp_path):
    make, state = TOUCHED[name]
    data = make(files(tmp_path))
    before = state(data)
    subset = Subset(DataLoader(data, num_workers=2), 8, 3)
    first = torch.cat(list(subset))
    assert len(first) == 8
    assert state(data) == before
    data[3]
    if name not in ("lock", "open file without a buffer", "open text", "open file", "argument by default"):
        assert state(data) != before or name in ("archive", "thread's own"), "nothing would have been touched"


@pytest.mark.parametrize("array", [np.zeros((12, 4)), torch.zeros(12, 4), torch.zeros(12, 8)[:, ::2]], ids=["a", "t", "v"])
def test_large_arrays_are_shared_until_somebody_writes(array, monkeypatch):
    monkeypatch.setattr(copying, "COPIED_BYTES", 0)
    read = Held(lambda self, index: self.array[index].sum(), array=array)
    copier = Copier()
    copied = copier.copy(read)
    assert np.shares_memory(np.asarray(copied.array), np.asarray(array))
    with pytest.raises(SharedWriteError, match="share"), unwritten(copier.shared):
        copied.array[0] = 1
    subset = Subset(Held(written, array=array), 8, 3)  # is copied whole in the end
    assert float(sum(row[0] for batch in subset for row in batch)) > 0
    assert float(array.sum()) == 0


def test_an_error_of_the_data_set_s_own_passes():
    with pytest.raises(ValueError, match="their own"), unwritten([(0, 1)]):
        raise ValueError("their own")


def test_a_memory_map_is_not_read(tmp_path):
    path = tmp_path / "map"
    np.zeros((10, 3)).tofile(path)
    array = np.memmap(path, mode="r+", shape=(10, 3))
    copied = Copier().copy(array)
    assert np.shares_memory(copied, array)
    assert not copied.flags.writeable


def test_what_belongs_together_stays_together():
    class Node:
        def __init__(self):
            self.itself, self.method, self.slots = self, self.name, Slots()

        def name(self):
            return self

    class Slots:
        __slots__ = ("x",)

        def __init__(self):
            self.x = []

    node = Node()
    copied = Copier().copy(node)
    assert copied is copied.itself is copied.method() is not node
    assert copied.slots.x is not node.slots.x
    shared = []
    pair = Copier().copy((shared, {"a": shared}, {1, 2}))
    assert pair[0] is pair[1]["a"] is not shared

    def itself():
        return itself

    recursive = Copier().copy(itself)
    assert recursive() is recursive is not itself


class Unpicklable:
    def __reduce_ex__(self, protocol):
        raise RuntimeError("one of a kind")


class Uncopyable:
    def __deepcopy__(self, memo):
        raise RuntimeError("one of a kind")


UNCOPYABLE = {
    "generator": (lambda _: (i for i in range(3)), "Held.held holds a generator"),
    "file open for writing": (lambda path: (path.parent / "new").open("wb"), "Held.held holds a BufferedWriter"),
    "file that is gone": (lambda path: [_opened := path.open("rb"), path.unlink()][0], "Held.held holds a BufferedReader"),
    "handle": (lambda _: Unpicklable(), "Held.held holds a Unpicklable (one of a kind)"),
    "in a list": (lambda _: [Unpicklable()], "Held.held holds a Unpicklable (one of a kind)"),
    "own way": (lambda _: Uncopyable(), "Held.held holds a Uncopyable (one of a kind)"),
}


@pytest.mark.parametrize("name", UNCOPYABLE)
def test_what_cannot_be_copied_is_refused_with_the_way_out(name, tmp_path):
    make, came = UNCOPYABLE[name]
    data = Held(lambda self, index: 0, held=make(files(tmp_path)))
    with pytest.raises(CopyError) as caught:
        Subset(data, 8, 3)
    assert "expected data that can be copied, because the training's own are never read, but " + came in str(caught.value)
    assert "pass the monitor a Dataset of its own for this set (reference=..., test_dataloaders=...)" in str(caught.value)
    assert len(Subset(data, 8, 3, original=True)) == 8  # nobody else reads it


def test_memory_of_several_processes_is_refused():
    memory = shared_memory.SharedMemory(create=True, size=8)
    try:
        with pytest.raises(CopyError, match="holds a SharedMemory \\(processes share it\\)"):
            Copier().copy({"memory": memory})
    finally:
        memory.close()
        memory.unlink()


def test_closed_files_and_strings_in_memory():
    assert Copier().copy(io.BytesIO(b"ab")).read() == b"ab"
    with open(__file__) as file:
        pass
    assert Copier().copy(file) is file


class Counting(Sampler):
    def __init__(self):
        self.epochs = 0

    def __iter__(self):
        self.epochs += 1
        return iter(range(12))


class Collating:
    def __init__(self):
        self.calls = 0

    def __call__(self, samples):
        self.calls += 1
        return torch.stack(samples)

    def method(self, samples):
        return self(samples)


@pytest.mark.parametrize("method", [False, True])
def test_sampler_and_collate_function_are_left_as_they_were(method):
    sampler, collating = Counting(), Collating()
    loader = DataLoader(
        Held(counted, count=0), sampler=sampler, collate_fn=collating.method if method else collating, batch_size=4
    )
    list(Subset(loader, 8, 3))
    assert (sampler.epochs, collating.calls, loader.dataset.count) == (0, 0, 0)


def global_file(self, index):
    if "file" not in OPENED:
        OPENED["file"] = open(self.path, "rb")  # noqa: SIM115
    self.file = OPENED["file"]
    return seeks(self, index)


@functools.lru_cache
def opened(path):
    return open(path, "rb")


def cached_file(self, index):
    self.file = opened(self.path)
    return seeks(self, index)


@pytest.mark.parametrize("read", [global_file, cached_file])
def test_a_file_that_stays_open_elsewhere_is_refused(read, tmp_path):
    data = Held(read, path=files(tmp_path))
    try:
        with pytest.raises(
            ValueError, match="expected data that keep their open files themselves, but reading a sample left"
        ):
            Subset(DataLoader(data, num_workers=1), 8, 3)
    finally:
        OPENED.pop("file", opened(data.path)).close()
        opened.cache_clear()
    assert len(Subset(data, 8, 3)) == 8  # no worker shares it
    OPENED.pop("file", opened(data.path)).close()
    opened.cache_clear()


def test_a_file_that_closes_with_a_cycle_is_none_left_open(tmp_path):
    class Cycle:
        def __init__(self, path):
            self.itself, self.file = self, path.open("rb")

    path = files(tmp_path)
    with no_file_left_open(among_workers=True):
        Cycle(path)
