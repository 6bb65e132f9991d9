"""The forms of inputs and outputs in projects."""

from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.batches import batch_length, call_model, find_wrt, map_tensors, pick_output
from tests.cases import Lambda, mlp

SCORES = torch.randn(3, 2)
OTHER = torch.randn(3, 5)
IDS = torch.arange(6).reshape(2, 3)


class Result(NamedTuple):
    logits: Any
    hidden: Any = None


@dataclass
class Held:
    logits: Any = None
    loss: Any = None


class ModelOutput(dict):
    """Keys are attributes too, as in transformers."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)


@pytest.mark.parametrize(
    "value",
    [
        SCORES,
        {"logits": SCORES, "hidden": OTHER},
        {"scores": SCORES},
        ModelOutput(loss=torch.tensor(1.0), logits=SCORES),
        UserDict(logits=SCORES, hidden=OTHER),
        Result(SCORES, OTHER),
        Held(SCORES, torch.tensor(1.0)),
        SimpleNamespace(logits=SCORES, hidden=OTHER),
        (SCORES,),
        [SCORES],
    ],
)
def test_the_outputs_are_found(value):
    assert pick_output(value) is SCORES
    assert pick_output(value, lambda out: OTHER) is OTHER


@pytest.mark.parametrize("value", [(SCORES, OTHER), {"a": SCORES, "b": OTHER}, None, "text", {"logits": 3, "a": 1}])
def test_what_is_not_clear_stays(value):
    assert pick_output(value) is value


class Pair(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor


def whole(read):
    return Lambda(lambda m, batch: m.net(read(batch)), net=mlp(4, 3, 2, activation=nn.Tanh))


X, Y = torch.randn(3, 4), torch.arange(3)
WHOLE = {
    "dict": ({"image": X, "label": Y}, lambda batch: batch["image"]),
    "NamedTuple": (Pair(X, Y), lambda batch: batch.image),
    "object": (SimpleNamespace(image=X, label=Y), lambda batch: batch.image),
    "mapping": (UserDict(image=X, label=Y), lambda batch: batch.data["image"]),
    "list": ([X, Y], lambda batch: batch[0]),
}


class TakesBatch(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.read = read
        self.net = mlp(4, 3, 2, activation=nn.Tanh)

    def forward(self, batch):
        return self.net(self.read(batch))


@pytest.mark.parametrize("form", WHOLE)
def test_a_forward_that_takes_the_batch(form):
    batch, read = WHOLE[form]
    model = TakesBatch(read)
    assert torch.equal(call_model(model, batch), model.net(X))
    assert batch_length(batch) == 3
    doubled = map_tensors(lambda tensor: tensor * 2, batch)
    assert torch.equal(call_model(model, doubled), model.net(2 * X))
    torch.testing.assert_close(tangent_sensitivity(model, batch), tangent_sensitivity(model.net, X))


def test_named_arguments_stay_arguments():
    class Named(nn.Module):
        def forward(self, image, scale=1):
            return image * scale

    assert torch.equal(call_model(Named(), {"image": X}), X)
    assert torch.equal(call_model(Named(), [X, 2]), 2 * X)
    assert torch.equal(call_model(Named(), {"image": X, "number": Y}), X)  # a batch may hold more than forward takes
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'image'"):
        call_model(Named(), {"scale": 2})
    with pytest.raises(TypeError, match="unsupported operand"):
        call_model(Named(), {"picture": Y, "mask": Y})


class Tokens(nn.Module):
    """As in BERT: words, places and kinds of tokens."""

    def __init__(self, kinds=False):
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Embedding(2, 4) if kinds else None
        self.layer = nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        found = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        if self.kinds is not None:
            found = found + self.kinds(token_type_ids)
        return self.layer(torch.tanh(found)).mean(1)


MASK, KINDS = torch.ones_like(IDS), torch.zeros_like(IDS)


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (Tokens(), IDS, "words"),
        (Tokens(), [IDS], "words"),
        (Tokens(), {"input_ids": IDS, "attention_mask": MASK}, "words"),
        (Tokens(kinds=True), {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": KINDS}, "words"),
        (Tokens(kinds=True), [IDS, MASK, KINDS], None),
        (nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)), IDS, "0"),
        (Lambda(lambda m, x: m.a(x) + m.b(x[:, 1:2]), a=nn.Embedding(9, 4), b=nn.Embedding(9, 4)), IDS, None),
        (Lambda(lambda m, x: m.a(x[:, 1:]), a=nn.Embedding(9, 4), b=nn.Embedding(9, 4)), IDS, "a"),
        (nn.Linear(3, 2), [X, X], None),
        (Lambda(lambda m, x: x), IDS, None),
    ],
)
def test_x_is_found(model, inputs, expected):
    assert find_wrt(model, inputs) == expected
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("inputs", [IDS, {"input_ids": IDS, "attention_mask": MASK}])
def test_tokens_are_measured_at_their_embedding(inputs):
    model = Tokens()
    named = tangent_sensitivity(model, inputs, wrt="words")
    torch.testing.assert_close(tangent_sensitivity(model, inputs), named)
    assert bool((named > 0).all())
