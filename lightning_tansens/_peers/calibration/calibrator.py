"""The calibrated estimator: what perturbed copies of the reference tell of the loss on sets without labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lightning_tansens._peers.calibration.features import Feature, log_features
from lightning_tansens._peers.calibration.ridge import Ridge
from lightning_tansens._peers.estimated import Estimated, Undefined
from lightning_tansens._peers.reading import Reading
from lightning_tansens._peers.trust import Evidence
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.uncertainty import relative_standard_error
from lightning_tansens.show.keys import Quantity

#: The name of its estimates.
CALIBRATED = "calibrated"


def calibrated_estimates(
    features: Sequence[Feature], reference: Reading, copies: Sequence[Reading], target: Reading
) -> Iterator[Estimated | Undefined]:
    r"""Yields the estimates of the loss and the accuracy of a target by a fit on perturbed copies of the reference.

    .. math:: \log \frac{l(X_k)}{l(X_{ref})} \approx \sum_j \beta_j \log \frac{\phi_j(X_k)}{\phi_j(X_{ref})}, \qquad
              \hat l(X_{te}) = l(X_{ref}) \prod_j \Big(\frac{\phi_j(X_{te})}{\phi_j(X_{ref})}\Big)^{\beta_j}

    over the copies X_k, with features φ_j that need no labels; likewise for the error rate. β is that of
    :class:`~lightning_tansens._peers.calibration.ridge.Ridge`, and the standard error that of its prediction together
    with the reference's own.

    Args:
        features: The features.
        reference: What was measured on the reference, with labels.
        copies: What was measured on its copies, with labels.
        target: What was measured on the target; its labels are not used.

    """
    for quantity in ("loss", "accuracy"):
        try:
            yield _estimate(quantity, features, reference, copies, target)
        except UndefinedEstimateError as error:
            yield Undefined(CALIBRATED, str(error))
            return


def _estimate(
    quantity: Quantity, features: Sequence[Feature], reference: Reading, copies: Sequence[Reading], target: Reading
) -> Estimated:
    own = _wrongness(quantity, reference)
    if own is None:
        raise UndefinedEstimateError(f"expected a reference with {_NAMES[quantity]} to scale, but it has none")
    origin = log_features(reference, features)
    points, values = [], []
    for copy in copies:
        wrongness = _wrongness(quantity, copy)
        if wrongness is None:
            raise UndefinedEstimateError(f"expected copies of the reference with {_NAMES[quantity]}, but one has none")
        points.append(_change(log_features(copy, features), origin))
        values.append(math.log(wrongness / own))
    prediction = Ridge(points, values).predict(_change(log_features(target, features), origin))
    of_reference = 0.0 if reference.loss_influence is None else relative_standard_error([reference.loss_influence])
    spread = math.hypot(prediction.stderr, of_reference)
    wrong = own * math.exp(prediction.value)
    evidence = Evidence(
        samples=min(reference.samples, target.samples),
        errors=reference.wrong,
        change=prediction.value,
        change_stderr=prediction.stderr,
        relative_error=spread,
        inside=prediction.inside,
    )
    value = wrong if quantity == "loss" else min(max(1 - wrong, 0.0), 1.0)
    return Estimated(quantity, CALIBRATED, value, wrong * spread, evidence)


_NAMES: dict[Quantity, str] = {"loss": "a loss", "accuracy": "an error rate"}


def _wrongness(quantity: Quantity, reading: Reading) -> float | None:
    """The loss or the error rate; None where there is none to take a logarithm of."""
    error = None if reading.accuracy is None else 1 - reading.accuracy
    wrong = reading.loss if quantity == "loss" else error
    return wrong if wrong is not None and math.isfinite(wrong) and wrong > 0 else None


def _change(features: Sequence[float], origin: Sequence[float]) -> list[float]:
    return [feature - start for feature, start in zip(features, origin, strict=True)]
