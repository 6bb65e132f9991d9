"""The estimators from a run's earlier predictions, against plain NumPy and hand-made sets."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import Outputs, PseudoLabelLoss, SetSummary, ThresholdedConfidence
from lightning_tansens.estimators.temperature import fit_temperature
from lightning_tansens.estimators.trajectory import GROWTH
from tests.estimators.data import EARLIER, LABELS, REFERENCE, TARGET, by_key, estimated, summary, trajectory


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def mean_probabilities(outputs):
    """By the weights of all snapshots, today's last: each step of the running mean keeps a part of those before."""
    snapshots = np.stack([*EARLIER[id(outputs)], outputs])
    steps = [(1 + GROWTH) / (t + GROWTH) for t in range(1, len(snapshots) + 1)]
    weights = [step * math.prod(1 - later for later in steps[t + 1 :]) for t, step in enumerate(steps)]
    assert sum(weights) == pytest.approx(1)
    return np.tensordot(weights, softmax(snapshots), 1)


def temperature():
    scores = np.log(mean_probabilities(REFERENCE))

    def loss(log_t):
        return -np.log(softmax(scores / math.exp(log_t))[np.arange(60), LABELS]).mean()

    return math.exp(minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded", options={"xatol": 1e-9}).x)


NOW = softmax(TARGET)
Q = softmax(np.log(mean_probabilities(TARGET)) / temperature())
WRONG = (REFERENCE.argmax(1) != LABELS).astype(float)
LOSS = -np.log(softmax(REFERENCE)[np.arange(60), LABELS])


def without_the_first_tenth(outputs):
    return np.stack([snapshot.argmax(1) for snapshot in EARLIER[id(outputs)][1:]])  # one of five


def ratio_error(target, reference, wrongs):
    pairs = wrongs / wrongs.mean() - reference / reference.mean()
    return math.hypot(target.std(ddof=1) / target.mean() / math.sqrt(40), pairs.std(ddof=1) / math.sqrt(60))


def test_temporal_ensemble():
    found = estimated("temporal_ensemble")
    assert found["accuracy"].value == pytest.approx(Q[np.arange(40), TARGET.argmax(1)].mean(), rel=1e-5)
    assert found["loss"].value == pytest.approx(-(Q * np.log(NOW)).sum(1).mean(), rel=1e-5)
    assert found["accuracy"].stderr > Q[np.arange(40), TARGET.argmax(1)].std(ddof=1) / math.sqrt(40)


def test_disagreement():
    on_target = (without_the_first_tenth(TARGET) != TARGET.argmax(1)).mean(0)
    on_reference = (without_the_first_tenth(REFERENCE) != REFERENCE.argmax(1)).mean(0)
    found = estimated("disagreement")["accuracy"]
    wrong = WRONG.mean() * on_target.mean() / on_reference.mean()
    assert found.value == pytest.approx(1 - wrong, rel=1e-12)
    assert found.stderr == pytest.approx(wrong * ratio_error(on_target, on_reference, WRONG), rel=1e-9)


def test_pseudo_label_loss():
    def losses(outputs):
        log_p = np.log(softmax(outputs))
        return np.mean([-log_p[np.arange(len(outputs)), labels] for labels in without_the_first_tenth(outputs)], 0)

    found = estimated("pseudo_label_loss")["loss"]
    value = LOSS.mean() * losses(TARGET).mean() / losses(REFERENCE).mean()
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.stderr == pytest.approx(value * ratio_error(losses(TARGET), losses(REFERENCE), LOSS), rel=1e-9)


def test_the_criterion_of_a_classifier_gives_the_same_where_it_is_the_cross_entropy():
    own = PseudoLabelLoss(F.cross_entropy).estimate(summary(TARGET), summary(REFERENCE, LABELS))["loss"]
    assert own.value == pytest.approx(estimated("pseudo_label_loss")["loss"].value, rel=1e-5)


def test_thresholded_confidence_of_the_ensemble():
    on_target, on_reference = (
        mean_probabilities(outputs)[np.arange(len(outputs)), outputs.argmax(1)] for outputs in (TARGET, REFERENCE)
    )
    threshold = np.sort(on_reference)[int(WRONG.sum())]
    assert estimated("atc_ensemble")["accuracy"].value == (on_target >= threshold).mean()
    assert ThresholdedConfidence("ensemble").key == "atc_ensemble"


def line():
    """Probits of agreements and accuracies, and the line, as Baek et al. have it."""
    networks = {
        name: np.concatenate([without_the_first_tenth(outputs), outputs.argmax(1)[None]])
        for name, outputs in (("seen", REFERENCE), ("target", TARGET))
    }
    pairs = list(combinations(range(5), 2))
    agreements = {name: norm.ppf([(found[i] == found[j]).mean() for i, j in pairs]) for name, found in networks.items()}
    slope, level = np.polyfit(agreements["seen"], agreements["target"], 1)
    return pairs, agreements, slope, level, norm.ppf((networks["seen"] == LABELS).mean(1))


def test_agreement_on_the_line_alone():
    _, _, slope, level, accuracies = line()
    assert estimated("agreement_line_s")["accuracy"].value == pytest.approx(norm.cdf(slope * accuracies[-1] + level))


def test_agreement_on_the_line_together():
    pairs, agreements, slope, _, accuracies = line()
    system, right = np.zeros((len(pairs), 5)), []
    for row, (i, j) in enumerate(pairs):
        system[row, [i, j]] = 0.5
        right.append(agreements["target"][row] + slope * ((accuracies[i] + accuracies[j]) / 2 - agreements["seen"][row]))
    probits = np.linalg.lstsq(system, np.array(right), rcond=None)[0]
    assert estimated("agreement_line_d")["accuracy"].value == pytest.approx(norm.cdf(probits[-1]))


def test_lines_need_two_earlier_networks():
    one = [trajectory(EARLIER[id(outputs)][:1]) for outputs in (TARGET, REFERENCE)]
    target, reference = Outputs.of(TARGET, earlier=one[0]), Outputs.of(REFERENCE, LABELS, earlier=one[1])
    with pytest.raises(
        UndefinedEstimateError,
        match=r"expected earlier measurements of the same samples, two or more of both sets, but .* 1",
    ):
        by_key("agreement_line_d").estimate(SetSummary("test", outputs=target), SetSummary("val", outputs=reference))
    with pytest.raises(ValueError, match="form: expected one of"):
        type(by_key("agreement_line_d"))("T")


def test_a_network_that_never_changed_has_no_ratio():
    same = [SetSummary("s", outputs=Outputs.of(o, LABELS[: len(o)], earlier=trajectory([o]))) for o in (TARGET, REFERENCE)]
    with pytest.raises(UndefinedEstimateError, match="expected predictions of the reference that have changed"):
        by_key("disagreement").estimate(*same)


def test_the_temperature_is_the_maximum_of_the_likelihood():
    found = fit_temperature(np.log(mean_probabilities(REFERENCE)), LABELS)
    assert found.value == pytest.approx(temperature(), rel=1e-5)


def test_the_error_of_the_temperature_is_its_spread():
    rng = np.random.default_rng(0)
    logs, errors = [], []
    for _ in range(200):
        scores = 2 * rng.normal(size=(150, 3))
        labels = (rng.random((150, 1)) > softmax(scores).cumsum(1)).sum(1)
        found = fit_temperature(scores, labels)
        logs.append(math.log(found.value))
        errors.append(found.stderr)
    assert np.mean(logs) == pytest.approx(0, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(logs), rel=0.15)
    # other units of the scores move log T by a constant
    assert fit_temperature(3 * scores, labels).value == pytest.approx(3 * found.value, rel=1e-4)
    assert fit_temperature(3 * scores, labels).stderr == pytest.approx(found.stderr, rel=1e-3)


def test_certain_and_right_predictions_have_a_temperature_all_the_same():
    found = fit_temperature(np.eye(3) * 5, np.arange(3))
    assert math.exp(-2.5) <= found.value < 0.2
    assert math.isnan(found.stderr)
    assert fit_temperature(np.zeros((3, 3)), np.arange(3)).value == 1


def regression(noise, seed, samples=3000, loss=None):
    """Outputs that move by ``noise`` between four measurements."""
    rng = np.random.default_rng(seed)
    truth = 2000 + rng.normal(size=(samples, 1))
    snapshots = [truth + noise * rng.normal(size=(samples, 1)) for _ in range(4)]
    return SetSummary("set", samples, Outputs.of(snapshots[-1], earlier=trajectory(snapshots[:-1])), loss=loss)


def test_a_regression_has_an_estimate():
    """Squared errors are four times as large where outputs move twice as far; labels far from zero lose no digits."""
    found = PseudoLabelLoss(F.mse_loss).estimate(regression(0.2, 1), regression(0.1, 2, loss=0.01))["loss"]
    assert found.value == pytest.approx(0.04, rel=0.1)
    assert 0 < found.stderr < 0.1 * found.value


@pytest.mark.parametrize("way", ["classes", "signs"])
def test_dense_outputs_have_an_estimate(way):
    """A segmentation (N, C, H, W) by its largest score, independent labels by their sign."""
    rng = np.random.default_rng(0)
    criterion = F.cross_entropy if way == "classes" else F.binary_cross_entropy_with_logits
    sets, means = [], []
    for name, scale, loss in (("test", 1.0, None), ("val", 3.0, 0.5)):
        before, now = (scale * rng.normal(size=(30, 3, 4, 5)).astype(np.float32) for _ in range(2))
        sets.append(SetSummary(name, 30, Outputs.of(now, earlier=trajectory([before])), loss=loss))
        labels = torch.from_numpy(before.argmax(1) if way == "classes" else (before > 0).astype(np.float32))
        means.append(float(criterion(torch.from_numpy(now), labels)))
    found = PseudoLabelLoss(criterion, way).estimate(*sets)["loss"]
    assert found.value == pytest.approx(0.5 * means[0] / means[1], rel=1e-5)


def test_a_regression_needs_its_criterion_and_a_loss():
    with pytest.raises(UndefinedEstimateError, match="expected a criterion for outputs that are no class scores, but got N"):
        PseudoLabelLoss().estimate(regression(0.2, 1), regression(0.1, 2, loss=0.01))
    with pytest.raises(UndefinedEstimateError, match="expected a loss of the set set, but it has none"):
        PseudoLabelLoss(F.mse_loss).estimate(regression(0.2, 1), regression(0.1, 2))
    with pytest.raises(UndefinedEstimateError, match="expected a positive mean loss on earlier predictions"):
        PseudoLabelLoss(F.mse_loss).estimate(regression(0.2, 1), regression(0.0, 2, loss=0.01))
