"""The loss on the labels that an optimal transport assigns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.checks import check_choice
from lightning_tansens.estimators.base import Estimator
from lightning_tansens.estimators.optimal_transport import (
    BLOCK,
    ENOUGH,
    FEWEST,
    Probabilities,
    calibrated,
    crossed,
    labelled_pair,
    needs_of,
    parts_of,
)
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares, scaled
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity

#: Both sets are cut into so many to see how the cost spreads.
CUTS = 4


class TransportLoss(Estimator):
    r"""Scales the reference's loss by the ratio of the losses on the labels that an optimal transport assigns.

    .. math:: \hat l(X_{te}) = l_{ref} \, \frac{\ell(X_{te})}{\ell(X_{ref})}, \qquad
              \ell(X) = -\sum_{n,c} T_{nc} \log p_c(x_n)

    with the plan T of :class:`ConfidenceOptimalTransport`, from the temporal ensemble or from today's probabilities, both
    calibrated, and today's p. The reference is moved to its own labels, and each half of it to those of the other: the
    difference, scaled to the size of both sets by 1/√n, is what chance adds to the target's loss, and is added to the
    reference's too. Parts and limits are as there; the standard error has the target's part from quarters.

    Args:
        probabilities: "ensemble" (key ``transport_loss``) or "now" (key ``transport_loss_now``): whose give the plan.

    Raises:
        ValueError: If the probabilities are neither.

    Example:
        >>> TransportLoss().key
        'transport_loss'

    """

    quantities = ("loss",)

    def __init__(self, probabilities: Probabilities = "ensemble") -> None:
        check_choice("probabilities", probabilities, get_args(Probabilities))
        self.probabilities: Probabilities = probabilities
        self.key = "transport_loss" if probabilities == "ensemble" else "transport_loss_now"
        self.needs = needs_of(probabilities)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Mapping[Quantity, Estimate]:
        labelled, outputs = labelled_pair(target, reference)
        own, other = calibrated(labelled, outputs, self.probabilities)
        assert labelled.labels is not None
        on_target, error = transport_mean(other, -outputs.log_probabilities, labelled.labels)
        costs, parts = -labelled.log_probabilities, -(-len(own) // BLOCK)
        on_reference = np.empty(len(own))
        for k in range(parts):
            (on_reference[k::parts],) = parts_of(own[k::parts], costs[k::parts], labelled.labels[k::parts], 1)
        noise = np.sqrt((len(own) / min(len(other), BLOCK) + 1) / 4)  # of shares, over that of halves of the reference
        on_reference += noise * (crossed(own, costs, labelled.labels, len(other)) - on_reference)
        loss = float(labelled.losses.mean()) if reference.loss is None else reference.loss
        ratio = scaled(loss, np.full(2, max(on_target, 0.0)), on_reference, labelled.losses)
        relative = None if ratio.stderr is None or not ratio.value else ratio.stderr / ratio.value
        if relative is None or not on_target > 0:
            return {"loss": Estimate(ratio.value)}
        total = root_of_squares(relative, error / on_target)
        return {"loss": Estimate(ratio.value, None if total is None else total * ratio.value)}


def transport_mean(
    probabilities: NDArray[np.float64], costs: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """Returns the mean cost of a transport to the labels of another set, and its standard error.

    Args:
        probabilities: Those that are moved, shape (N, C).
        costs: What a sample costs at each class, shape (N, C).
        labels: The labels whose shares are the classes', shape (M,).

    Returns:
        The mean, and its error; nan where there are too few samples.

    """
    parts, samples = -(-len(probabilities) // BLOCK), min(len(probabilities), len(labels))
    whole = float(np.mean(np.concatenate(parts_of(probabilities, costs, labels, parts))))
    if samples < max(FEWEST, ENOUGH * probabilities.shape[1]):
        return whole, np.nan
    quarters = np.array(
        [[part.mean() for part in parts_of(probabilities, costs, labels[k::CUTS], CUTS * parts)] for k in range(CUTS)]
    )
    return whole, float(np.hypot(error_of_mean(quarters.mean(0)), error_of_mean(quarters.mean(1))))
