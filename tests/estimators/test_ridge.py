"""The ridge regression, against scikit-learn and against fits that really leave a point out."""

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from lightning_tansens.estimators.calibrated.ridge import STRENGTHS, Ridge

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 3)) * [1.0, 10.0, 0.1]
Y = X @ [0.5, 0.2, 3.0] + 0.3 * RNG.normal(size=9)
SCALE = np.sqrt((X**2).mean(0))


def fitted(strength, x, y):
    return SklearnRidge(alpha=strength * len(Y), fit_intercept=False).fit(x / SCALE, y)


def left_out_errors(strength):
    errors = []
    for k in range(9):
        others = np.arange(9) != k
        errors.append(Y[k] - fitted(strength, X[others], Y[others]).predict(X[k : k + 1] / SCALE)[0])
    return np.array(errors)


BEST = min(STRENGTHS, key=lambda strength: (left_out_errors(strength) ** 2).mean())


def test_the_strength_with_the_least_errors_left_out_is_taken():
    fit = Ridge(X, Y)
    assert fit.coefficients == pytest.approx(fitted(BEST, X, Y).coef_ / SCALE)
    assert STRENGTHS[0] < BEST < STRENGTHS[-1]


def test_predictions():
    point = np.array([0.3, -2.0, 0.05])
    prediction = Ridge(X, Y).predict(point)
    assert prediction.value == pytest.approx(fitted(BEST, X, Y).predict([point / SCALE])[0])
    scaled, x = point / SCALE, X / SCALE
    leverage = scaled @ np.linalg.inv(x.T @ x + BEST * 9 * np.eye(3)) @ scaled
    assert prediction.stderr == pytest.approx(math.sqrt((left_out_errors(BEST) ** 2).mean() * (1 + leverage)))


def test_no_change_is_predicted_to_change_nothing():
    assert Ridge(X, Y).predict([0.0, 0.0, 0.0]).value == 0


def test_a_feature_that_never_moves_takes_no_part():
    still = np.column_stack([X, np.zeros(9)])
    assert Ridge(still, Y).predict([*X[0], 5.0]).value == pytest.approx(Ridge(X, Y).predict(X[0]).value)
    assert not Ridge(still, Y).predict([*X[0], 5.0]).inside


@pytest.mark.parametrize(("point", "inside"), [(0.0, True), (2.0, True), (2.1, False), (-0.1, False)])
def test_the_range_is_that_of_the_points_and_of_no_change(point, inside):
    assert Ridge([[1.0], [2.0], [1.5]], [1.0, 2.0, 1.4]).predict([point]).inside is inside


def test_no_change_is_inside_where_all_points_fall():
    assert Ridge([[-1.0], [-2.0], [-1.5]], [1.0, 2.0, 1.4]).predict([-0.1]).inside


@pytest.mark.parametrize(("x", "y"), [([[1.0], [2.0]], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), (X, Y[:-1])])
def test_shapes_that_do_not_fit_are_refused(x, y):
    with pytest.raises(ValueError, match=r"features: expected shape \(K, F\) with K >= 3 points"):
        Ridge(x, y)


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="features: expected finite features and values"):
        Ridge([[1.0], [2.0], [math.nan]], [1.0, 2.0, 3.0])
