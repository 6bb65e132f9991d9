"""The bounds as functions of numbers, against mpmath."""

import math

import mpmath
import pytest
import torch
from mpmath import mp

from lightning_tansens.bounds.active_nodes import hoeffding_half_width, log_active_node_bound, log_mean_exp

DEPTHS = [1, 2, 3, 4, 10, 101, 1000]
SIZES = [0.01, 1.0, 37.5, 1e3, 1e6]


def moment(order, mean, std):
    """E|T|^p for T ~ N(μ, σ²), by Kummer's function."""
    if std == 0:
        return mp.mpf(mean) ** order
    mean, std, half = mp.mpf(mean), mp.mpf(std), mp.mpf(order) / 2
    kummer = mpmath.hyp1f1(-half, mp.mpf(1) / 2, -(mean**2) / (2 * std**2))
    return std**order * mp.mpf(2) ** half * mpmath.gamma(half + mp.mpf(1) / 2) / mp.sqrt(mp.pi) * kummer


def consistent(parameters, inputs, k, mean, std, weight):
    paths = moment(2 * (k - 1), mean, std) / mp.mpf(k - 1) ** (2 * (k - 1)) if k > 1 else 1
    return parameters * inputs * mp.mpf(weight) ** (2 * (k - 1)) * paths


def printed(parameters, inputs, k, mean, std, weight):
    paths = moment(k - 1, mean, std) ** 2 / mp.mpf(k) ** (2 * k)
    return parameters * inputs * mp.mpf(weight) ** (2 * (k - 1)) * paths


FORMS = {"consistent": consistent, "printed": printed}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("std", [0.0, *SIZES])
def test_theorem_2(form, depth, std):
    for mean in SIZES:
        for weight in (1e-3, 2.5):
            actual = log_active_node_bound(12345, 678, depth, mean, std, weight, form=form)
            with mp.workdps(60):
                expected = mp.log(FORMS[form](12345, 678, depth, mean, std, weight))
                assert abs(actual - expected) <= 1e-11 * max(1, abs(expected)), (mean, weight)


def test_the_moment_by_integration():
    with mp.workdps(30):
        integrand = lambda t: abs(t) ** 6 * mpmath.npdf(t, 2.0, 1.5)  # noqa: E731
        expected = mp.log(4 * 5 * mp.mpf(0.5) ** 6 * mpmath.quad(integrand, [-40, -5, 0, 5, 40]) / 3**6)
    assert log_active_node_bound(4, 5, depth=4, mean=2.0, std=1.5, max_weight=0.5) == pytest.approx(
        float(expected), rel=1e-13
    )


def test_the_printed_form_is_no_bound():
    """k = 2, D = 1, one unit that is always active, w = 1: f = w_2 relu(w_1 x) has S = (w_2, w_1) = (1, 1)."""
    sizes = {"num_parameters": 2, "input_dim": 1, "depth": 2, "mean": 1.0, "max_weight": 1.0}
    for std in (0.0, 1e-9):
        assert math.exp(log_active_node_bound(**sizes, std=std, form="printed")) == pytest.approx(0.125, rel=1e-12)
        assert math.exp(log_active_node_bound(**sizes, std=std, form="consistent")) == pytest.approx(2, rel=1e-12)


def test_the_consistent_form_is_the_default_and_never_below_the_printed_one():
    for depth in DEPTHS:
        for mean in SIZES:
            for std in (0.0, *SIZES):
                default = log_active_node_bound(10, 10, depth, mean, std, 0.1)
                assert default == log_active_node_bound(10, 10, depth, mean, std, 0.1, form="consistent")
                assert default >= log_active_node_bound(10, 10, depth, mean, std, 0.1, form="printed")


def test_outputs_count_squared_in_the_consistent_form():
    for form, factor in (("consistent", 49), ("printed", 1)):
        one = log_active_node_bound(10, 10, 3, 5.0, 1.0, 0.1, form=form)
        seven = log_active_node_bound(10, 10, 3, 5.0, 1.0, 0.1, form=form, num_outputs=7)
        assert seven - one == pytest.approx(math.log(factor), abs=1e-12)
        assert log_active_node_bound(10, 10, 1, 5.0, 1.0, 0.1, form=form, num_outputs=7) == pytest.approx(math.log(100))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_that_could_be_sensitive(form):
    assert log_active_node_bound(0, 5, 3, 4.0, 1.0, 0.5, form=form) == -math.inf
    assert log_active_node_bound(6, 5, 3, 4.0, 1.0, 0.0, form=form) == -math.inf
    assert log_active_node_bound(6, 5, 3, 0.0, 0.0, 0.5, form=form) == -math.inf
    # one layer has no other weight on its paths and no hidden unit
    assert log_active_node_bound(6, 5, 1, 0.0, 0.0, 0.0, form=form) == pytest.approx(math.log(30), rel=1e-15)


VALID = {"num_parameters": 6, "input_dim": 5, "depth": 3, "mean": 4.0, "std": 1.0, "max_weight": 0.5}


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("num_parameters", -1, "num_parameters: expected an integer of at least 0, but got -1"),
        ("num_parameters", 2.5, "num_parameters: expected an integer of at least 0, but got 2.5"),
        ("input_dim", 0, "input_dim: expected a positive integer, but got 0"),
        ("depth", 0, "depth: expected a positive integer, but got 0"),
        ("depth", 1.5, "depth: expected a positive integer, but got 1.5"),
        ("num_outputs", 0, "num_outputs: expected a positive integer, but got 0"),
        ("max_weight", -0.5, "max_weight: expected a finite number >= 0, but got -0.5"),
        ("max_weight", math.inf, "max_weight: expected .* but got inf"),
        ("max_weight", math.nan, "max_weight: expected .* but got nan"),
        ("std", -1.0, "std: expected a finite number >= 0, but got -1.0"),
        ("mean", math.nan, "mean: expected a finite number, but got nan"),
        ("form", "exact", r"form: expected one of \['printed', 'consistent'\], but got 'exact'"),
    ],
)
def test_wrong_numbers(argument, value, message):
    with pytest.raises(ValueError, match=message):
        log_active_node_bound(**{**VALID, argument: value})


def test_log_mean_exp():
    values = torch.tensor([-2000.0, -2001.0, -math.inf])
    with mp.workdps(30):
        expected = mp.log((mp.exp(-2000) + mp.exp(-2001)) / 3)
    assert log_mean_exp(values) == pytest.approx(float(expected), rel=1e-15)
    assert log_mean_exp(torch.full((4,), -math.inf)) == -math.inf
    with pytest.raises(ValueError, match="values: expected at least one number, but got none"):
        log_mean_exp(torch.zeros(0))


@pytest.mark.parametrize("maximum", [0.3, 10.0, 1e100])
@pytest.mark.parametrize("samples", [1, 100, 10**7])
@pytest.mark.parametrize("confidence", [1e-6, 0.5, 0.95, 1 - 1e-9])
def test_hoeffding_against_the_probability(maximum, samples, confidence):
    epsilon = hoeffding_half_width(maximum, samples, confidence)
    with mp.workdps(40):
        probability = mp.exp(-(mp.mpf(epsilon) ** 2) * samples / (2 * mp.mpf(maximum) ** 2))
        assert abs(probability - (1 - mp.mpf(confidence))) <= 1e-13 * (1 - mp.mpf(confidence))


@pytest.mark.parametrize("confidence", [0.21, 0.5, 0.9, 0.999])
def test_hoeffding_holds_for_the_worst_variables(confidence):
    """Numbers that are 0 or S_max: the exact distribution of their mean is binomial."""
    samples, maximum = 60, 3.0
    epsilon = hoeffding_half_width(maximum, samples, confidence)
    for p in (0.05, 0.3, 0.5, 0.8):
        outside = sum(
            math.comb(samples, j) * p**j * (1 - p) ** (samples - j)
            for j in range(samples + 1)
            if abs(maximum * j / samples - maximum * p) > epsilon
        )
        assert outside <= 1 - confidence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 10), "maximum: expected a finite number >= 0, but got -1.0"),
        ((math.nan, 10), "maximum: expected .* but got nan"),
        ((1.0, 0), "num_samples: expected a positive integer, but got 0"),
        ((1.0, 2.5), "num_samples: expected a positive integer, but got 2.5"),
        ((1.0, 10, 0.0), "confidence: expected a number between 0 and 1, both excluded, but got 0.0"),
        ((1.0, 10, 1.0), "confidence: expected a number between 0 and 1, both excluded, but got 1.0"),
    ],
)
def test_wrong_arguments_of_hoeffding(arguments, message):
    with pytest.raises(ValueError, match=message):
        hoeffding_half_width(*arguments)
