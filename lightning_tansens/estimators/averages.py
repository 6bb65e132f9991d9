"""Estimates from the mean confidence and the mean predictive entropy of a set."""

from collections.abc import Mapping

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, SetSummary
from lightning_tansens.estimators.outputs import Array
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares, scaled


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
        return {"accuracy": _shifted(labelled.correct - labelled.confidences, confidences)}


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
        found = _shifted(labelled.losses - labelled.entropies, entropies)
        return {"loss": Estimate(max(found.value, 0.0), found.stderr)}


def _shifted(gaps: Array, values: Array) -> Estimate:
    """The target's mean plus the mean gap between truth and expectation on the reference."""
    error = root_of_squares(error_of_mean(values), error_of_mean(gaps))
    return Estimate(float(gaps.mean() + values.mean()), error)
