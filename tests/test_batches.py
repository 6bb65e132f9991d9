"""Batches of every kind are split into inputs and labels, or refused in one sentence."""

import dataclasses
from collections import UserDict, namedtuple

import pytest
import torch
from torch.utils.data import Dataset

from lightning_tansens.monitor.data.batches import check_samples, unpack_batch
from tests.boring import Points, fit, loader, make_monitor, split_dict

X, Y = torch.zeros(3, 4), torch.arange(3)


class Encoding(UserDict):
    """As tokenizers return it."""


@dataclasses.dataclass
class Record:
    image: torch.Tensor
    target: torch.Tensor
    path: str = "a.png"


class Plain:
    def __init__(self):
        self.image, self.label = X, Y


Pair, Sample = namedtuple("Pair", "first second"), namedtuple("Sample", "image index label")


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ({"image": X, "label": Y}, X),
        ({"label": Y, "image": X, "path": ["a", "b", "c"]}, X),
        (Encoding({"input_ids": Y, "attention_mask": Y, "labels": Y}), {"input_ids": Y, "attention_mask": Y}),
        (Sample(X, Y, Y), {"image": X, "index": Y}),
        (Pair(X, Y), X),
        (Record(X, Y), X),
        (Plain(), X),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_are_found_by_their_names(batch, expected):
    inputs, targets = unpack_batch(batch)
    assert targets is Y
    assert type(inputs) is type(expected)
    if isinstance(inputs, dict):
        assert inputs.keys() == expected.keys()
    else:
        assert inputs is X


@pytest.mark.parametrize(
    "batch", [{"image": X}, Record(X, None), namedtuple("Image", "image")(X), X, [X], Encoding(image=X)]
)
def test_a_batch_without_labels(batch):
    inputs, targets = unpack_batch(batch)
    assert inputs is X
    assert targets is None


@pytest.mark.parametrize("batch", [{"a": 1}, {"image": X, "label": Y, "target": Y}, object(), "ab", {}, (X, X, Y)])
def test_other_batches_are_refused(batch):
    with pytest.raises(TypeError, match=r"batch: expected a tuple or list \(inputs, targets\) .* but got .*; pass unpack="):
        unpack_batch(batch)


class Graph:
    """A batch of graphs: nodes of all samples in one dimension."""

    def __init__(self, count):
        self._store = {"x": torch.zeros(7 * count, 2), "edge_index": torch.zeros(2, 9).long(), "y": torch.zeros(count)}

    def to_dict(self):
        return self._store


def test_samples_must_lie_one_by_one():
    check_samples((torch.zeros(5, 3), torch.zeros(1, 7), torch.zeros(4, 4).long(), torch.tensor(0.1)), 5, "train")
    for inputs in (
        Graph(5),
        unpack_batch(Graph(5))[0],
        [torch.zeros(3, 8, 8)] * 5,
        (torch.zeros(5, 3), torch.zeros(9, 5)),
        {"sequence": torch.zeros(11, 5, 2)},
    ):
        with pytest.raises(
            TypeError, match=r"the train set cannot be measured: expected inputs whose first dimension is that"
        ):
            check_samples(inputs, 5, "train")


class Graphs(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index


def test_graphs_are_refused_before_the_first_step():
    monitor = make_monitor(reference=loader(Graphs(), collate_fn=lambda samples: Graph(len(samples))))
    with pytest.raises(TypeError, match="a batch of 5 samples has an input of shape"):
        fit(monitor)
    assert not monitor.history


def test_a_dict_needs_no_unpack():
    plain, named = make_monitor(unpack=split_dict), make_monitor()
    for monitor in (plain, named):
        monitor.test_dataloaders = loader(Points(10, seed=2, as_dict=True))
        fit(monitor, data=loader(Points(as_dict=True)))
    assert plain.history[0]["tansens/empirical/test"] == named.history[0]["tansens/empirical/test"]
    assert plain.history[0]["tansens/train_loss"] == named.history[0]["tansens/train_loss"]
