"""The checks of arguments that everything shares."""

import math

import numpy as np
import pytest
import torch

from lightning_tansens import checks


@pytest.mark.parametrize("number", [1, 7, np.int64(3), 4.0, 10**6])
def test_counts_are_integers_by_value(number):
    checks.check_counts(n=number, at_most=checks.MAX_ORDER)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3", None, math.nan, math.inf, [1]])
def test_what_is_no_count_is_refused(number):
    with pytest.raises(ValueError, match="n: expected a positive integer, but got "):
        checks.check_counts(n=number)


def test_counts_have_limits():
    checks.check_counts(at_least=0, n=0)
    with pytest.raises(ValueError, match="n: expected an integer of at least 2, but got 1"):
        checks.check_counts(at_least=2, n=1)
    with pytest.raises(ValueError, match="n: expected an integer of at most 5, which memory allows, but got 6"):
        checks.check_counts(at_most=5, n=6)


@pytest.mark.parametrize("number", ["1", None, True, math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(number):
    with pytest.raises(ValueError, match="x: expected a finite number, but got "):
        checks.check_numbers(x=number)


def test_numbers_have_limits():
    checks.check_numbers(at_least=0, infinite=True, x=math.inf, y=np.float32(0))
    with pytest.raises(ValueError, match="y: expected a finite number >= 0, but got -1"):
        checks.check_numbers(at_least=0, x=1, y=-1)
    with pytest.raises(ValueError, match="x: expected a number >= 0, but got nan"):
        checks.check_numbers(at_least=0, infinite=True, x=math.nan)


@pytest.mark.parametrize("value", [0, 1, "0.5", None, True, math.nan])
def test_what_is_no_share_is_refused(value):
    checks.check_share("s", 0.5)
    with pytest.raises(ValueError, match="s: expected a number between 0 and 1, both excluded, but got "):
        checks.check_share("s", value)


@pytest.mark.parametrize("value", ["c", None, [], ["a"]])
def test_what_is_no_choice_is_refused(value):
    checks.check_choice("m", "a", ["a", "b"])
    with pytest.raises(ValueError, match=r"m: expected one of \['a', 'b'\] or else, but got "):
        checks.check_choice("m", value, ["a", "b"], "or else")


def test_text_callables_and_tensors():
    checks.check_text("t", "x")
    checks.check_callable("c", None)
    checks.check_callable("c", abs)
    checks.check_tensor("x", torch.zeros(1))
    with pytest.raises(TypeError, match="t: expected text, but got 3"):
        checks.check_text("t", 3)
    with pytest.raises(ValueError, match="t: expected text, but got an empty one"):
        checks.check_text("t", "")
    with pytest.raises(TypeError, match="c: expected a callable or None, but got 0"):
        checks.check_callable("c", 0)
    with pytest.raises(TypeError, match="x: expected a tensor, but got list"):
        checks.check_tensor("x", [1])


@pytest.mark.parametrize("positions", [[0, 4], (0, 4), range(0, 8, 4), torch.tensor([0, 4]), np.array([0, 4])])
def test_positions_are_integers(positions):
    assert checks.checked_positions("p", positions, 2) == [0, 4]


@pytest.mark.parametrize("positions", [[0.5, 1], "ab", b"ab", 3, None, ["a", "b"], torch.tensor([0.0, 1.0])])
def test_what_are_no_positions_is_refused(positions):
    with pytest.raises(TypeError, match="p: expected one integer for each of the 2 samples, but got "):
        checks.checked_positions("p", positions, 2)


def test_positions_are_one_for_each_sample_and_none_is_negative():
    with pytest.raises(ValueError, match="p: expected one for each of the 2 samples, but got 3"):
        checks.checked_positions("p", [0, 1, 2], 2)
    with pytest.raises(ValueError, match="p: expected positions from 0 on, but got -1"):
        checks.checked_positions("p", [0, -1], 2)
