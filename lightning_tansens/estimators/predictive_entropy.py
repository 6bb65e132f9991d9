"""The loss, by the entropies of the predictions on two sets."""

from __future__ import annotations

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, SetSummary
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares, scaled


class EntropyRatio(Estimator):
    r"""Estimates the cross-entropy by the reference's, times the ratio of the mean predictive entropies.

    .. math:: \hat l(X_{te}) = l(X_{ref}) \, \frac{\bar H(X_{te})}{\bar H(X_{ref})}, \qquad
              H(x) = -\sum_c p_c(x) \log p_c(x)

    The cross-entropy of a calibrated classifier is its entropy in expectation (Gneiting and Raftery 2007), so the ratio of
    the two on the reference tells how well the classifier is calibrated. The standard error is by the delta method; loss and
    entropy of the reference are taken as a pair.

    Example:
        >>> import numpy as np
        >>> from lightning_tansens.estimators import Outputs
        >>> reference = SetSummary("val", outputs=Outputs.of(np.log([[0.8, 0.2]]), [0]))  # entropy 0.50, loss 0.22
        >>> target = SetSummary("test", outputs=Outputs.of([[0.0, 0.0]]))  # entropy 0.69
        >>> round(EntropyRatio().estimate(target, reference)["loss"].value, 3)
        0.309

    """

    key = "entropy_ratio"
    quantities = ("loss",)
    of_cross_entropy = True

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, entropies = reference.labelled, target.class_scores.entropies
        if not labelled.entropies.any():
            raise UndefinedEstimateError("expected a reference with entropy, but all of its predictions are certain")
        return {"loss": scaled(float(labelled.losses.mean()), entropies, labelled.entropies, labelled.losses)}


class EntropyDifference(Estimator):
    r"""Estimates the cross-entropy by the reference's, plus the difference of the mean predictive entropies, at least 0.

    .. math:: \hat l(X_{te}) = l(X_{ref}) + \bar H(X_{te}) - \bar H(X_{ref}), \qquad H(x) = -\sum_c p_c(x) \log p_c(x)

    It estimates the loss as the difference of confidences estimates the accuracy. The standard error is the means'; loss and
    entropy of the reference are taken as a pair.

    Example:
        >>> import numpy as np
        >>> from lightning_tansens.estimators import Outputs
        >>> reference = SetSummary("val", outputs=Outputs.of(np.log([[0.8, 0.2]]), [0]))  # entropy 0.50, loss 0.22
        >>> target = SetSummary("test", outputs=Outputs.of([[0.0, 0.0]]))  # entropy 0.69
        >>> round(EntropyDifference().estimate(target, reference)["loss"].value, 3)
        0.416

    """

    key = "entropy_difference"
    quantities = ("loss",)
    of_cross_entropy = True

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, entropies = reference.labelled, target.class_scores.entropies
        gaps = labelled.losses - labelled.entropies
        error = root_of_squares(error_of_mean(entropies), error_of_mean(gaps))
        return {"loss": Estimate(max(float(gaps.mean() + entropies.mean()), 0.0), error)}
