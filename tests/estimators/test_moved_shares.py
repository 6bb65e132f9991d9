"""Class shares that explain a set, against a general solver and on sets whose shares are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from lightning_tansens.estimators import Outputs
from lightning_tansens.estimators.headline import Fit
from lightning_tansens.estimators.headline.moved_shares import MovedShares
from lightning_tansens.estimators.inputs import Inputs

CENTRES = np.array([[0.0, 0, 0, 0, 0], [2, 1, 0, 0, 0], [0, 2, 1, 0, 0]])


def drawn(shares, count, seed, moved=0.0):
    """Returns numbers and labels of a population with these class shares, all samples moved in a direction of no class."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, count, p=shares)
    return CENTRES[labels] + generator.normal(size=(count, 5)) + moved * np.array([0, 0, 0, 1, -1]), labels


KNOWN, LABELS = drawn([0.5, 0.3, 0.2], 600, 0)
FOUND = MovedShares.fitted(KNOWN, LABELS, 3)


def shares_of(numbers):
    weights = FOUND.weights(numbers.mean(0)[None], np.array([float(len(numbers))]))[0]
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0
    return np.array([weights[label == LABELS].sum() for label in range(3)])


def by_a_general_solver(mean, count):
    """Returns the moved shares as the docstring defines them."""
    scaled = (KNOWN - KNOWN.mean(0)) / (KNOWN.std(0) + 1e-6)
    x, own = (mean - KNOWN.mean(0)) / (KNOWN.std(0) + 1e-6), np.bincount(LABELS) / 600
    centres = np.stack([scaled[label == LABELS].mean(0) for label in range(3)], 1)
    within = scaled - centres.T[LABELS]
    inverse = np.linalg.inv(within.T @ within / 600 + 0.02 * np.eye(5))

    def left(shares, noise=1.0):
        away = x - centres @ shares
        return away @ inverse @ away / noise

    def noise(shares):
        return 1 / count + (shares**2 / np.bincount(LABELS)).sum()

    sums = {"type": "eq", "fun": lambda shares: shares.sum() - 1}
    best = minimize(left, own, bounds=[(0, 1)] * 3, constraints=sums, method="SLSQP", options={"ftol": 1e-14}).x
    rest, explained = left(best, noise(best)), left(own, noise(own)) - left(best, noise(best))
    return own + max(0, 1 - 2 * 2 / explained) / (1 + (rest / 3 / 1.5) ** 4) * (best - own)


@pytest.mark.parametrize("moved", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("shares", [[0.1, 0.2, 0.7], [0.45, 0.35, 0.2], [0.0, 0.0, 1.0]])
def test_it_is_the_constrained_least_squares_fit(shares, moved):
    numbers, _ = drawn(shares, 400, 1, moved)
    assert shares_of(numbers) == pytest.approx(by_a_general_solver(numbers.mean(0), 400), abs=2e-4)


def test_other_shares_are_found_and_noise_and_other_changes_move_none():
    own, wanted = np.bincount(LABELS) / 600, [0.1, 0.2, 0.7]
    numbers, labels = drawn(wanted, 2000, 2)
    true = np.bincount(labels) / 2000
    assert np.abs(shares_of(numbers) - true).max() < 0.25 * np.abs(own - true).max()
    assert shares_of(drawn([0.5, 0.3, 0.2], 2000, 3)[0]) == pytest.approx(own, abs=0.03)
    away = np.abs(shares_of(drawn(wanted, 2000, 4, moved=0.5)[0]) - own).max()
    assert away < 0.02 * np.abs(own - wanted).max()


def test_classes_without_samples_keep_no_weight():
    found = MovedShares.fitted(KNOWN, LABELS, 5)
    weights = found.weights(KNOWN[LABELS == 2].mean(0)[None], np.array([100.0]))[0]
    assert weights[LABELS == 2].sum() > 0.6
    single = MovedShares.fitted(np.vstack([KNOWN, KNOWN[:1] + 9]), np.append(LABELS, 3), 4)
    kept = single.weights(KNOWN[LABELS == 2].mean(0)[None], np.array([100.0]))[0]
    assert kept[-1] == pytest.approx(1 / 601, rel=1e-6)  # one sample tells no class's mean
    lonely = MovedShares.fitted(KNOWN[:3], np.arange(3), 3)
    assert lonely.weights(KNOWN[:1], np.array([50.0])) == pytest.approx(np.full((1, 3), 1 / 3))


def outputs_of(inputs, labels=None, sharpness=1.0):
    """Returns outputs at the class means' distances, with a trajectory that agrees with them."""
    scores = -sharpness * np.square(inputs[:, None] - CENTRES).sum(2) / 2
    found = Outputs.of(scores, labels)
    return replace(found, inputs=Inputs(inputs.astype(np.float32), is_table=True))


def test_the_second_head_follows_other_class_shares():
    # the network never finds class 2, so that its share decides the error
    def outputs(inputs, labels=None):
        found = outputs_of(inputs, labels)
        scores = found.outputs.copy()
        scores[:, 2] -= 3
        return replace(Outputs.of(scores, labels), inputs=found.inputs)

    fit = Fit(outputs(KNOWN, LABELS))
    inputs, labels = drawn([0.1, 0.2, 0.7], 1000, 5)
    target = outputs(inputs, labels)
    level, truth = fit.calibration.level[0], 1 - target.correct.mean()
    blind = Fit(replace(outputs(KNOWN, LABELS), inputs=None))
    with_shares, without = (one.estimate(replace(target, labels=None), "free")[0].ratio * level for one in (fit, blind))
    assert abs(with_shares - truth) < 0.5 * abs(without - truth)
    assert abs(with_shares - truth) < 0.25 * abs(level - truth)


def test_a_set_that_is_far_from_every_class_moves_no_share():
    one = np.ones(1)
    found = MovedShares(np.array([0, 0, 1, 1]), np.array([0.5, 0.5]), np.array([[1.0, 1.0]]), np.eye(1), 0 * one, one)
    assert found.weights(np.array([[-1e7]]), np.array([50.0])) == pytest.approx(np.full((1, 4), 0.25))
