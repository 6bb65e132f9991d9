"""What comes in wrong works or is refused by name: the wrong values, and the property."""

import copy
import inspect
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_tansens import errors

FEW = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
#: For the thorough tier.
MANY = settings(FEW, max_examples=60)
SECONDS = 20
ALLOWED = (ValueError, TypeError, MisconfigurationException, *(e for e in vars(errors).values() if isinstance(e, type)))


class OwnError(Exception):
    """What a user's network or callable raises; it is to come out as it is."""


class Returns(nn.Module):
    """A network with a parameter that hands its output to a function."""

    def __init__(self, function):
        super().__init__()
        self.network, self.function = net(), function

    def forward(self, x):
        return self.function(self.network(x))


def fail(*_):
    raise OwnError("the user's own")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()


def batch(*shape, seed=1):
    return torch.randn(*(shape or (5, 4)), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_weight(value):
    model = net()
    model[0].weight.data[0, 0] = value
    return model


def kind(example, strategy=None):
    """A function that makes the example of a kind of value, and the strategy of all of them."""
    return example, strategy if strategy is not None else st.builds(example)


def same(value, strategy=None):
    return kind(lambda: value, strategy)


words = st.text("wrong_ /.é", min_size=1, max_size=6)
TYPES = {
    "None": same(None),
    "text": same("wrong", words),
    "empty text": same(""),
    "bytes": same(b"wrong", st.binary(min_size=5, max_size=5)),
    "list": kind(lambda: ["wrong"], st.lists(words, min_size=1, max_size=3)),
    "object": kind(object),
}
NUMBERS = {
    "bool": same(True, st.booleans()),
    "negative": same(-1, st.integers(-1000, -1)),
    "zero": same(0),
    "fraction": same(1.5, st.integers(1, 50).map(lambda n: n + 0.5)),
    "nan": same(float("nan")),
    "inf": same(float("inf"), st.sampled_from([float("inf"), -float("inf")])),
}
HUGE = {"huge": same(10**18, st.integers(10**18, 10**300))}
CALLABLES = {"fails": same(fail), "returns nothing": kind(lambda: lambda *_: None)}
TENSORS = {
    "integers": kind(lambda: torch.ones(5, 4, dtype=torch.long)),
    "complex numbers": kind(lambda: batch().to(torch.complex128)),
    "single precision": kind(lambda: batch().float()),
    "scalar": kind(lambda: torch.tensor(1.0, dtype=torch.float64)),
    "vector": kind(lambda: batch(4), st.integers(0, 6).map(batch)),
    "wrong width": kind(
        lambda: batch(5, 3), st.tuples(st.integers(1, 4), st.sampled_from([1, 3, 5])).map(lambda s: batch(*s))
    ),
    "no samples": kind(lambda: batch(0, 4)),
    "not a number": kind(lambda: batch() * torch.nan),
    "infinite": kind(lambda: batch() * torch.inf),
    "empty tuple": same(()),
    "empty dict": kind(dict),
    "dict of a wrong name": kind(lambda: {"wrong": batch()}, words.map(lambda name: {name: batch()})),
}
NETWORKS = {
    "class": same(nn.Linear),
    "no parameters": kind(nn.ReLU),
    "frozen": kind(lambda: net().requires_grad_(False)),
    "returns a tuple": kind(lambda: Returns(lambda y: (y, y))),
    "returns nothing": kind(lambda: Returns(lambda y: None)),
    "returns a scalar": kind(lambda: Returns(torch.sum)),
    "fails": kind(lambda: Returns(fail)),
    "nan weight": kind(lambda: with_weight(torch.nan)),
    "infinite weight": kind(lambda: with_weight(torch.inf)),
}
KINDS: dict[str, dict[str, Any]] = {}  # by argument; everything else takes TYPES and NUMBERS
KINDS |= dict.fromkeys(("inputs", "series", "first", "second", "values", "patterns", "targets"), TYPES | NUMBERS | TENSORS)
KINDS |= dict.fromkeys(("output", "criterion", "perturbation", "unpack"), TYPES | NUMBERS | CALLABLES)
KINDS |= dict.fromkeys(("order", "depth", "mean", "std", "maximum", "seed", "tolerance"), TYPES | NUMBERS | HUGE)
FEWER = {"too few": same([0, 1]), "negative ones": same([-3, -2, -1, -9, -8]), "fractions": same([0.5, 1.5, 2.5, 3.5, 4.5])}
KINDS["positions"] = TYPES | NUMBERS | FEWER
KINDS["quantiles"] = TYPES | NUMBERS | {"out of range": same([0.5, 1.5]), "not a number": same([float("nan")])}
KINDS["model"] = TYPES | NUMBERS | NETWORKS
KINDS["outputs"] = TYPES | NUMBERS | {"wrong weighting": kind(lambda: batch(3)), "matrix": kind(lambda: batch(2, 2))}

#: What a message may call an argument instead of its name.
NAMES = {
    "model": "model|network|parameters?|weights?|modules?|layers?|return|outputs?|Returns|ReLU",
    "inputs": "inputs?|samples?|batch|activations?|outputs",
    "output": "outputs?|return",
    "chain": "chain",
    "targets": "targets?|labels?",
}
#: Kinds that may never be taken in silence, by the annotation of the argument.
NO_NUMBER = {"None", "text", "empty text", "bytes", "list", "object"}
NEVER = {
    "int": NO_NUMBER | {"bool", "fraction", "nan", "inf"},
    "float": NO_NUMBER | {"nan"},
    "Outputs": NO_NUMBER | set(NUMBERS),
    "nn.Module": NO_NUMBER | set(NUMBERS) | {"class"},
    "str": set(NUMBERS) | {"None", "bytes", "list", "object"},
    "str | None": set(NUMBERS) | {"bytes", "list", "object"},
}
CHOICES = (
    "Method",
    "NormForm",
    "RatioForm",
    "ActiveNodeForm",
    "BoundedOutputs",
    "Correction",
    "Weighting",
    "Loss",
    "MeasureAt",
    "OnFailure",
)
NEVER |= dict.fromkeys(("OutputPicker | None", "Criterion | None", "Unpack | None"), NEVER["Outputs"] - {"None"})
NEVER |= dict.fromkeys((*CHOICES, "AccuracyForm", "PenalisedOutputs"), NEVER["Outputs"])


@dataclass(frozen=True)
class Call:
    """A callable, what makes its valid arguments, and its annotations; called with some of the arguments replaced."""

    function: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    annotations: Mapping[str, str]

    def __call__(self, **replaced):
        return self.function(**{**self.arguments(), **replaced})

    def kinds(self, argument):
        """The kinds of wrong values of an argument; what may be any batch may be any tensor."""
        of_name = KINDS.get(argument, TYPES | NUMBERS)
        return TYPES | NUMBERS | TENSORS if self.annotations[argument] == "Any" else of_name


def annotations_of(*functions):
    found = {}
    for function in functions:
        found |= {name: str(p.annotation) for name, p in inspect.signature(function).parameters.items()}
    return {name: annotation for name, annotation in found.items() if name not in ("self", "kwargs", "args")}


class Hangs(BaseException):
    """Not to be caught by what is tested."""


@contextmanager
def time_limit():
    def stop(*_):
        raise Hangs(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def own_failure(arguments):
    """What the user's network says by itself to these inputs, or the loss to these outputs and targets."""
    model, inputs = arguments.get("model"), arguments.get("inputs")
    try:
        if "model" not in arguments and "targets" in arguments:
            nn.functional.cross_entropy(arguments["outputs"], arguments["targets"])
        if not isinstance(model, nn.Module):
            return None
        model = copy.deepcopy(model).eval()
        if isinstance(inputs, Mapping):
            model(**inputs)
        elif isinstance(inputs, (tuple, list)):
            model(*inputs)
        else:
            model(inputs)
    except Exception as error:
        return error
    return None


def works_or_is_refused(call, argument, kind_name, value):
    """The property: it works, or the error is one of the package's, or a ValueError or TypeError, and names the argument."""
    arguments = {**call.arguments(), argument: value}
    refusal = None
    try:
        with time_limit():
            call.function(**arguments)
    except OwnError:
        return
    except Exception as error:
        refusal = error
    shown = f"{argument}, {kind_name}: {value!r}"
    if refusal is None:
        assert kind_name not in NEVER.get(call.annotations.get(argument, ""), ()), f"{shown} was accepted"
        return
    own = own_failure(arguments)
    if own is not None and type(own) is type(refusal):
        return
    names = NAMES.get(argument, re.escape(argument))
    assert isinstance(refusal, ALLOWED), f"{shown} raises {refusal!r}"
    assert re.search(rf"(?<![a-z])({names})(?![a-z])", str(refusal)), f"{shown} is not named: {refusal!r}"


def draw_wrong(data, registry, name):
    """Draws an argument, a kind of wrong value, and a value of that kind."""
    call = registry[name]
    argument, kind_name = data.draw(st.sampled_from([(a, k) for a in call.annotations for k in call.kinds(a)]))
    return call, argument, kind_name, data.draw(call.kinds(argument)[kind_name][1])
