"""The moments of Theorem 2 against mpmath."""

import math

import mpmath
import pytest
from mpmath import mp

from lightning_tansens.functional import log_absolute_moment, log_psi

RATIOS = [0, 0.01, 0.3, 1, 3, 8, 11.9, 12.1, 30, 1e4, 1e6]
ORDERS = [0, 1, 2, 3, 4, 7, 10, 51, 100, 101, 500, 999, 1000, 1999]


def log_kummer(order, ratio):
    return mp.log(mpmath.hyp1f1(mp.mpf(-order) / 2, mp.mpf(1) / 2, -(mp.mpf(ratio) ** 2) / 2))


def reference(order, mean, std):
    """The formula of Theorem 2 to 50 digits."""
    if order % 2 == 0:  # hyp1f1 is a polynomial then, whose terms are positive
        terms = (mp.binomial(order, 2 * j) * mp.fac2(2 * j - 1) * mp.mpf(mean) ** (order - 2 * j) * mp.mpf(std) ** (2 * j)
                 for j in range(order // 2 + 1))  # fmt: skip
        return mp.log(mp.fsum(terms))
    scale = order * mp.log(std) + order * mp.log(2) / 2 + mp.loggamma(mp.mpf(order + 1) / 2) - mp.log(mp.pi) / 2
    return scale + log_kummer(order, mp.mpf(mean) / mp.mpf(std))


def assert_equal(actual, expected):
    assert abs(actual - expected) <= 1e-11 * max(1, abs(expected)), (actual, expected)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("std", [1.0, 37.5])
def test_moments(order, ratio, std):
    with mp.workdps(60):
        expected = reference(order, ratio * std, std)
        assert_equal(log_absolute_moment(order, ratio * std, std), expected)
        assert_equal(log_absolute_moment(order, -ratio * std, std), expected)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_reference_by_integration(order):
    with mp.workdps(30):
        integrand = lambda t: abs(t) ** order * mpmath.npdf(t, 0.7, 1.3)  # noqa: E731
        expected = mp.log(mpmath.quad(integrand, [-30, -3, 0, 3, 30]))
        assert_equal(reference(order, 0.7, 1.3), expected)
        assert_equal(log_absolute_moment(order, 0.7, 1.3), expected)


def test_without_deviation():
    assert log_absolute_moment(5, 3.0, 0.0) == pytest.approx(5 * math.log(3), rel=1e-15)
    assert log_absolute_moment(5, -3.0, 0.0) == log_absolute_moment(5, 3.0, 0.0)
    assert log_absolute_moment(0, 0.0, 0.0) == 0
    assert log_absolute_moment(3, 0.0, 0.0) == -math.inf
    # the limit is reached smoothly
    assert log_absolute_moment(101, 3.0, 1e-9) == pytest.approx(log_absolute_moment(101, 3.0, 0.0), rel=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 50, 101])
@pytest.mark.parametrize("ratio", [0, 0.3, 3, 12.1, 30, 1e4])
def test_log_psi(depth, ratio):
    std = 12.5
    with mp.workdps(60):
        expected = 2 * ((depth - 1) * mp.log(std) + log_kummer(depth - 1, ratio))
        assert_equal(log_psi(depth, ratio * std, std), expected)


def test_log_psi_at_the_edges():
    assert log_psi(1, 10.0, 2.0) == 0
    assert log_psi(5, 0.0, 0.0) == -math.inf
    # σ → 0: the ratio for two sets is that of μ^{2(k−1)}
    assert log_psi(5, 6.0, 0.0) - log_psi(5, 3.0, 0.0) == pytest.approx(8 * math.log(2), rel=1e-12)


@pytest.mark.parametrize("order", [-1, 1.5])
def test_wrong_orders(order):
    with pytest.raises(ValueError, match=f"order: expected an integer of at least 0, but got {order}"):
        log_absolute_moment(order, 1.0, 1.0)


@pytest.mark.parametrize(("mean", "std"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf), (1.0, -1.0)])
def test_wrong_numbers(mean, std):
    with pytest.raises(ValueError, match=r"(mean|std): expected a finite number( >= 0)?, but got"):
        log_absolute_moment(3, mean, std)
    with pytest.raises(ValueError, match=r"(mean|std): expected a finite number( >= 0)?, but got"):
        log_psi(3, mean, std)


@pytest.mark.parametrize("depth", [0, -2, 2.5])
def test_wrong_depths(depth):
    with pytest.raises(ValueError, match=f"depth: expected a positive integer, but got {depth}"):
        log_psi(depth, 1.0, 1.0)
