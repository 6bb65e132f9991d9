"""Each part of the headline against plain NumPy or SciPy."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog, minimize

from lightning_tansens.estimators import Outputs
from lightning_tansens.estimators.headline import Blur, Fit, Shift, Strong, copies_for, heads, plans
from lightning_tansens.estimators.headline.calibration import Calibration
from lightning_tansens.estimators.headline.gate import CORRUPTED, MOVED, fit_gate, logistic, sharpened
from lightning_tansens.estimators.headline.heads import (
    RegressionEstimator,
    WeightedCandidates,
    WeightedLosses,
    simplex_weights,
)
from lightning_tansens.estimators.headline.interval import Spread, nearby, off_scale, on_scale, slopes, variance_of_sampling
from lightning_tansens.estimators.headline.plans import hard_kernel, plan_means, scale_columns
from lightning_tansens.estimators.headline.reweighting import reweightings
from lightning_tansens.estimators.headline.samples import LOWEST, Samples
from tests.estimators.data import trajectory
from tests.estimators.simulated import CLASSES, COPIES, drawn, outputs, reference

RNG = np.random.default_rng(5)
POSTERIOR = RNG.dirichlet(np.full(3, 0.7), 14)
WEIGHTS = RNG.dirichlet(np.full(14, 3.0), 4)
SHARES = np.array([0.5, 0.3, 0.2])


def dense_plans(kernel, weights, scalings):
    scaled = kernel * scalings[:, None, :]
    return weights[:, :, None] * scaled / scaled.sum(2, keepdims=True)


@pytest.mark.parametrize("kernel", [POSTERIOR, hard_kernel(POSTERIOR)], ids=["soft", "hard"])
def test_plans_have_the_asked_sums(kernel, monkeypatch):
    monkeypatch.setattr(plans, "TOLERANCE", 1e-9)
    scalings = scale_columns(kernel, WEIGHTS, SHARES)
    found = dense_plans(kernel, WEIGHTS, scalings)
    assert found.sum(2) == pytest.approx(WEIGHTS)
    assert found.sum(1) == pytest.approx(np.tile(SHARES, (4, 1)), abs=1e-4)
    cost = RNG.normal(size=POSTERIOR.shape)
    assert plan_means(kernel, WEIGHTS, scalings, cost) == pytest.approx((found * cost).sum((1, 2)))


def test_the_hard_transport_is_the_linear_program_up_to_its_blur(monkeypatch):
    monkeypatch.setattr(plans, "TOLERANCE", 1e-9)
    blur, cost = 0.05, 1 - POSTERIOR
    kernel = hard_kernel(POSTERIOR)
    found = plan_means(kernel, WEIGHTS, scale_columns(kernel, WEIGHTS, SHARES), cost)
    rows, columns = np.kron(np.eye(14), np.ones(3)), np.kron(np.ones(14), np.eye(3))
    for weights, value in zip(WEIGHTS, found, strict=True):
        least = linprog(cost.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=np.concatenate([weights, SHARES])).fun
        assert least - 1e-4 <= value <= least + blur * np.log(3)
        assert value < least + 0.5 * ((weights @ cost @ SHARES) - least)  # far from the plan that moves nothing


def test_the_posterior_with_its_own_shares_stays():
    own = WEIGHTS[:1] @ POSTERIOR
    assert scale_columns(POSTERIOR, WEIGHTS[:1], own[0]) == pytest.approx(np.ones((1, 3)), abs=1e-6)


@pytest.mark.parametrize("shrink", [0.01, 0.3])
def test_simplex_weights_are_those_of_a_general_solver(shrink):
    active = 0
    for _ in range(8):
        ratios, truth, counted = RNG.normal(size=(6, 4)), RNG.normal(size=6), RNG.random(6) + 0.1

        def objective(weights, ratios=ratios, truth=truth, counted=counted):
            squares = np.square(ratios @ weights - truth)
            return np.average(squares, weights=counted) + shrink * np.square(weights - 0.25).sum()

        found = simplex_weights(ratios, truth, shrink, counted)
        best = minimize(
            objective,
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            tol=1e-12,
        )
        assert found.sum() == pytest.approx(1)
        assert found.min() >= 0
        assert objective(found) <= best.fun + 1e-8
        assert found == pytest.approx(best.x, abs=1e-3)
        active += (found == 0).sum()
        assert simplex_weights(ratios, truth, shrink) == pytest.approx(
            simplex_weights(ratios, truth, shrink, np.full(6, 3.0))
        )
    assert active or shrink > 0.1  # the bounds matter in some of them


def test_weighted_candidates():
    error, loss = np.log(RNG.random((5, 4))), RNG.normal(size=(5, 3))
    head = WeightedCandidates(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.5, 0.0]))
    found = head.predict((error, loss))
    assert found[:, 0] == pytest.approx(np.log(np.exp(error) @ [0.1, 0.2, 0.3, 0.4]))
    assert found[:, 1] == pytest.approx(loss[:, :2].mean(1))
    assert head.spread((error, loss), found)[:, 1] == pytest.approx(np.square(loss[:, 0] - loss[:, 1]) / 4)
    exact = np.stack([error[:, 1], loss[:, 2]], 1)
    every = np.ones(5, bool)
    fitted = WeightedCandidates.fitted((error, loss), exact, every)
    assert fitted.error.argmax() == 1
    assert fitted.loss.argmax() == 2
    assert WeightedCandidates.fitted((error[:0], loss[:0]), exact[:0], every[:0]).loss == pytest.approx(np.full(3, 1 / 3))


def test_the_first_head_is_stretched_to_the_copies():
    generator = np.random.default_rng(0)
    error, loss = generator.random((5, 4)), generator.normal(size=(5, 3))
    every = np.ones(5, bool)
    never_shrunk = WeightedCandidates.fitted((error, loss), np.zeros((5, 2)), every)
    assert never_shrunk.stretch == pytest.approx([1, 1])
    truth = np.stack([error[:, 1], loss[:, 2]], 1) * 3
    head = WeightedCandidates.fitted((error, loss), truth, every)
    plain = WeightedCandidates(head.error, head.loss).predict((error, loss))
    for quantity, drawn_to_one in enumerate((0.2, 1.0)):
        own, true = plain[:, quantity], truth[:, quantity]
        slope = (np.mean(own * true) + drawn_to_one) / (np.mean(own**2) + drawn_to_one)
        assert slope > 1.2
        assert head.stretch[quantity] == pytest.approx(slope)
        assert head.predict((error, loss))[:, quantity] == pytest.approx(slope * own)
    centre = head.predict((error, loss))
    squares = np.square(head.stretch[1] * loss - centre[:, 1:])
    assert head.spread((error, loss), centre)[:, 1] == pytest.approx(squares @ head.loss)


def test_a_ratio_of_errors_counts_less_the_larger_it_is():
    error, loss = np.log(RNG.random((5, 4)) + 0.5), RNG.normal(size=(5, 3))
    truth = np.stack([np.log(RNG.random(5) + 0.5), loss[:, 0]], 1)
    found = WeightedCandidates.fitted((error, loss), truth, np.ones(5, bool)).error
    expected = simplex_weights(np.exp(error), np.exp(truth[:, 0]), heads.SHRINK[0], np.exp(-truth[:, 0]))
    assert found == pytest.approx(expected)
    assert not np.allclose(found, simplex_weights(np.exp(error), np.exp(truth[:, 0]), heads.SHRINK[0]))


def test_strong_copies_count_for_the_error_alone():
    generator = np.random.default_rng(1)
    error, loss, mild = generator.random((6, 4)), generator.normal(size=(6, 3)), np.arange(6) < 4
    truth = np.stack([error[:, 0], loss[:, 0]], 1)
    changed = truth + 0.4 * ~mild[:, None]
    found, other = (WeightedCandidates.fitted((error, loss), one, mild) for one in (truth, changed))
    assert not np.allclose(found.error, other.error)
    assert other.loss == pytest.approx(found.loss)
    assert other.stretch[1] == pytest.approx(found.stretch[1])
    assert WeightedLosses.fitted((loss,), truth[:, 1:], mild).weights == pytest.approx(
        WeightedLosses.fitted((loss[mild],), truth[mild, 1:], mild[mild]).weights
    )


def test_the_regression_estimator_is_least_squares(monkeypatch):
    monkeypatch.setattr(heads, "RIDGE", 1e-12)
    features, truth = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 2))
    found = RegressionEstimator.fitted(features, truth)
    design = np.column_stack([np.ones(40), features])
    coefficients = np.linalg.lstsq(design, truth, rcond=None)[0]
    means = RNG.normal(size=(5, 3))
    assert found.predict(means) == pytest.approx(np.column_stack([np.ones(5), means]) @ coefficients, abs=1e-4)
    assert found.residual == pytest.approx(np.square(truth - design @ coefficients).mean(0), abs=1e-6)
    z = (means - features.mean(0)) / features.std(0)
    correlation = np.corrcoef(features.T)
    assert found.distance(means) == pytest.approx([row @ np.linalg.inv(correlation) @ row for row in z], rel=1e-3)
    monkeypatch.setattr(heads, "RIDGE", 1e9)
    shrunk = RegressionEstimator.fitted(features, truth)
    assert shrunk.predict(means) == pytest.approx(np.tile(truth.mean(0), (5, 1)), abs=1e-6)


def test_the_regression_estimator_adds_what_is_left_of_re_weighted_samples():
    features, truth = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 2))
    found = RegressionEstimator.fitted(features, truth)
    z, means, weights = (
        (features - features.mean(0)) / features.std(0),
        RNG.normal(size=(5, 3)),
        RNG.dirichlet(np.ones(40), 5),
    )
    slopes = np.linalg.solve(z.T @ z / 40 + 0.1 * np.eye(3), z.T @ (truth - truth.mean(0)) / 40)
    moved = (means - features.mean(0)) / features.std(0)
    by_hand = weights @ truth + (moved - weights @ z) @ slopes
    assert found.predict(means, weights) == pytest.approx(by_hand, abs=1e-4)
    assert found.predict(means) == pytest.approx(truth.mean(0) + moved @ slopes, abs=1e-4)


def test_the_gate_is_a_ridge_logistic_regression():
    signatures = np.column_stack([np.ones(30), RNG.normal(size=(30, 2))])
    moved = signatures[:, 1] + 0.5 * RNG.normal(size=30) > 0
    weights = np.where(moved, MOVED / moved.sum(), CORRUPTED / (~moved).sum())

    def objective(theta):
        signed = np.where(moved, 1, -1) * (signatures @ theta)
        return (weights * np.log1p(np.exp(-signed))).sum() + 0.3 / 2 * theta @ theta

    found = fit_gate(signatures, moved)
    assert found == pytest.approx(minimize(objective, np.zeros(3), tol=1e-10).x, abs=1e-3)
    assert logistic(np.array([0.0, 1e9, -1e9])) == pytest.approx([0.5, 1, 0], abs=1e-8)
    assert sharpened(np.array([0.0, 0.25, 1.0])) == pytest.approx([0, 0.1, 1])


def test_samples_are_what_numpy_says():
    inputs, labels = drawn(30, 3)
    known = outputs(inputs, labels)
    samples = Samples.of(known, 1.5)
    earlier = known.earlier.predictions[1:]  # the first tenth of eight is left out
    now, log_p = known.outputs.argmax(1), known.log_probabilities
    powers = known.ensemble ** (1 / 1.5)
    posterior = powers / powers.sum(1, keepdims=True)
    assert samples.posterior == pytest.approx(posterior, abs=1e-6)
    assert samples.disagreement == pytest.approx(np.mean([past != now for past in earlier], 0))
    assert samples.pseudo_loss == pytest.approx([-log_p[n, earlier[:, n]].mean() for n in range(30)])
    assert samples.features[:, 0] == pytest.approx(1 - posterior[np.arange(30), now], abs=1e-6)
    assert samples.features[:, 2] == pytest.approx(-(posterior * log_p).sum(1), abs=1e-5)
    assert samples.features[:, 4:] == pytest.approx(posterior[:, :-1], abs=1e-6)
    assert (samples.wrong.argmin(1) == now).all()
    assert samples.wrong.sum() == 30 * (CLASSES - 1)
    weights = np.random.default_rng(0).dirichlet(np.ones(30), 2)
    shares = samples.predicted_shares(weights)
    for m, s, c in itertools.product(range(2), range(len(earlier)), range(CLASSES)):
        assert shares[m, s, c] == pytest.approx(weights[m, earlier[s] == c].sum())


def test_few_snapshots_of_many_are_compared_and_gaps_are_filled():
    scores = RNG.normal(size=(20, 5, 3))
    scores[3, 2] = np.nan
    samples = Samples.of(Outputs.of(scores[-1], earlier=trajectory(scores[:-1])), 1.0)
    assert samples.earlier.shape == (17, 5)
    assert samples.compared.shape == (12, 5)
    assert (samples.compared[[0, -1]] == samples.earlier[[0, -1]]).all()
    assert samples.earlier[1, 2] == scores[-1, 2].argmax()
    masked = Samples.of(Outputs.of(np.array([[0.0, -np.inf, 1.0]])), 1.0)
    assert masked.log_probabilities.min() == LOWEST
    assert not masked.disagreement.any()
    assert np.isfinite(masked.features).all()


def test_many_classes_are_no_features():
    many = Samples.of(Outputs.of(RNG.normal(size=(5, 31))), 1.0)
    assert many.features.shape == (5, 4)
    assert Samples.of(Outputs.of(RNG.normal(size=(5, 30))), 1.0).features.shape == (5, 33)


def test_reweightings():
    inputs, labels = drawn(200, 4)
    samples = Samples.of(outputs(inputs), 1.0)
    found = reweightings(labels, CLASSES, samples.places, 7)
    assert found.weights.shape == (26, 200)
    assert found.weights.sum(1) == pytest.approx(1)
    assert found.weights * 200 == pytest.approx(np.rint(found.weights * 200))
    assert (found.weights >= 0).all()
    assert dict(zip(*np.unique(found.kinds, return_counts=True), strict=True)) == {
        "bootstrap": 6,
        "shares": 10,
        "subpopulation": 10,
    }
    own = np.bincount(labels, minlength=CLASSES) / 200
    moved = np.stack([np.bincount(labels, row, CLASSES) for row in found.weights])
    distances = {kind: np.abs(moved[found.kinds == kind] - own).sum(1).mean() for kind in np.unique(found.kinds)}
    assert distances["bootstrap"] < 0.15 < 0.4 < distances["shares"]
    own, *of_copies = found.with_copies([range(200)] * 11 + [range(150)])
    assert own is found
    assert of_copies[10].weights == pytest.approx(np.concatenate([np.full((1, 200), 1 / 200), found.weights[[4, 6, 16]]]))
    first = found.weights[[5, 7, 17], :150]
    assert of_copies[11].weights[1:] == pytest.approx(first / first.sum(1, keepdims=True))
    assert of_copies[11].kinds.tolist() == ["plain", "bootstrap", "shares", "subpopulation"]
    again, other = reweightings(labels, CLASSES, samples.places, 7), reweightings(labels, CLASSES, samples.places, 8)
    assert (again.weights == found.weights).all()
    assert (other.weights != found.weights).any()


def test_the_calibration_of_the_reference():
    inputs, labels = drawn(300, 5)
    known = outputs(inputs, labels)
    samples = Samples.of(known, 1.0)
    whole = np.full((1, 300), 1 / 300)
    calibration = Calibration(samples, labels, whole)
    assert calibration.level == pytest.approx([1 - known.correct.mean(), known.losses.mean()])
    found = calibration._numbers(samples, whole)
    assert found["threshold"] == pytest.approx(calibration.level[0])  # as many below it as are wrong
    assert found["shift"] == pytest.approx(0, abs=1e-12)
    assert found["divergence"] == pytest.approx(0, abs=1e-12)
    points = calibration.points(samples, whole)
    for ratios in (*points.candidates, points.free):
        assert ratios == pytest.approx(np.zeros_like(ratios), abs=1e-9)
    moved = np.random.default_rng(1).dirichlet(np.ones(300), 2)
    found, shares = calibration._numbers(samples, moved), samples.predicted_shares(moved)
    away = shares - samples.predicted_shares(whole)
    for m in range(2):
        mean = away[m].mean(0)
        assert found["shift"][m] == pytest.approx(np.abs(mean).sum() / 2)
        assert found["scatter"][m] == pytest.approx(np.mean([np.abs(row - mean).sum() / 2 for row in away[m]]))
    signatures, losses = calibration.points(samples, moved).signatures, calibration.points(samples, moved).candidates[1]
    assert signatures[:, 6] == pytest.approx(np.clip(losses[:, 1] - losses[:, 0], -5, 5))
    assert calibration.log_ratios(np.array([[0.0, 0.0]])) == pytest.approx(
        np.log([[0.5 / 300 / calibration.level[0], 1e-4 / calibration.level[1]]])
    )


def test_the_variance_of_sampling():
    inputs, labels = drawn(300, 5)
    samples = Samples.of(outputs(inputs, labels), 1.0)
    calibration = Calibration(samples, labels, np.full((1, 300), 1 / 300))
    error, loss = calibration.level
    residual = calibration.regression.residual
    twice, found = 2 * error, variance_of_sampling(np.array([2.0, 3.0]), calibration, 100)
    spread = twice * (1 - twice) / (error * (1 - error))
    assert found[0] == pytest.approx(residual[0] * spread * (1 / 300 + 1 / 100) / twice**2)
    assert found[1] == pytest.approx(residual[1] * (1 / 300 + 1 / 100) / loss**2)


def test_the_interval_adds_variances():
    down, up = Spread(0.04, (0.1, 0.3), 0.05, 0.1).reach
    assert down == pytest.approx(1.96 * np.sqrt(1.4 * 0.04 + 0.025 + 0.025 + 0.1))
    assert up == pytest.approx(1.96 * np.sqrt(1.4 * 0.04 + 0.075 + 0.025 + 0.1))
    down, up = Spread(0.04, (0.1, 0.3), 0.05, 0.1, novelty=0.5).reach
    assert down == pytest.approx(1.96 * np.sqrt(1.3 * (1.4 * 0.04 + 0.25 * (0.1 + 0.1 * 0.3) + 0.025 + 0.1)))
    assert up == pytest.approx(1.96 * np.sqrt(1.3 * (1.4 * 0.04 + 0.25 * (0.3 + 0.1 * 0.1) + 0.025 + 0.1)))


def test_nearby_copies_count_by_side_and_size():
    seen, changes, errors, change = *RNG.normal(size=(3, 9, 2)), np.array([0.5, -1.0])
    found = nearby(np.zeros(2), change, seen, changes, errors)
    for quantity in (0, 1):
        distances = [np.square(seen[m]).sum() + (change[quantity] - changes[m, quantity]) ** 2 for m in range(9)]
        kernel = np.exp(-np.array(distances) / (2 * sorted(distances)[2]))
        size = np.minimum((change[quantity] ** 2 + 0.09) / (changes[:, quantity] ** 2 + 0.09), 4)
        squares = size * errors[:, quantity] ** 2
        for side, chosen in enumerate((errors[:, quantity] > 0, errors[:, quantity] < 0)):
            assert found[quantity, side] == pytest.approx(2 * (kernel * squares)[chosen].sum() / kernel.sum())
    alike = nearby(np.zeros(2), change, np.zeros((4, 2)), np.tile(change, (4, 1)), errors[:4])
    assert alike.sum(1) == pytest.approx(2 * np.square(errors[:4]).mean(0))


def test_error_rates_are_logits_and_losses_logarithms():
    level, ratios = np.array([0.2, 0.7]), np.log([[2.0, 3.0], [5.0, 0.5]])
    found = on_scale(ratios, level)
    assert found[0] == pytest.approx([np.log(0.4 / 0.6), np.log(3)])
    assert found[1, 0] == pytest.approx(np.log((1 - 1e-4) / 1e-4))  # an error rate of one is kept off it
    assert off_scale(found, level)[0] == pytest.approx([2, 3])
    step = 1e-6
    moved = on_scale(ratios[0] + step, level) - found[0]
    assert slopes(np.array([0.4, 0.7])) == pytest.approx(moved / step, rel=1e-4)
    assert slopes(np.array([1.0, 0.7])) == pytest.approx([50, 1])


def test_errors_of_a_copy_are_those_of_a_fit_without_it():
    known = reference(200)
    copies = [copy.outputs for copy in known.copies]
    whole, without = Fit(known.outputs, copies), Fit(known.outputs, copies[:-1])
    last = whole._bases == len(copies) - 1
    assert last.sum() == 4
    found = without._predict(without.model, whole._points.of(last))[0]
    assert whole._left_out[last] == pytest.approx(found, abs=1e-9)
    level = whole.calibration.level
    assert whole._errors[last] == pytest.approx(on_scale(found, level) - on_scale(whole._truth[last], level), abs=1e-8)
    assert np.abs(whole._predict(whole.model, whole._points.of(last))[0] - found).max() > 1e-3


def test_a_strong_copy_is_of_the_kind_of_the_copy_at_its_place():
    known = reference(200)
    mild = [copy.outputs for copy in known.copies[:3]]
    strong = [copy.outputs for copy in reference(200, copies=COPIES[::-1]).copies[:3]]
    whole, without = Fit(known.outputs, mild, 0, strong), Fit(known.outputs, mild[:2], 0, strong[:2])
    own = np.isin(whole._bases, (2, 5))
    assert set(whole._kinds[own]) == {"plain", "strong", "bootstrap", "shares", "subpopulation"}
    found = without._predict(without.model, whole._points.of(own))[0]
    assert whole._left_out[own] == pytest.approx(found, abs=1e-9)


def test_an_interval_reaches_further_to_the_side_on_which_copies_lay():
    known = reference(200)
    fit = Fit(known.outputs, [copy.outputs for copy in known.copies])
    other = outputs(0.5 * drawn(300, 6)[0])
    error, loss = fit.estimate(other)
    assert 0 < error.low < error.ratio < error.high < 1 / fit.calibration.level[0]

    def reach() -> np.ndarray:
        ratios = np.log([[of.low, of.ratio, of.high] for of in fit.estimate(other)]).T
        return np.diff(on_scale(ratios, fit.calibration.level), axis=0)

    fit._errors = -np.abs(fit._errors)  # all of them too low
    down, up = reach()
    assert (up > down).all()
    fit._errors = -fit._errors
    down, up = reach()
    assert (up < down).all()
    assert loss.low < loss.ratio < loss.high


def test_no_error_is_far_above_chance():
    known = reference(200)
    fit = Fit(known.outputs, [copy.outputs for copy in known.copies])
    stretched = replace(fit.model, same=replace(fit.model.same, stretch=np.array([50.0, 1.0])))
    ratios = fit._predict(stretched, fit._points, "same")[0]
    most = np.log((1 - 0.3 / CLASSES) / fit.calibration.level[0])
    assert stretched.same.predict(fit._points.candidates)[:, 0].max() > 2 * most
    assert ratios[:, 0].max() <= most


def test_heads_never_differ_by_more_than_the_second_was_wrong_by_on_a_copy():
    known = reference(200)
    fit = Fit(known.outputs, [copy.outputs for copy in known.copies])
    free = fit._points.free
    assert fit._farthest == pytest.approx(np.abs(fit._truth - free)[fit._kinds == "plain"].max(0))
    apart = np.abs(fit._predict(fit.model, fit._points, "same")[0] - free).max(0)
    fit._farthest = np.array([0.1, 0.2])
    assert (apart > fit._farthest).all()
    bounded = np.abs(fit._predict(fit.model, fit._points, "same")[0] - free).max(0)
    assert (bounded <= fit._farthest).all()


def test_heads_that_differ_by_noise_are_drawn_together():
    known = reference(200)
    fit = Fit(known.outputs, [copy.outputs for copy in known.copies])
    own = fit._points.of((fit._kinds == "bootstrap") & (fit._bases < 0))
    same = fit._predict(fit.model, own, "same")[0]
    apart = np.abs(fit.model.same.predict(own.candidates) - own.free)
    assert (np.abs(same - own.free) <= apart + 1e-12).all()
    assert np.abs(same - own.free).mean() < 0.5 * apart.mean()


def test_large_numbers_of_errors_are_drawn_less():
    known = reference(200)
    fit = Fit(known.outputs, [copy.outputs for copy in known.copies])
    own = fit._points.of((fit._kinds == "bootstrap") & (fit._bases < 0))
    noise = 2 * (fit.model.same.predict(own.candidates) - own.free).std(0)
    points = fit._points.of(fit._copies)
    same = fit.model.same.predict(points.candidates)
    fewer = noise * np.stack(
        [np.exp(-np.maximum(same, points.free).max(1, initial=0, where=[True, False]) / 2), np.ones(4)], 1
    )
    apart = np.clip(same - points.free, -fit._farthest, fit._farthest)
    assert fit._heads(fit.model, points)[0] == pytest.approx(points.free + apart**3 / (apart**2 + fewer**2), abs=1e-6)
    assert (fewer[:, 0] < 0.9 * noise[0]).any()


def test_images_are_blurred_as_a_convolution_and_moved():
    image = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(0))
    places = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-(places[:, None] ** 2 + places**2) / 2 / 1.3**2)
    padded = F.pad(image[None], (2, 2, 2, 2), mode="reflect")
    expected = F.conv2d(padded.transpose(0, 1), (kernel / kernel.sum())[None, None])[:, 0]
    assert torch.allclose(Blur(1.3)(image), expected, atol=1e-6)
    moved = {tuple(Shift(2)(image).flatten()[:3].tolist()) for _ in range(40)}
    assert moved == {tuple(image.roll(by, (1, 2)).flatten()[:3].tolist()) for by in itertools.product((2, -2), repeat=2)}


def test_rows_of_a_table_are_noisy_swapped_or_filled():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9.0)
    noise, swapped, missing, dropped, *strong = copies_for(rows)
    made = torch.stack([noise(rows[0]) for _ in range(2000)])
    assert torch.allclose(made.std(0), 0.8 * rows.std(0), rtol=0.1)
    changed = torch.stack([swapped(rows[0]) for _ in range(500)])
    assert all(torch.isin(changed[:, column], rows[:, column]).all() for column in range(8))
    assert 0.25 < float((changed != rows[0]).double().mean()) < 0.4
    sources = [(rows == row).nonzero()[:, 0].unique() for row in changed]
    assert sum(len(source) > 2 for source in sources) > 200  # each entry from a row of its own
    filled = torch.stack([missing(rows[0]) for _ in range(500)])
    assert ((filled == rows[0]) | (filled == rows.mean(0))).all()
    assert 0.3 < float((filled != rows[0]).double().mean()) < 0.4
    once, again = dropped(rows[0]), dropped(rows[1])
    assert int((once != rows[0]).sum()) == 3
    assert ((once != rows[0]) == (again != rows[1])).all()
    assert all(isinstance(one, Strong) for one in strong)
    made = [torch.stack([one(rows[0]) for _ in range(1000)]) for one in strong]
    assert torch.allclose(made[0].std(0), 3.2 * rows.std(0), rtol=0.1)
    assert all(0.6 < float((copy != rows[0]).double().mean()) < 0.75 for copy in made[1:])


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(3, 5).long(),
        torch.zeros(3, 5, 2),
        torch.zeros(3, 1),
        torch.zeros(3, 1, 2, 2),
        {"x": 1},
        torch.zeros(0, 4),
    ],
    ids=["tokens", "sequences", "one column", "tiny", "dict", "empty"],
)
def test_other_inputs_have_no_copies(inputs):
    assert copies_for(inputs) == ()


@pytest.mark.parametrize(("side", "sigma", "pixels"), [(4, 0.7, 1), (8, 0.7, 1), (28, 1.3, 4), (32, 1.3, 4), (64, 2.6, 8)])
def test_strengths_follow_the_size_of_images(side, sigma, pixels):
    *_, blur, shift = (copy for copy in copies_for(torch.rand(2, 1, side, side)) if not isinstance(copy, Strong))
    assert (blur.sigma, shift.pixels) == (sigma, pixels)
    *_, blur, shift = (copy.transform for copy in copies_for(torch.rand(2, 1, side, side)) if isinstance(copy, Strong))
    assert (blur.sigma, shift.pixels) == (2.5 * sigma, round(side / 4))


def test_wrong_strengths_are_refused():
    with pytest.raises(ValueError, match="sigma: expected"):
        Blur(0)
    with pytest.raises(ValueError, match="pixels: expected a positive integer"):
        Shift(0)
    for value in (0.5, None):
        with pytest.raises(TypeError, match="transform: expected a callable"):
            Strong(value)


def test_missing_cells_do_not_spread_over_the_copies_of_a_table():
    rows = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    rows[torch.arange(0, 40, 8), torch.arange(5)] = float("nan")
    for copy in copies_for(rows):
        made = torch.stack([copy(row) for row in rows])
        assert made.isnan().any(1).float().mean() < 0.4, copy
