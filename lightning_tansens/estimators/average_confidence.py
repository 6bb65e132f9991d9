"""The average confidence of a classifier."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_tansens.estimators.base import Estimator
from lightning_tansens.estimators.spread import error_of_mean
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity


class AverageConfidence(Estimator):
    r"""Estimates the accuracy by the mean of the largest softmax probability (Hendrycks & Gimpel, ICLR 2017).

    .. math:: \widehat{acc}(X_{te}) = \frac1N \sum_n \max_c p_c(x_n)

    It needs no labels at all, and is right where the confidences are calibrated on the target. The standard error is
    the mean's.

    Example:
        >>> import numpy as np
        >>> from lightning_tansens.estimators import Outputs
        >>> target = SetSummary("test", outputs=Outputs.of(np.log([[0.75, 0.25], [0.5, 0.5]])))
        >>> round(AverageConfidence().estimate(target, SetSummary("val"))["accuracy"].value, 6)
        0.625

    """

    key = "average_confidence"
    quantities = ("accuracy",)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Mapping[Quantity, Estimate]:
        confidences = target.class_scores.confidences
        return {"accuracy": Estimate(float(confidences.mean()), error_of_mean(confidences))}

    def scores(self, summary: SetSummary) -> Mapping[str, float]:
        return {self.key: float(summary.class_scores.confidences.mean())}
