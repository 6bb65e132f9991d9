"""Every public name has its wrong arguments tried, and the property that they are held to can fail."""

import time

import pytest

import lightning_tansens
from lightning_tansens import functional, metrics
from tests.guarantees import test_bad_input
from tests.guarantees.test_bad_input import Call, Hangs, works_or_is_refused
from tests.guarantees.test_bad_input_callbacks import CALLBACKS
from tests.guarantees.test_bad_input_functional import FUNCTIONS, RESULTS
from tests.guarantees.test_bad_input_metrics import ABSTRACT, METRICS


def test_no_public_name_is_forgotten():
    assert set(FUNCTIONS) | RESULTS == set(functional.__all__)
    assert set(METRICS) | set(ABSTRACT) == set(metrics.__all__)
    others = {"figures", "functional", "metrics", "__version__"}
    assert set(CALLBACKS) - {"Options"} | others == set(lightning_tansens.__all__)


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
    monkeypatch.setattr(test_bad_input, "SECONDS", 1)
    call = Call(function, lambda: {"count": 1}, {"count": "int"})
    if fails is None:
        works_or_is_refused(call, "count", "fraction", value)
    else:
        with pytest.raises((AssertionError, Hangs), match=fails):
            works_or_is_refused(call, "count", "text", value)
