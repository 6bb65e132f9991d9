"""Label-free estimates of loss and accuracy on a target set, from a ratio and the reference set's labelled values."""

from __future__ import annotations

import math
from typing import Literal

#: How the accuracy is estimated: by the error rate ("error") or by the accuracy itself ("ratio", as Daróczy 2022 does).
AccuracyForm = Literal["error", "ratio"]


def estimate_loss(log_ratio: float, reference_loss: float) -> float:
    r"""Scales the reference's loss.

    .. math:: \hat l(X_{te}) = r \cdot l(X_{ref})

    (Eqs. 6–11 of Daróczy 2022, where the reference is the training set).

    Args:
        log_ratio: log r.
        reference_loss: l(X_ref), in units of the criterion.

    Returns:
        The estimate, in units of the criterion; inf where it overflows.

    Example:
        >>> estimate_loss(0.0, 1.25)
        1.25

    """
    return _scale(log_ratio, reference_loss)


def estimate_accuracy(log_ratio: float, reference_accuracy: float, form: AccuracyForm = "error") -> float:
    r"""Estimates the accuracy, clamped to [0, 1].

    .. math:: 1 - (1 - acc_{ref}) \, r \quad\text{("error")} \qquad r \cdot acc_{ref} \quad\text{("ratio")}

    With "ratio" (Daróczy 2022) a ratio above one, which raises the estimated loss, raises the accuracy too; "error"
    points the right way, but stays at 1 where the reference accuracy is 1.

    Args:
        log_ratio: log r.
        reference_accuracy: The reference's accuracy, between 0 and 1.
        form: "error" or "ratio".

    Returns:
        The estimated share of right answers.

    Raises:
        ValueError: If the form is neither.

    Example:
        >>> import math
        >>> round(estimate_accuracy(math.log(2), 0.9), 6)
        0.8

    """
    if form == "error":
        return _clamp(1 - _scale(log_ratio, 1 - reference_accuracy))
    if form == "ratio":
        return _clamp(_scale(log_ratio, reference_accuracy))
    raise ValueError(f"form: expected 'error' or 'ratio', but got {form!r}")


def _clamp(share: float) -> float:
    return max(min(share, 1.0), 0.0)  # in this order nan stays nan


def _scale(log_ratio: float, value: float) -> float:
    if value == 0:
        return 0.0
    try:
        return math.exp(log_ratio) * value
    except OverflowError:
        return math.copysign(math.inf, value)
