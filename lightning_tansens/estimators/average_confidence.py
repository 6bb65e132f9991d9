"""The average confidence of a classifier, and its difference on two sets."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, SetSummary
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares


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

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        confidences = target.class_scores.confidences
        return {"accuracy": Estimate(float(confidences.mean()), error_of_mean(confidences))}

    def scores(self, summary: SetSummary) -> Mapping[str, float]:
        return {self.key: float(summary.class_scores.confidences.mean())}


class DifferenceOfConfidences(Estimator):
    r"""Estimates the accuracy by the reference's, less the drop of the average confidence (Guillory et al., ICCV 2021).

    .. math:: \widehat{acc}(X_{te}) = acc_{ref}
              - \Big(\frac1{N_{ref}} \sum_{n \in ref} \max_c p_c(x_n) - \frac1N \sum_{n \in te} \max_c p_c(x_n)\Big)

    This is the form without a regression on other sets ("DoC" as Garg et al. 2022 compare it), clamped to [0, 1]. The
    standard error is the two means'; accuracy and confidence of the reference are taken as a pair.

    Example:
        >>> import numpy as np
        >>> from lightning_tansens.estimators import Outputs
        >>> reference = SetSummary("val", outputs=Outputs.of(np.log([[0.75, 0.25], [0.75, 0.25]]), [0, 1]))
        >>> target = SetSummary("test", outputs=Outputs.of(np.log([[0.625, 0.375]])))
        >>> round(DifferenceOfConfidences().estimate(target, reference)["accuracy"].value, 6)
        0.375

    """

    key = "difference_of_confidences"
    quantities = ("accuracy",)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, confidences = reference.labelled, target.class_scores.confidences
        gaps = labelled.correct - labelled.confidences
        error = root_of_squares(error_of_mean(confidences), error_of_mean(gaps))
        return {"accuracy": Estimate(float(gaps.mean() + confidences.mean()), error)}
