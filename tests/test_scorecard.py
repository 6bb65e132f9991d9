"""The scores of estimators, against NumPy and SciPy on the same points."""

import csv
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_tansens.record import Estimate
from lightning_tansens.show.scorecard import Scorecard
from tests.records import record, target

RECORDED = Path(__file__).parents[1] / "docs" / "results" / "cifar10_4x100_validation.csv"
COMMON = Path(__file__).parents[1] / "example_projects" / "histories.py"
RNG = np.random.default_rng(0)
ACTUAL, TRIVIAL, MINE, STDERR = (
    RNG.normal(2, 0.5, 20),
    RNG.normal(2, 0.5, 20),
    RNG.normal(2, 0.5, 20),
    RNG.uniform(0.2, 1, 20),
)


def filled(quantity="loss", estimates=MINE, sets=("a",), **kwargs):
    scorecard = Scorecard(**kwargs)
    for set_name in sets:
        for step in range(20):
            scorecard.update("trivial", quantity, set_name, step, TRIVIAL[step], ACTUAL[step])
            scorecard.update("mine", quantity, set_name, step, estimates[step], ACTUAL[step], STDERR[step])
    return scorecard


def score_of(scorecard, name="mine", set_name="a"):
    (found,) = [score for score in scorecard.compute() if (score.estimator, score.set_name) == (name, set_name)]
    return found


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_scores(quantity):
    score = score_of(filled(quantity))
    errors = MINE - ACTUAL
    assert (score.count, score.undefined) == (20, 0)
    assert score.mae == pytest.approx(np.abs(errors).mean())
    assert score.bias == pytest.approx(errors.mean())
    assert score.rmse == pytest.approx(math.sqrt((errors**2).mean()))
    assert score.pearson == pytest.approx(stats.pearsonr(MINE, ACTUAL).statistic)
    assert score.spearman == pytest.approx(stats.spearmanr(MINE, ACTUAL).statistic)
    assert score.coverage == (np.abs(errors) <= stats.norm.ppf(0.975) * STDERR).mean()
    if quantity == "loss":
        regret, of_trivial = (ACTUAL[estimates.argmin()] - ACTUAL.min() for estimates in (MINE, TRIVIAL))
    else:
        regret, of_trivial = (ACTUAL.max() - ACTUAL[estimates.argmax()] for estimates in (MINE, TRIVIAL))
    assert score.regret == pytest.approx(regret)
    assert score.mae_ratio == pytest.approx(np.abs(errors).mean() / np.abs(TRIVIAL - ACTUAL).mean())
    assert score.rmse_ratio == pytest.approx(math.sqrt((errors**2).mean() / ((TRIVIAL - ACTUAL) ** 2).mean()))
    assert score.regret_ratio == pytest.approx(regret / of_trivial)


def test_two_measurements_of_an_epoch_are_two_points():
    records = [record(targets=[target(loss=1.0, losses={"trivial": estimate})]) for estimate in (1.1, 1.5)]
    (score,) = Scorecard.from_records(records).compute()
    assert (score.count, score.mae_ratio, score.rmse_ratio) == (2, 1, 1)


def test_regrets_are_compared_where_both_can_choose():
    scorecard = Scorecard()
    for step, (trivial, actual) in enumerate([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]):
        scorecard.update("trivial", "loss", "a", step, trivial, actual)
    scorecard.update("mine", "loss", "a", 1, 0.0, 2.0)
    score = score_of(scorecard)
    assert score.regret == 1
    assert score.regret_ratio == 1  # there the trivial estimate chooses the same


def test_errors_beyond_all_numbers_have_no_score():
    scorecard = Scorecard()
    scorecard.update("mine", "loss", "a", 0, 1e300, 1.0)
    assert score_of(scorecard).rmse is None


def test_the_borders_of_a_band_are_inside():
    scorecard = Scorecard(confidence=0.9)
    z = stats.norm.ppf(0.95)
    for step, factor in enumerate([0.999, 1.001]):
        scorecard.update("mine", "loss", "a", step, 1 + factor * z, 1.0, 1.0)
    assert score_of(scorecard).coverage == 0.5


def test_the_trivial_estimate_is_one_in_its_own_units():
    score = score_of(filled(), "trivial")
    assert (score.mae_ratio, score.rmse_ratio, score.regret_ratio) == (1, 1, 1)
    assert score.coverage is None


def test_the_confidence_widens_the_bands():
    assert score_of(filled(confidence=0.5)).coverage < score_of(filled(confidence=0.99)).coverage


def test_undefined_estimates_are_counted_and_left_out_of_both_sides():
    holes = MINE.copy()
    holes[[2, 5]] = math.nan, math.inf
    kept = np.isfinite(holes)
    score = score_of(filled(estimates=holes))
    assert (score.count, score.undefined) == (18, 2)
    assert score.mae == pytest.approx(np.abs(MINE - ACTUAL)[kept].mean())
    assert score.mae_ratio == pytest.approx(np.abs(MINE - ACTUAL)[kept].mean() / np.abs(TRIVIAL - ACTUAL)[kept].mean())


def test_nothing_defined_is_no_score():
    score = score_of(filled(estimates=np.full(20, math.nan)))
    assert (score.count, score.undefined, score.mae, score.regret) == (0, 20, None, None)


def test_all_sets_pool_points_and_average_regrets():
    scorecard = Scorecard()
    for set_name, actual in (("a", [1.0, 2.0]), ("b", [4.0, 3.0])):
        for step in range(2):
            scorecard.update("mine", "loss", set_name, step, float(step), actual[step])
    scores = {score.set_name: score for score in scorecard.compute()}
    assert list(scores) == ["a", "b", "all"]
    assert [score.regret for score in scores.values()] == [0, 1, 0.5]
    assert scores["all"].mae == np.mean([1, 1, 4, 2])
    assert scores["all"].count == 4


def test_the_first_of_equal_estimates_is_chosen():
    scorecard = Scorecard()
    for step, actual in enumerate([2.0, 1.0]):
        scorecard.update("mine", "loss", "a", step, 5.0, actual)
    assert scorecard.compute()[0].regret == 1


def test_a_perfect_baseline_has_no_ratio():
    scorecard = Scorecard()
    scorecard.update("trivial", "loss", "a", 0, 1.0, 1.0)
    scorecard.update("mine", "loss", "a", 0, 2.0, 1.0)
    score = score_of(scorecard)
    assert (score.mae, score.mae_ratio, score.rmse_ratio, score.regret_ratio) == (1, None, None, None)
    assert (score.pearson, score.spearman) == (None, None)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(20)))
def test_the_order_of_points_changes_no_mean(order):
    scorecard = Scorecard()
    for step in order:
        scorecard.update("mine", "loss", "a", step, MINE[step], ACTUAL[step], STDERR[step])
        scorecard.update("trivial", "loss", "a", step, TRIVIAL[step], ACTUAL[step])
    one, other = score_of(scorecard), score_of(filled())
    for name in ("mae", "bias", "rmse", "pearson", "spearman", "coverage", "regret", "mae_ratio"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


def test_a_recorded_history_is_scored():
    with RECORDED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = [abs(float(row["tansens/test_loss/empirical"]) - float(row["tansens/test_loss/actual"])) for row in rows]
    records = runpy.run_path(str(COMMON))["read_records"](RECORDED)
    scores = {(score.quantity, score.estimator): score for score in Scorecard.from_records(records).compute()}
    assert scores["loss", "empirical"].mae == pytest.approx(np.mean(errors))
    assert scores["loss", "empirical"].count == len(rows) == 50
    assert {name for _, name in scores} == {"trivial", "empirical", "layer_norm", "active_nodes"}


def test_records_without_a_truth_are_passed_over_and_missing_estimates_counted():
    losses = {"trivial": 1.0, "mine": (2.0, 0.5)}
    history = [
        record(0, targets=[target(loss=1.5, losses=losses)]),
        record(1, targets=[target(losses=losses)]),
        record(2, targets=[target(loss=1.5, losses={"trivial": 1.0})]),
    ]
    scores = {score.estimator: score for score in Scorecard.from_records(history).compute()}
    assert set(scores) == {"trivial", "mine"}
    assert (scores["mine"].count, scores["mine"].undefined, scores["mine"].coverage) == (1, 1, 1)


def test_an_interval_of_its_own_is_taken():
    """Here the truth lies outside of it, though within two standard errors."""
    found = [Estimate(2.0, stderr=0.5, low=1.9, high=2.1), Estimate(2.0, stderr=0.1, low=1.0, high=2.1)]
    history = [record(epoch, targets=[target(loss=1.5, losses={"mine": one})]) for epoch, one in enumerate(found)]
    assert [Scorecard.from_records([one]).compute()[0].coverage for one in history] == [0, 1]


def test_csv(tmp_path):
    filled().to_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        trivial, mine = csv.DictReader(file)
    assert (trivial["estimator"], trivial["coverage"]) == ("trivial", "")
    assert float(mine["mae"]) == score_of(filled()).mae


def test_rows_have_a_heading_for_each_number():
    rows = filled().to_rows()
    assert [row["estimator"] for row in rows] == ["trivial", "mine"]
    assert rows[1]["MAE / trivial"] == score_of(filled()).mae_ratio


def test_a_reset_forgets():
    scorecard = filled()
    scorecard.reset()
    assert scorecard.compute() == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, "loss", "a", 0, 1.0, 1.0), TypeError, "estimator: expected"),
        (("m", "error", "a", 0, 1.0, 1.0), ValueError, "quantity: expected one of"),
        (("m", "loss", "all", 0, 1.0, 1.0), ValueError, "set_name: expected a name other than 'all'"),
        (("m", "loss", 3, 0, 1.0, 1.0), TypeError, "set_name: expected"),
        (("m", "loss", "a", "first", 1.0, 1.0), ValueError, "step: expected a finite number"),
        (("m", "loss", "a", 0, "much", 1.0), ValueError, "estimate: expected a number"),
        (("m", "loss", "a", 0, 1.0, math.nan), ValueError, "actual: expected a finite number"),
        (("m", "loss", "a", 0, 1.0, 1.0, -1.0), ValueError, "stderr: expected a finite number >= 0"),
    ],
)
def test_wrong_points_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Scorecard().update(*arguments)


@pytest.mark.parametrize("confidence", [0, 1, "much"])
def test_wrong_confidences_are_refused(confidence):
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1"):
        Scorecard(confidence)
