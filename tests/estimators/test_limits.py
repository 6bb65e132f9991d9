"""What the cases of the definitions do not reach: clamps, ties, ends of bins, labels that a target must not pass on."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_tansens.estimators import AverageConfidence, ImportanceWeighting
from tests.estimators.data import LABELS, REFERENCE, TARGET, estimated, score, summary


def logits_of(confidences):
    """Logits of two classes, whose first has these probabilities."""
    first = np.array(confidences)
    return np.log(np.stack([first, 1 - first], 1))


def estimate(key, target, reference, labels):
    return estimated(key, logits_of(target), logits_of(reference), labels)


@pytest.mark.parametrize("key", ["difference_of_confidences", "cot"])
def test_an_accuracy_stays_between_zero_and_one(key):
    assert estimate(key, [0.55] * 4, [0.95] * 4, [1] * 4)["accuracy"].value == 0
    # right though unsure, so that a sure target is estimated above one
    assert estimate(key, [0.99] * 4, [0.6] * 4, [0] * 4)["accuracy"].value == 1


def test_a_loss_is_not_negative():
    assert estimate("entropy_difference", [0.999, 0.999], [0.55, 0.55], [0, 0])["loss"].value == 0


def test_equal_confidences_weigh_as_many_samples():
    # 0.6: one of one right; 0.9: none of three, so the calibration is pooled to 1/4
    found = estimate("cbpe", [0.6, 0.9], [0.6, 0.9, 0.9, 0.9], [0, 1, 1, 1])
    assert found["accuracy"].value == pytest.approx(0.25, rel=1e-12)


def test_a_bin_includes_its_upper_end():
    # 1/2 is a power of two, so that the confidence is exactly the end of a bin
    reference = summary(np.concatenate([np.zeros((3, 2)), logits_of([0.6])]), [0, 0, 0, 1])
    found = ImportanceWeighting(bins=4).estimate(summary(logits_of([0.55])), reference)["accuracy"]
    assert found.value == 0  # the three right ones are in the bin below


def test_the_standard_error_of_importance_weighting():
    # bins (0.5, 0.6]: 3 of 4 right; (0.9, 1]: 4 of 5 right
    found = estimate(
        "importance_weighting", [0.55] * 6 + [0.95] * 2, [0.55] * 4 + [0.95] * 5, [0, 0, 0, 1] + [0, 0, 0, 0, 1]
    )["accuracy"]
    accuracies, shares, counts = np.array([3 / 4, 4 / 5]), np.array([6, 2]) / 8, np.array([4, 5])
    of_target = np.repeat(accuracies, [6, 2]).var() / 8
    of_reference = (shares**2 * accuracies * (1 - accuracies) / counts).sum()
    assert found.value == pytest.approx(shares @ accuracies, rel=1e-12)
    assert found.stderr == pytest.approx(math.sqrt(of_target + of_reference), rel=1e-9)


def test_a_nuclear_norm_of_equal_rows_is_finite():
    logits = np.tile([0.3, -1.2, 0.7, 2.1], (7, 1))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # rank one: other eigenvalues are rounding errors of either sign
    assert score("nuclear_norm", logits) == pytest.approx(np.linalg.norm(p, "nuc") / math.sqrt(7 * 4), abs=1e-7)


class Nosy(AverageConfidence):
    """Keeps what an estimate is given of the target."""

    def _estimate(self, target, reference):
        self.seen = target
        return super()._estimate(target, reference)


def test_a_target_does_not_pass_on_its_labels():
    estimator = Nosy()
    known = {"loss": 1.0, "accuracy": 0.5, "wrong": 20.0, "class_losses": {0: 1.0}, "loss_influence": object()}
    target = replace(summary(TARGET, TARGET.argmax(1)), copies=(summary(TARGET),), **known)
    estimator.estimate(target, summary(REFERENCE, LABELS))
    assert estimator.seen.outputs.labels is None
    assert estimator.seen.copies == ()
    assert not any(getattr(estimator.seen, name) for name in known)
