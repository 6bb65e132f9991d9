"""Batches of every kind are split into inputs and labels, or refused in one sentence."""

import dataclasses
from collections import UserDict, namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from lightning_tansens.metrics import EmpiricalSensitivity
from lightning_tansens.monitor.data.batches import check_samples, unpack_batch
from lightning_tansens.tangent.batches import call_model
from tests.boring import BoringModule, Points, fit, loader, make_monitor, split_dict

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


class Tiles(Dataset):
    """Images with numbers that forward does not take, and masks."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        image = torch.full((1, 4, 4), index / 12)
        return {"image": image, "number": index, "mask": (image[0] > 0.5).long()}


class Segmentation(BoringModule):
    def __init__(self, **kwargs):
        super().__init__(nn.Conv2d(1, 2, 3, padding=1), **kwargs)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch["image"]), batch["mask"])


class ByName(Segmentation):
    def forward(self, image):
        return self.network(image)


@pytest.mark.parametrize("kind", [Segmentation, ByName])
def test_a_mask_next_to_an_image_is_the_target_and_forward_gets_what_it_takes(kind):
    data = Tiles()
    monitor = make_monitor(
        reference=data, test_dataloaders=data, measures=[EmpiricalSensitivity()], compare_with_labels=True
    )
    module = kind()
    fit(monitor, module=module, data=loader(data, batch_size=4))
    batch = next(iter(loader(data, batch_size=12)))
    with torch.no_grad():
        expected = F.cross_entropy(module(batch["image"]), batch["mask"])
    assert monitor.records[-1].targets["test"].loss == pytest.approx(float(expected), rel=1e-5)
    assert monitor.records[-1].reference.measures["empirical"].values["empirical"] > 0


def test_what_a_forward_raises_on_a_whole_batch_stays_the_error():
    class Reads(nn.Module):
        def forward(self, batch):
            return batch.image

    with pytest.raises(AttributeError, match="'dict' object has no attribute 'image'"):
        call_model(Reads(), {"first": torch.zeros(2, 3), "second": torch.zeros(2, 3)})


def test_a_model_that_takes_whole_batches_is_not_called_again_on_the_tensor_in_one():
    class Reads(nn.Module):
        broken, seen = False, []

        def forward(self, batch):
            self.seen.append(type(batch))
            if self.broken:
                raise TypeError("broken on one process")
            return batch["first"] if isinstance(batch, dict) else batch

    model, batch = Reads(), {"first": torch.zeros(2, 3)}
    call_model(model, batch)
    model.broken = True
    with pytest.raises(TypeError, match="broken on one process"):
        call_model(model, batch)
    assert model.seen == [dict, dict]
