"""The mean of a target's confidences, once these are calibrated on the reference."""

import numpy as np
from scipy.optimize import isotonic_regression

from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, SetSummary
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares


class ConfidenceBasedEstimation(Estimator):
    r"""Estimates the accuracy by the mean of the calibrated confidences (CBPE, as in NannyML).

    .. math:: \widehat{acc}(X_{te}) = \frac1N \sum_n g\big(\max_c p_c(x_n)\big)

    with the non-decreasing g that fits the reference's right and wrong predictions best in the mean square (isotonic
    regression), linear between the reference's confidences and constant beyond them. The standard error is the mean's over
    the target, and binomial in each step of g: :math:`\sum_b q_b^2 \, g_b (1 - g_b) / n_b` with the target's share q_b
    nearest to the step of height g_b and n_b samples.

    Example:
        >>> from lightning_tansens.estimators import Outputs
        >>> sure, unsure = np.log([0.9, 0.1]), np.log([0.6, 0.4])
        >>> reference = SetSummary("val", outputs=Outputs.of([sure, sure, unsure, unsure], [0, 0, 0, 1]))
        >>> target = SetSummary("test", outputs=Outputs.of([sure, unsure, unsure, unsure]))
        >>> ConfidenceBasedEstimation().estimate(target, reference)["accuracy"].value
        0.625
    """

    key = "cbpe"
    quantities = ("accuracy",)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, confidences = reference.labelled, target.class_scores.confidences
        # samples of equal confidence become one point, so that their order does not matter
        points, place, counts = np.unique(labelled.confidences, return_inverse=True, return_counts=True)
        fit = isotonic_regression(np.bincount(place, labelled.correct) / counts, weights=counts.astype(np.float64))
        calibrated = np.interp(confidences, points, fit.x)
        steps = np.repeat(np.arange(len(fit.weights)), np.diff(fit.blocks))  # the step of each point
        nearest = steps[np.searchsorted((points[1:] + points[:-1]) / 2, confidences)]
        shares = np.bincount(nearest, minlength=len(fit.weights)) / len(confidences)
        heights = fit.x[fit.blocks[:-1]]
        of_reference = float(np.sqrt(np.sum(np.square(shares) * heights * (1 - heights) / fit.weights)))
        error = root_of_squares(error_of_mean(calibrated), of_reference)
        return {"accuracy": Estimate(float(calibrated.mean()), error)}
