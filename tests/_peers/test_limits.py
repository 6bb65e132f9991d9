"""What the cases of the definitions do not reach: clamps, ties, ends of bins, labels that a target must not pass on."""

import math

import numpy as np
import pytest
import torch

from lightning_tansens._peers import AverageConfidence, ImportanceWeighting
from tests._peers.data import LABELS, REFERENCE, TARGET, by_key, estimated, fed


def logits_of(confidences):
    """Logits of two classes, whose first has these probabilities."""
    first = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([first, 1 - first], 1).log()


def estimate(key, target, reference, labels):
    return estimated(key, logits_of(target), logits_of(reference), torch.tensor(labels))


@pytest.mark.parametrize("key", ["difference_of_confidences", "cot"])
def test_an_accuracy_stays_between_zero_and_one(key):
    assert estimate(key, [0.55, 0.55], [0.95, 0.95], [1, 1])["accuracy"].value == 0
    # right though unsure, so that a sure target is estimated above one
    assert estimate(key, [0.99, 0.99], [0.6, 0.6], [0, 0])["accuracy"].value == 1


def test_a_loss_is_not_negative():
    assert estimate("entropy_difference", [0.999, 0.999], [0.55, 0.55], [0, 0])["loss"].value == 0


def test_equal_confidences_weigh_as_many_samples():
    # 0.6: one of one right; 0.9: none of three, so the calibration is pooled to 1/4
    found = estimate("cbpe", [0.6, 0.9], [0.6, 0.9, 0.9, 0.9], [0, 1, 1, 1])
    assert found["accuracy"].value == pytest.approx(0.25, rel=1e-12)


def test_a_bin_includes_its_upper_end():
    # 1/2 is a power of two, so that the confidence is exactly the end of a bin
    reference = fed(ImportanceWeighting(bins=4), torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0, 0, 1]))
    assert reference.summary()["bin_counts"].tolist() == [0, 3, 0, 0]


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
    logits = torch.tensor([[0.3, -1.2, 0.7, 2.1]], dtype=torch.float64).expand(7, 4)
    p = torch.softmax(logits, 1).numpy()
    # rank one: other eigenvalues are rounding errors of either sign
    score = float(fed(by_key("nuclear_norm"), logits).compute())
    assert score == pytest.approx(np.linalg.norm(p, "nuc") / math.sqrt(7 * 4), abs=1e-7)


class Nosy(AverageConfidence):
    """Notes what an estimate is given of the target."""

    def _estimates(self, target, reference):
        self.seen = set(target)
        return super()._estimates(target, reference)


def test_a_target_does_not_pass_on_its_labels():
    target, reference = fed(Nosy(), TARGET, TARGET.argmax(1)), fed(Nosy(), REFERENCE, LABELS)
    target.estimate(target.summary(), reference.summary())
    assert target.seen == set(target.summary()) - {"labelled", "correct"}
