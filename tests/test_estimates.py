"""Estimates from a ratio in logarithms."""

import math

import pytest

from lightning_tansens._peers.scaling import estimate_accuracy, estimate_loss


@pytest.mark.parametrize(("ratio", "loss", "expected"), [(1, 1.25, 1.25), (2, 0.5, 1.0), (0.1, 3.0, 0.3), (5, 0.0, 0.0)])
def test_loss(ratio, loss, expected):
    assert estimate_loss(math.log(ratio), loss) == pytest.approx(expected)


def test_loss_beyond_the_range_of_floats():
    assert estimate_loss(1000.0, 1.0) == math.inf
    assert estimate_loss(math.inf, 1.0) == math.inf
    assert estimate_loss(1000.0, -1.0) == -math.inf
    assert estimate_loss(1000.0, 0.0) == 0
    assert estimate_loss(-math.inf, 1.0) == 0
    assert math.isnan(estimate_loss(math.nan, 1.0))
    assert math.isnan(estimate_loss(0.0, math.nan))


@pytest.mark.parametrize(
    ("ratio", "accuracy", "by_error", "by_ratio"),
    [
        (1, 0.9, 0.9, 0.9),
        (2, 0.9, 0.8, 1.0),
        (0.5, 0.8, 0.9, 0.4),
        (20, 0.9, 0.0, 1.0),
        (3, 1.0, 1.0, 1.0),
        (2, 0.0, 0.0, 0.0),
    ],
)
def test_accuracy(ratio, accuracy, by_error, by_ratio):
    assert estimate_accuracy(math.log(ratio), accuracy) == pytest.approx(by_error)
    assert estimate_accuracy(math.log(ratio), accuracy, "error") == pytest.approx(by_error)
    assert estimate_accuracy(math.log(ratio), accuracy, "ratio") == pytest.approx(by_ratio)


@pytest.mark.parametrize("form", ["error", "ratio"])
def test_an_undefined_ratio_has_no_accuracy(form):
    assert math.isnan(estimate_accuracy(math.nan, 0.5, form))
    assert 0 <= estimate_accuracy(1000.0, 0.5, form) <= 1


def test_wrong_form():
    with pytest.raises(ValueError, match="form: expected 'error' or 'ratio', but got 'both'"):
        estimate_accuracy(0.0, 0.5, "both")
