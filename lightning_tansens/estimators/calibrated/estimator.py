"""The calibrated estimator: what perturbed copies of the reference tell of the loss on sets without labels."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from lightning_tansens.checks import check_choice
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Need, Quantity, SetSummary
from lightning_tansens.estimators.calibrated.perturbations import Contrast, Masked, Noise, Transform, checked_transforms
from lightning_tansens.estimators.calibrated.ridge import Prediction, Ridge
from lightning_tansens.metrics.uncertainty import relative_standard_error

#: The mean predictive entropy, the mean of 1 − confidence, the mean ‖S‖_F², the mean number of active hidden units.
Feature = Literal["entropy", "confidence", "sensitivity", "active_nodes"]

#: Those that a measure gives: its key, and the name of the value.
_MEASURED: dict[Feature, tuple[str, str]] = {
    "sensitivity": ("empirical", "empirical"),
    "active_nodes": ("active_nodes", "active_nodes_mean"),
}

#: With fewer copies than this a fit has nothing to be judged by.
MIN_COPIES = 3

#: The copies by default: noise, holes, contrast, each at two strengths.
COPIES: tuple[Transform, ...] = (Noise(0.2), Noise(0.7), Masked(0.1), Masked(0.3), Contrast(0.25), Contrast(0.5))


class Calibrated(Estimator):
    r"""Estimates loss and accuracy by a fit on perturbed copies of the labelled reference.

    .. math:: \log \frac{l(X_k)}{l(X_{ref})} \approx \sum_j \beta_j \log \frac{\phi_j(X_k)}{\phi_j(X_{ref})}, \qquad
              \hat l(X_{te}) = l(X_{ref}) \prod_j \Big(\frac{\phi_j(X_{te})}{\phi_j(X_{ref})}\Big)^{\beta_j}

    over the copies X_k, with features φ_j that need no labels; the error rate is fitted in the same way.
    :class:`~lightning_tansens.estimators.calibrated.ridge.Ridge` fits β. The standard error adds its prediction's and the
    reference's own. Each copy costs as much as a test set with labels.

    Args:
        copies: Callables that change a sample (a tensor without the batch's dimension) and keep its shape; each makes one
            copy of the reference. None for noise, holes and contrast at two strengths. Choose some that change the data the
            way you expect them to change.
        features: "entropy", "confidence", "sensitivity" (needs EmpiricalSensitivity), "active_nodes" (needs
            ActiveNodeSensitivity). On average the first two alone did better in trials than with the others.

    Raises:
        ValueError: If there are fewer than three copies, or a feature is unknown.
        TypeError: If a copy is not callable.

    Example:
        >>> len(Calibrated(copies=[Noise(0.5), Masked(0.2), lambda image: image.flip(-1)]).copies)
        3
    """

    key = "calibrated"
    quantities = ("loss", "accuracy")

    def __init__(
        self, copies: Sequence[Transform] | None = None, features: Sequence[Feature] = ("entropy", "confidence")
    ) -> None:
        copies = COPIES if copies is None else copies
        self.copies = checked_transforms(copies)
        if len(copies) < MIN_COPIES:
            raise ValueError(f"copies: expected {MIN_COPIES} or more to fit on, but got {len(copies)}; add some")
        if isinstance(features, (str, bytes)) or not isinstance(features, Sequence) or not features:
            raise TypeError(f"features: expected a list of features, but got {features!r}")
        for feature in features:
            check_choice("features", feature, get_args(Feature))
        self.features = tuple(features)
        self.needs = frozenset({Need.CLASSES, Need.COPIES})

    @property
    def measure_keys(self) -> frozenset[str]:
        return frozenset(_MEASURED[name][0] for name in self.features if name in _MEASURED)

    def copies_for(self, inputs: Any, class_scores: bool = True) -> Sequence[Transform]:
        return self.copies

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        found: dict[Quantity, Estimate] = {}
        for quantity in self.quantities:
            own = _wrongness(quantity, reference)
            if own is None and quantity == "accuracy" and reference.accuracy is None:
                continue
            prediction = self._predict(quantity, target, reference)
            assert own is not None
            influence = reference.loss_influence
            of_reference = 0.0 if influence is None else relative_standard_error([influence])
            wrong = own * math.exp(prediction.value)
            error = wrong * math.hypot(prediction.stderr, of_reference)
            found[quantity] = Estimate(wrong if quantity == "loss" else 1 - wrong, error)
        return found

    def inside(self, target: SetSummary, reference: SetSummary) -> bool | None:
        return self._predict("loss", target, reference).inside

    def _predict(self, quantity: Quantity, target: SetSummary, reference: SetSummary) -> Prediction:
        own, origin = _wrongness(quantity, reference), log_features(reference, self.features)
        if own is None:
            raise UndefinedEstimateError(f"expected a reference with {_NAMES[quantity]} to scale, but it has none")
        points, values = [], []
        for copy in reference.copies_of(self.key):
            wrongness = _wrongness(quantity, copy)
            if wrongness is None:
                raise UndefinedEstimateError(f"expected copies of the reference with {_NAMES[quantity]}, but one has none")
            points.append(np.subtract(log_features(copy, self.features), origin))
            values.append(math.log(wrongness / own))
        if len(points) < MIN_COPIES:
            raise UndefinedEstimateError(f"expected {MIN_COPIES} copies of the reference or more, but got {len(points)}")
        return Ridge(points, values).predict(np.subtract(log_features(target, self.features), origin))


_NAMES: dict[Quantity, str] = {"loss": "a loss", "accuracy": "an error rate"}


def _wrongness(quantity: Quantity, summary: SetSummary) -> float | None:
    """Returns the loss or the error rate; None where there is none to take a logarithm of."""
    error = None if summary.accuracy is None else 1 - summary.accuracy
    wrong = summary.loss if quantity == "loss" else error
    return wrong if wrong is not None and math.isfinite(wrong) and wrong > 0 else None


def log_features(summary: SetSummary, features: Sequence[Feature]) -> list[float]:
    """Returns the logarithms of a set's features; raises UndefinedEstimateError if one is not positive or not finite."""
    logarithms = []
    for name in features:
        value = _feature(summary, name)
        if not (math.isfinite(value) and value > 0):
            raise UndefinedEstimateError(f"expected a positive mean {name} on every set, but it is {value}")
        logarithms.append(math.log(value))
    return logarithms


def _feature(summary: SetSummary, name: Feature) -> float:
    if name in _MEASURED:
        key, value = _MEASURED[name]
        return summary.values.get(key, {}).get(value, math.nan)
    return float(summary.class_scores.entropies.mean() if name == "entropy" else 1 - summary.class_scores.confidences.mean())
