"""The share of a target's samples above a threshold that is learnt on the reference."""

from typing import Literal, get_args

import numpy as np

from lightning_tansens.checks import check_choice
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Need, SetSummary
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.spread import binomial_error, root_of_squares

#: What is compared with the threshold: the largest probability, the negative entropy of all of them, or the probability
#: that the mean over earlier measurements gives to today's prediction.
ScoreName = Literal["confidence", "entropy", "ensemble"]


class ThresholdedConfidence(Estimator):
    r"""Estimates the accuracy by the share of samples that score at least a threshold (ATC; Garg et al., ICLR 2022).

    .. math:: \widehat{acc}(X_{te}) = \frac1N \sum_n 1[s(x_n) \ge t], \qquad
              \frac1{N_{ref}} \sum_{n \in ref} 1[s(x_n) < t] = 1 - acc_{ref}

    with the score s(x) = max_c p_c(x) ("confidence"), Σ_c p_c log p_c ("entropy"), or :math:`\bar p_{\hat y}(x)`, what the
    temporal ensemble gives to today's prediction ("ensemble"). The threshold t is a score of the reference, so the second
    equation holds exactly unless scores are equal. The standard error is binomial in both sets, with equal densities at the
    threshold.

    Args:
        score: "confidence", "entropy" or "ensemble"; the key is ``atc_confidence``, ``atc_entropy`` or ``atc_ensemble``.

    Raises:
        ValueError: If the score is none of these.

    Example:
        >>> reference = SetSummary("val", outputs=Outputs.of(np.log([[0.9, 0.1], [0.6, 0.4]]), [0, 1]))  # one is right
        >>> target = SetSummary("test", outputs=Outputs.of(np.log([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])))
        >>> ThresholdedConfidence().estimate(target, reference)["accuracy"].value
        0.5
    """

    quantities = ("accuracy",)

    def __init__(self, score: ScoreName = "confidence") -> None:
        check_choice("score", score, get_args(ScoreName))
        self.score: ScoreName = score
        self.key = f"atc_{score}"
        self.needs = frozenset({Need.CLASSES, Need.EARLIER} if score == "ensemble" else {Need.CLASSES})

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, outputs = reference.labelled, target.class_scores
        ordered, count = np.sort(self._scores(labelled)), len(labelled)
        right = int(labelled.correct.sum())
        threshold = ordered[count - right] if right else np.inf
        value = float((self._scores(outputs) >= threshold).mean())
        error = root_of_squares(binomial_error(value, len(outputs)), binomial_error(right / count, count))
        return {"accuracy": Estimate(value, error)}

    def _scores(self, outputs: Outputs) -> Array:
        if self.score == "ensemble":
            return np.asarray(outputs.ensemble[np.arange(len(outputs)), outputs.predictions])
        return outputs.confidences if self.score == "confidence" else -outputs.entropies
