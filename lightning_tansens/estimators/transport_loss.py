"""The loss on the labels that an optimal transport assigns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from lightning_tansens.checks import check_choice
from lightning_tansens.estimators.base import Estimator
from lightning_tansens.estimators.optimal_transport import (
    ENOUGH,
    FEWEST,
    Probabilities,
    crossed_plan,
    labelled_pair,
    moved_to,
    needs_of,
    noise_of_shares,
)
from lightning_tansens.estimators.spread import scaled
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity


class TransportLoss(Estimator):
    r"""Scales the reference's loss by the ratio of the losses on the labels that an optimal transport assigns.

    .. math:: \hat l(X_{te}) = l_{ref} \, \frac{\ell(X_{te})}{\ell(X_{ref})}, \qquad
              \ell(X) = -\sum_{n,c} T_{nc} \log p_c(x_n)

    with the plan T of :class:`ConfidenceOptimalTransport`, from the temporal ensemble or from today's probabilities, both
    calibrated, and today's p. The reference is moved to its own labels, and each half of it to those of the other: the
    difference, scaled to the size of both sets by 1/√n, is what chance adds to the target's loss, and is added to the
    reference's too. Limits are as there; the standard error is by the delta method, the shares' noise included.

    Args:
        probabilities: "ensemble" (key ``transport_loss``) or "now" (key ``transport_loss_now``): which probabilities give
            the plan.

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
        which = self.probabilities
        labels, costs = labelled.labels, -labelled.log_probabilities
        assert labels is not None
        plans = moved_to(labelled, labelled, which).plan, crossed_plan(labelled, which)
        on_target, of_labels = moved_to(labelled, outputs, which).influences(-outputs.log_probabilities, labels)
        on_reference, on_halves = ((plan * costs).sum(1) for plan in plans)
        on_reference += noise_of_shares(len(labelled), len(outputs)) * (on_halves - on_reference)
        # a label of the reference is part of its own mean, and of the target's by the shares
        on_reference -= on_reference.mean() / on_target.mean() * of_labels
        loss = float(labelled.losses.mean()) if reference.loss is None else reference.loss
        found = scaled(loss, on_target, on_reference, labelled.losses)
        known = min(len(labelled), len(outputs)) >= max(FEWEST, ENOUGH * labelled.classes)
        return {"loss": found if known else Estimate(found.value)}
