"""Wrong arguments of every public function, measure and callback work or are refused by name."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lightning_tansens
from lightning_tansens import functional, metrics
from lightning_tansens.errors import UndefinedEstimateError
from tests.guarantees import bad_input
from tests.guarantees.bad_input import FEW, MANY, Call, Hangs, batch, draw_wrong, net, works_or_is_refused
from tests.guarantees.calls import ABSTRACT, CALLBACKS, CALLS, FUNCTIONS, METRICS, RESULTS

ESTIMATING = [name for name in METRICS if issubclass(getattr(metrics, name), metrics.SensitivityMeasure)]


@pytest.mark.parametrize("name", CALLS)
def test_the_valid_call_works(name):
    CALLS[name]()


@pytest.mark.parametrize("name", CALLS)
@FEW
@given(data=st.data())
def test_a_wrong_argument_works_or_is_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, CALLS, name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", CALLS)
@MANY
@given(data=st.data())
def test_many_wrong_arguments_work_or_are_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, CALLS, name))


@pytest.mark.parametrize("name", CALLBACKS | FUNCTIONS)
def test_an_unknown_argument_is_named(name):
    with pytest.raises(TypeError, match="num_prob"):
        CALLS[name](num_prob=3)


@pytest.mark.parametrize("name", METRICS)
def test_an_unknown_argument_of_a_measure_is_named(name):
    with pytest.raises((TypeError, ValueError), match="num_prob"):
        getattr(metrics, name)(**{"perturbation": abs} if name == "GradientDifference" else {}, num_prob=3)


def test_no_public_name_is_forgotten():
    assert len(CALLS) == len(CALLBACKS) + len(FUNCTIONS) + len(METRICS)
    assert set(FUNCTIONS) | RESULTS == set(functional.__all__)
    assert set(METRICS) | set(ABSTRACT) == set(metrics.__all__)
    others = {"figures", "functional", "metrics", "__version__"}
    assert set(CALLBACKS) | others == set(lightning_tansens.__all__)


def refuse_count(count: "int"):
    if count != 1:
        raise ValueError("count: expected 1")


@pytest.mark.parametrize(
    ("function", "value", "fails"),
    [
        (refuse_count, 2, None),
        (lambda count: None, None, "accepted"),
        (lambda count: [][count], 3, "IndexError"),
        (lambda count: int(count), "wrong", "is not named"),
        (lambda count: time.sleep(60), 3, "took more than"),
    ],
)
def test_the_property_itself_can_fail(function, value, fails, monkeypatch):
    monkeypatch.setattr(bad_input, "SECONDS", 1)
    call = Call(function, lambda: {"count": 1}, {"count": "int"})
    if fails is None:
        works_or_is_refused(call, "count", "fraction", value)
    else:
        with pytest.raises((AssertionError, Hangs), match=fails):
            works_or_is_refused(call, "count", "text", value)


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


@pytest.mark.parametrize("name", ABSTRACT)
def test_an_abstract_measure_is_not_made(name):
    with pytest.raises(TypeError, match=f"abstract class {name}"):
        getattr(metrics, name)()
