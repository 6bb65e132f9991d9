"""What the mean of a run's predictions expects of today's."""

import numpy as np

from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Need, Quantity, SetSummary
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares

#: The change of log T by which the estimates' derivatives are taken.
STEP = 0.05


class TemporalEnsemble(Estimator):
    r"""Estimates error and cross-entropy by what the calibrated mean over the run expects of today's predictions.

    .. math:: q = \mathrm{softmax}\big(\log \bar p \,/\, T\big), \qquad
              \widehat{err} = \frac1N \sum_n \big(1 - q_{\hat y(x_n)}(x_n)\big), \qquad
              \hat l = -\frac1N \sum_n \sum_c q_c(x_n) \log p_c(x_n)

    with today's probabilities p and prediction ŷ, their mean :math:`\bar p` over the earlier measurements and this one
    (temporal ensembling: Laine & Aila, ICLR 2017; ensembles stay calibrated longer under shift: Ovadia et al., NeurIPS
    2019), and the temperature T of least loss on the reference. The standard error covers the mean over the target and the
    fit of T.

    Example:
        >>> from lightning_tansens.estimators import Trajectory
        >>> sure, unsure = np.log([0.8, 0.2]), np.log([0.5, 0.5])
        >>> earlier = Trajectory().updated(Outputs.of([unsure] * 5))
        >>> reference = SetSummary("val", outputs=Outputs.of([sure] * 5, [0, 0, 0, 0, 1], earlier=earlier))
        >>> target = SetSummary("test", outputs=Outputs.of([sure] * 5, earlier=earlier))
        >>> round(TemporalEnsemble().estimate(target, reference)["accuracy"].value, 2)
        0.8
    """

    key = "temporal_ensemble"
    quantities = ("loss", "accuracy")
    of_cross_entropy = True
    needs = frozenset({Need.CLASSES, Need.EARLIER})

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        outputs, fit = target.class_scores, reference.labelled.temperature
        losses, errors = expected(outputs, outputs.tempered(fit.value))
        moved = expected(outputs, outputs.tempered(fit.value * np.exp(STEP)))
        found: dict[Quantity, Estimate] = {}
        both: dict[Quantity, tuple[Array, Array]] = {"loss": (losses, moved[0]), "accuracy": (1 - errors, 1 - moved[1])}
        for quantity, (values, others) in both.items():
            by_temperature = float((others - values).mean()) / STEP
            error = root_of_squares(error_of_mean(values), by_temperature * fit.stderr)
            found[quantity] = Estimate(float(values.mean()), error)
        return found


def expected(outputs: Outputs, q: Array) -> tuple[Array, Array]:
    """Returns the loss and the error of today's predictions that probabilities q (N, C) expect, shapes (N,)."""
    return -(q * outputs.log_probabilities).sum(1), 1 - q[np.arange(len(q)), outputs.predictions]
