"""Entropy and mutual information: by hand, against other implementations, in their limits and on average."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

from lightning_tansens.functional.information import entropy, mutual_information


def cells(first, second):
    """Σ p log(p / (p q)) over the cells of the table, in 30 digits."""
    samples = len(first)
    pairs, rows, columns = Counter(zip(first, second)), Counter(first), Counter(second)
    with mp.workdps(30):
        terms = [
            mp.mpf(count) / samples * mp.log(mp.mpf(count) * samples / (rows[i] * columns[j]))
            for (i, j), count in pairs.items()
        ]
        return float(mp.fsum(terms))


series = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=series)
def test_against_the_sum_over_cells(pairs):
    first, second = zip(*pairs)
    actual = mutual_information(torch.tensor(first), torch.tensor(second))
    assert actual == pytest.approx(cells(first, second), rel=1e-12, abs=1e-13)
    assert actual >= 0
    swapped = mutual_information(torch.tensor(second), torch.tensor(first))
    assert swapped == pytest.approx(actual, rel=1e-12, abs=1e-13)
    # renaming the values changes nothing
    renamed = mutual_information(torch.tensor([2**62 - 5 * i for i in first]), torch.tensor(second) == 1)
    assert renamed == pytest.approx(cells(first, [j == 1 for j in second]), rel=1e-12, abs=1e-13)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pairs=series)
def test_the_correction_counts_rows_columns_and_cells(pairs):
    first, second = zip(*pairs)
    numbers = len(set(first)) + len(set(second)) - len(set(pairs)) - 1
    expected = cells(first, second) + float(Fraction(numbers, 2 * len(pairs)))
    tensors = torch.tensor(first), torch.tensor(second)
    assert mutual_information(*tensors, "miller_madow") == pytest.approx(expected, rel=1e-12, abs=1e-13)
    # no more than there is to know
    for one in tensors:
        assert mutual_information(*tensors, "miller_madow") <= entropy(one, "miller_madow") + 1e-12
        assert mutual_information(*tensors) <= entropy(one) + 1e-12


def test_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for values in (2, 7, 400):
        first = rng.integers(values, size=300)
        second = (first + rng.integers(3, size=300)) % 5
        actual = mutual_information(torch.from_numpy(first), torch.from_numpy(second))
        assert actual == pytest.approx(metrics.mutual_info_score(first, second), rel=1e-9)


def test_by_hand():
    # the table [[2, 1], [0, 1]]
    first, second = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    information = 0.5 * math.log(2 * 4 / (3 * 2)) + 0.25 * math.log(1 * 4 / (3 * 2)) + 0.25 * math.log(1 * 4 / (1 * 2))
    assert mutual_information(first, second) == pytest.approx(information, rel=1e-12)
    # 2 rows, 2 columns, 3 cells: (2 + 2 − 3 − 1) / 8 = 0
    assert mutual_information(first, second, "miller_madow") == pytest.approx(information, rel=1e-12)
    assert entropy(first) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4), rel=1e-12)
    assert entropy(first, "miller_madow") == pytest.approx(entropy(first) + 1 / 8, rel=1e-12)


def test_independence():
    grid = torch.tensor(list(itertools.product(range(3), range(4)))).repeat(2, 1)
    first, second = grid[:, 0], grid[:, 1]
    assert mutual_information(first, second) == pytest.approx(0, abs=1e-14)
    assert mutual_information(first, second, "miller_madow") == pytest.approx(-(3 - 1) * (4 - 1) / 48, rel=1e-9)
    assert mutual_information(first, torch.zeros(24, dtype=torch.long)) == 0
    assert entropy(first * 0) == entropy(torch.tensor([5])) == 0
    for sizes in itertools.product(range(2, 8), repeat=2):  # in some of these tables the difference is rounded below zero
        grid = torch.tensor(list(itertools.product(*map(range, sizes))))
        assert 0 <= mutual_information(grid[:, 0], grid[:, 1]) < 1e-14


@pytest.mark.parametrize("correction", ["none", "miller_madow"])
def test_identity_and_distinct_values(correction):
    labels = torch.tensor([0, 2, 2, 1, 0, 2])
    ceiling = entropy(labels, correction)
    assert mutual_information(labels, labels, correction) == pytest.approx(ceiling, rel=1e-12)
    assert mutual_information(labels, 2 - labels, correction) == pytest.approx(ceiling, rel=1e-12)
    assert mutual_information(torch.tensor([9, 8, 7, 6, 5, 4]), labels, correction) == pytest.approx(ceiling, rel=1e-12)


def test_bias_of_independent_variables():
    rng = np.random.default_rng(1)
    samples, draws, rows, columns = 200, 600, 4, 3
    found = {"none": [], "miller_madow": []}
    for _ in range(draws):
        first, second = (torch.from_numpy(rng.integers(k, size=samples)) for k in (rows, columns))
        for correction, values in found.items():
            values.append(mutual_information(first, second, correction))
    bias = (rows - 1) * (columns - 1) / (2 * samples)  # 2 N I has 6 degrees of freedom of χ²
    errors = {correction: np.std(values) / math.sqrt(draws) for correction, values in found.items()}
    assert abs(np.mean(found["none"]) - bias) < 4 * errors["none"] < bias / 4
    assert abs(np.mean(found["miller_madow"])) < 4 * errors["miller_madow"]


def test_refusals():
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"correction: expected one of \['none', 'miller_madow'\], but got 'jackknife'"):
        mutual_information(labels, labels, "jackknife")
    with pytest.raises(ValueError, match="correction: expected one of"):
        entropy(labels, "jackknife")
    with pytest.raises(ValueError, match="first, second: expected series of one length, but got 2 and 3 numbers; pass both"):
        mutual_information(labels, torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match=r"first: expected a series of shape \(N,\) .* but got shape \(2, 3\); pass one"):
        mutual_information(torch.zeros(2, 3), labels)
    with pytest.raises(ValueError, match=r"second: expected a series .* at least one number, but got shape \(0,\)"):
        mutual_information(labels, labels[:0])
    with pytest.raises(ValueError, match=r"series: expected a series .* but got shape \(\)"):
        entropy(torch.tensor(3))
