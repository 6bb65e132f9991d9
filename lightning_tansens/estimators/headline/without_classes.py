"""The headline where outputs are no class scores: the loss by pseudo-labels, drawn to the reference's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_tansens.estimators.headline.interval import QUANTILE
from lightning_tansens.estimators.pseudo_label_loss import PseudoLabelLoss, PseudoLabels
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate

#: A log ratio below so many standard errors is drawn to zero.
NOISE = 2.0

UNTESTED = "outputs that are no classes: its interval holds sampling alone"


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns each sample's mean squared error, shape (N,)."""
    return torch.square(outputs - targets).flatten(1).mean(1) if outputs.dim() > 1 else torch.square(outputs - targets)


def drawn_pseudo_label_loss(
    target: SetSummary, reference: SetSummary, criterion: Callable[[Any, Any], Any] | None, pseudo_labels: PseudoLabels
) -> Estimate:
    r"""Returns the estimate of :class:`PseudoLabelLoss`, drawn to the reference's loss where noise may explain it.

    .. math:: \hat l = l_{ref} \, e^a, \qquad a = \frac{d^3}{d^2 + (2 s)^2}

    with the log ratio d and its standard error s, which gives the interval too.

    Args:
        target: What was found on the target.
        reference: What was found on the reference, with a positive loss.
        criterion: See :class:`PseudoLabelLoss`; None for the squared error.
        pseudo_labels: As above.

    Raises:
        UndefinedEstimateError: If there was no earlier measurement, or the reference has no loss.

    """
    by_labels = PseudoLabelLoss(criterion or squared_error, pseudo_labels)
    found, loss = by_labels.estimate(target, reference)["loss"], reference.loss
    if loss is None or not loss > 0 or not found.value > 0 or found.stderr is None:
        return found
    error, ratio = found.stderr / found.value, math.log(found.value / loss)
    value = loss * math.exp(ratio**3 / (ratio**2 + (NOISE * error) ** 2)) if ratio else loss
    half = QUANTILE * error
    return Estimate(value, low=value * math.exp(-half), high=value * math.exp(half), doubts=(UNTESTED,))
