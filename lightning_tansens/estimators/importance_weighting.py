"""The reference's accuracy, re-weighted to the target's confidences."""

import math

import numpy as np

from lightning_tansens.checks import check_counts
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, SetSummary


class ImportanceWeighting(Estimator):
    r"""Estimates the accuracy by the reference's in bins of the confidence, weighted by the target's shares of the bins.

    .. math:: \widehat{acc}(X_{te}) = \frac{\sum_b q_b \, acc_{ref,b}}{\sum_b q_b}

    with the share q_b of the target's samples in bin b. This is the baseline IM of Garg et al. (ICLR 2022): importance
    re-weighting as in Mandoline (Chen et al., ICML 2021) with the confidence as the only slice and density ratios from
    histograms of equal width. Sums run over the bins in which the reference has samples. The standard error holds the bins
    fixed: a mean over the target, and binomial in each bin of the reference.

    Args:
        bins: The number of bins between 0 and 1; each includes its upper end.

    Raises:
        ValueError: If ``bins`` is not a positive integer.

    Example:
        >>> from lightning_tansens.estimators import Outputs
        >>> sure, unsure = np.log([0.95, 0.05]), np.log([0.55, 0.45])
        >>> reference = SetSummary("val", outputs=Outputs.of([sure, unsure, unsure], [0, 0, 1]))
        >>> target = SetSummary("test", outputs=Outputs.of([sure, unsure, unsure, unsure]))
        >>> ImportanceWeighting().estimate(target, reference)["accuracy"].value
        0.625
    """

    key = "importance_weighting"
    quantities = ("accuracy",)

    def __init__(self, bins: int = 10) -> None:
        check_counts(bins=bins)
        self.bins = int(bins)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled = reference.labelled
        inner = np.linspace(0, 1, self.bins + 1)[1:-1]
        own, other = (np.digitize(found.confidences, inner, right=True) for found in (labelled, target.class_scores))
        counts, others = np.bincount(own, minlength=self.bins), np.bincount(other, minlength=self.bins)
        common = (others > 0) & (counts > 0)
        if not common.any():
            raise UndefinedEstimateError(
                "expected a bin of confidences in which both sets have samples, but there is none; take fewer bins"
            )
        shares = others[common] / others[common].sum()
        accuracies = np.bincount(own, labelled.correct, self.bins)[common] / counts[common]
        value = float(shares @ accuracies)
        of_target = float(shares @ np.square(accuracies - value)) / others[common].sum()
        of_bins = float(np.square(shares) @ (accuracies * (1 - accuracies) / counts[common]))
        return {"accuracy": Estimate(value, math.sqrt(of_target + of_bins))}
