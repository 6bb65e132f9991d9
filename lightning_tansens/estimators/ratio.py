"""The papers' estimates: the reference's loss and accuracy, scaled by a ratio of a measure's values."""

import math
from typing import Literal, get_args

import torch

from lightning_tansens.checks import check_choice
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Quantity, SetSummary
from lightning_tansens.estimators.spread import binomial_error, root_of_squares
from lightning_tansens.metrics.base import SensitivityMeasure
from lightning_tansens.metrics.uncertainty import relative_standard_error
from lightning_tansens.record import TRIVIAL

#: How the accuracy is estimated: by the error rate ("error") or by the accuracy itself ("ratio", as Daróczy 2022 does).
AccuracyForm = Literal["error", "ratio"]

#: A measure's value counts as seen between these quantiles of the reference's samples.
SEEN = (0.05, 0.95)


class Trivial(Estimator):
    """Repeats the reference's own loss and accuracy.

    Every other estimator is compared with it. The standard error is only the reference's own.
    """

    key = TRIVIAL
    quantities = ("loss", "accuracy")
    needs = frozenset()
    looks_at_target = False

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        return _scaled(0.0, 0.0, _relative_error(None, target, reference, with_loss=True), "error", reference)


class MeasureRatio(Estimator):
    r"""Scales the reference's loss and accuracy by a measure's ratio r on two sets (Eqs. 6–11 of Daróczy 2022).

    .. math:: \hat l(X_{te}) = r \cdot l(X_{ref}), \qquad
              \widehat{acc} = 1 - (1 - acc_{ref}) \, r \text{ ("error")} \text{ or } r \cdot acc_{ref} \text{ ("ratio")}

    The ratio compares the measure on target and reference or, for a measure of the weights, now and before. With "ratio"
    (Daróczy 2022) a ratio above one, which raises the estimated loss, raises the accuracy too; "error" points the right way.
    The standard error is by the delta method, with the covariance of what was found on the same samples.

    Args:
        measure: The measure; its key is the estimator's.
        accuracy_form: "error" or "ratio".

    Raises:
        TypeError: If the measure gives no ratio.
        ValueError: If the form is neither.

    Example:
        >>> from lightning_tansens.metrics import EmpiricalSensitivity
        >>> estimator = MeasureRatio(EmpiricalSensitivity())
        >>> target = SetSummary("test", values={"empirical": {"empirical": 3.0}})
        >>> reference = SetSummary("val", loss=0.5, accuracy=0.9, values={"empirical": {"empirical": 2.0}})
        >>> {quantity: round(found.value, 2) for quantity, found in estimator.estimate(target, reference).items()}
        {'loss': 0.75, 'accuracy': 0.85}
    """

    quantities = ("loss", "accuracy")
    needs = frozenset()

    def __init__(self, measure: SensitivityMeasure, accuracy_form: AccuracyForm = "error") -> None:
        if not isinstance(measure, SensitivityMeasure):
            raise TypeError(f"measure: expected a SensitivityMeasure, whose ratio scales a loss, but got {measure!r}")
        check_choice("accuracy_form", accuracy_form, get_args(AccuracyForm))
        self.measure, self.accuracy_form = measure, accuracy_form
        self.key = measure.key
        self.looks_at_target = measure.needs_data

    def log_ratio(self, target: SetSummary, reference: SetSummary) -> float:
        """Returns log r.

        Raises:
            UndefinedEstimateError: If the measure's values define none, or one is missing.
        """
        sets = (target, reference)
        values = [(found.values if self.measure.needs_data else found.weights).get(self.key) for found in sets]
        if values[0] is None or values[1] is None:
            missing = [found.name for found, value in zip(sets, values, strict=True) if value is None]
            raise UndefinedEstimateError(f"expected values of {self.key} on both sets, but {' and '.join(missing)} has none")
        return self.measure.log_ratio(values[0], values[1])

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        ratio = self.log_ratio(target, reference)
        of_ratio, of_loss = (_relative_error(self.measure, target, reference, with_loss) for with_loss in (False, True))
        return _scaled(ratio, of_ratio, of_loss, self.accuracy_form, reference)

    def inside(self, target: SetSummary, reference: SetSummary) -> bool | None:
        """Returns whether the target's mean lies among the reference's samples; None where these are not known."""
        of_target, seen = (found.distributions.get(self.key, {}).get("") for found in (target, reference))
        if of_target is not None and seen is not None and len(of_target):
            value, seen = float(of_target.double().mean()), seen.double()
        else:  # a mean m of numbers x_n is known by x_n/m − 1, if the ratio is the means'
            influence = reference.influences.get(self.key)
            means = [found.values.get(self.key, {}).get(self.key, math.nan) for found in (target, reference)]
            if influence is None or not min(means) > 0:
                return None
            ratio = self.log_ratio(target, reference)
            if not math.isclose(ratio, math.log(means[0] / means[1]), abs_tol=1e-9):
                return None
            value, seen = math.exp(ratio), 1 + influence.values.double()
        if not len(seen) or not math.isfinite(float(seen.sum())):
            return None
        low, high = torch.quantile(seen.cpu(), torch.tensor(SEEN, dtype=torch.float64)).tolist()
        return bool(low <= value <= high)


def scale_loss(log_ratio: float, loss: float) -> float:
    """Returns r · l; inf where it overflows, and 0 for a loss of 0 whatever the ratio.

    Example:
        >>> scale_loss(0.0, 1.25)
        1.25
    """
    if loss == 0:
        return 0.0
    try:
        return math.exp(log_ratio) * loss
    except OverflowError:
        return math.copysign(math.inf, loss)


def scale_accuracy(log_ratio: float, accuracy: float, form: AccuracyForm = "error") -> float:
    """Returns the accuracy of :class:`MeasureRatio`, clamped to [0, 1]; with "error" an accuracy of 1 stays 1.

    Example:
        >>> round(scale_accuracy(math.log(2), 0.9), 6)
        0.8
    """
    check_choice("form", form, get_args(AccuracyForm))
    share = 1 - scale_loss(log_ratio, 1 - accuracy) if form == "error" else scale_loss(log_ratio, accuracy)
    return max(min(share, 1.0), 0.0)  # in this order nan stays nan


def _scaled(
    log_ratio: float, of_ratio: float | None, of_loss: float | None, form: AccuracyForm, reference: SetSummary
) -> dict[Quantity, Estimate]:
    found: dict[Quantity, Estimate] = {}
    if reference.loss is not None:
        loss = scale_loss(log_ratio, reference.loss)
        found["loss"] = Estimate(loss, None if of_loss is None else of_loss * abs(loss))
    if reference.accuracy is not None:
        share = scale_accuracy(log_ratio, reference.accuracy, form)
        error = None
        if of_ratio is not None:
            scale = scale_loss(log_ratio, 1.0)
            part = 1 - reference.accuracy if form == "error" else reference.accuracy
            labelled = reference.loss_influence
            own = binomial_error(reference.accuracy, reference.samples if labelled is None else len(labelled.values))
            error = root_of_squares(scale * own, scale * part * of_ratio)
        found["accuracy"] = Estimate(share, error)
    return found


def _relative_error(
    measure: SensitivityMeasure | None, target: SetSummary, reference: SetSummary, with_loss: bool
) -> float | None:
    """Returns the relative standard error of a ratio, or of the ratio times the loss; without a measure the ratio is one."""
    terms, signs = ([reference.loss_influence], [1.0]) if with_loss else ([], [])
    if measure is not None and measure.needs_data:
        terms += [target.influences.get(measure.key), reference.influences.get(measure.key)]
        signs += [1.0, -1.0]
    known = [term for term in terms if term is not None]
    if measure is not None and not measure.needs_data:
        return None  # a measure of the weights has no error that samples could tell
    return relative_standard_error(known, signs) if known and len(known) == len(terms) else None
