"""Wrong arguments of every public measure: of its construction, of a batch, and of the estimate."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_tansens import functional, metrics
from lightning_tansens.errors import UndefinedEstimateError
from tests.guarantees.test_bad_input import (
    FEW,
    MANY,
    Call,
    annotations_of,
    batch,
    draw_wrong,
    net,
    works_or_is_refused,
)

ABSTRACT = ("LabelledMeasure", "MeanSensitivity", "Measure", "SampleMeasure", "SensitivityMeasure", "TangentMeasure")


def constructors(made):
    """The constructors that share the arguments, each passing its kwargs on."""
    return [
        cls.__init__ for cls in made.__mro__ if cls.__module__.startswith("lightning_tansens") and "__init__" in vars(cls)
    ]


def measure(made, **arguments):
    """Constructs a measure, adds a batch and reads everything."""
    own = annotations_of(*constructors(made))
    constructed = {name: arguments.pop(name) for name in list(arguments) if name in own}
    metric = made(**constructed)
    if isinstance(metric, metrics.LabelledLoss):
        metric.update(**arguments)
        return metric.compute(), metric.accuracy()
    metric.prepare(arguments["model"], arguments.get("inputs"))
    metric.update(**arguments)
    return metric.values(), metric.part_values(), metric.distributions(), metric.standard_error(), metric.compute()


def valid(name):
    labels = {"targets": torch.tensor([0, 1, 0, 1, 1])}
    if name == "LabelledLoss":
        return {"outputs": batch(5, 2), **labels}
    others = {"perturbation": functional.Gaussian(0.1)} if name == "GradientDifference" else {}
    return {
        "model": net(),
        "inputs": batch(),
        **others,
        **(labels if issubclass(getattr(metrics, name), metrics.LabelledMeasure) else {}),
    }


def call_of(name):
    made = getattr(metrics, name)
    if name == "TangentOptions":
        return Call(made, dict, annotations_of(made))
    annotations = annotations_of(*constructors(made), inspect.unwrap(made.update))
    if name in ("OutputSensitivity", "ClassSensitivity"):
        del annotations["outputs"]  # always each
    return Call(lambda **arguments: measure(made, **arguments), lambda: valid(name), annotations)


METRICS = {name: call_of(name) for name in metrics.__all__ if name not in ABSTRACT}
ESTIMATING = [name for name in METRICS if issubclass(getattr(metrics, name), metrics.SensitivityMeasure)]


@pytest.mark.parametrize("name", METRICS)
def test_the_valid_call_works(name):
    METRICS[name]()


@pytest.mark.parametrize("name", METRICS)
@FEW
@given(data=st.data())
def test_a_wrong_argument_works_or_is_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, METRICS, name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", METRICS)
@MANY
@given(data=st.data())
def test_many_wrong_arguments_work_or_are_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, METRICS, name))


def log_ratio(name, **changed):
    """The estimate's factor, where one number of the target or the reference is another."""
    made = getattr(metrics, name)()
    made.prepare(net(), batch())
    made.update(net(), batch())
    target, reference = ({key: float(value) for key, value in made.values().items()} for _ in range(2))
    for key, value in changed.items():
        (target if key == "target" else reference)[made.key] = value
    return made.log_ratio(target, reference)


def number_or_undefined(name, target, reference):
    try:
        factor = log_ratio(name, target=target, reference=reference)
    except UndefinedEstimateError:
        return True
    return math.isfinite(factor)


NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))


@pytest.mark.parametrize("name", ESTIMATING)
@FEW
@given(target=NUMBERS, reference=NUMBERS)
def test_an_estimate_is_a_number_or_undefined(name, target, reference):
    assert number_or_undefined(name, target, reference)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ESTIMATING)
def test_an_estimate_of_what_is_not_finite_is_undefined(name, number):
    assert number_or_undefined(name, 1.0, number)


@pytest.mark.parametrize("name", METRICS)
def test_an_unknown_argument_is_named(name):
    with pytest.raises((TypeError, ValueError), match="num_prob"):
        getattr(metrics, name)(**{"perturbation": abs} if name == "GradientDifference" else {}, num_prob=3)


@pytest.mark.parametrize("name", ABSTRACT)
def test_an_abstract_measure_is_not_made(name):
    with pytest.raises(TypeError, match=f"abstract class {name}"):
        getattr(metrics, name)()
