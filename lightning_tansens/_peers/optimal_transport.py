"""The cost of moving a target's probabilities to the reference's labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens.show.keys import Quantity


class ConfidenceOptimalTransport(Peer):
    r"""Estimates the error rate by an optimal transport from probabilities to labels (COT; Lu et al., NeurIPS 2023).

    .. math:: \widehat{err}(X_{te}) = \min_{T \ge 0} \sum_{n,c} T_{nc} \, (1 - p_c(x_n)) + \overline{conf}_{ref} - acc_{ref},
              \qquad \sum_c T_{nc} = \tfrac1N, \quad \sum_n T_{nc} = m_c

    with the share m_c of class c among the reference's labels; 1 − p_c is half the L1 distance from p to the one-hot
    vector of c. The difference of confidence and accuracy on the reference stands for the calibration of the probabilities
    that the paper does first. It needs the labels of the reference, and that the classes have the same shares in both
    sets. The estimate is clamped to [0, 1]; its standard error is not known. The time grows with N³: 0.1 s for 1,024
    samples, 4 s for 4,096.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the average
    confidence.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> target, reference = ConfidenceOptimalTransport(), ConfidenceOptimalTransport()
        >>> reference.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log(), torch.tensor([0, 1]))  # right and sure
        >>> target.update(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log())  # one of the two must be of class 1
        >>> round(target.estimate(target.summary(), reference.summary())["accuracy"].value, 6)
        0.5

    """

    key = "cot"
    estimates = ("accuracy",)
    needs_labels = True

    probabilities: list[Tensor]
    confidence: Tensor
    labels_by_class: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("confidence")
        self._sum_state("labels_by_class", labels=True)
        self._sample_state("probabilities")

    def _prepare(self, batch: Batch) -> None:
        self._shaped_state("labels_by_class", batch.classes, labels=True)

    def _add(self, batch: Batch) -> None:
        self.confidence += batch.confidences.sum()
        self.probabilities.append(batch.probabilities.flatten())
        if batch.labels is not None:
            self.labels_by_class += torch.bincount(batch.labels, minlength=batch.classes)

    def score(self) -> Tensor:
        """Returns the average confidence."""
        return self.confidence / self.count

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        shares = (reference["labels_by_class"] / reference["labels_by_class"].sum()).cpu().numpy()
        cost = transport_cost(target["probabilities"].cpu().numpy(), shares)
        overconfidence = float((reference["confidence"] - reference["correct"]) / reference["count"])
        return {"accuracy": Estimate(min(max(1 - cost - overconfidence, 0.0), 1.0))}


def transport_cost(probabilities: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Solves the assignment problem of :class:`ConfidenceOptimalTransport` exactly, for shares of whole samples.

    Args:
        probabilities: p_c(x_n), shape (N, C).
        shares: m_c, shape (C,), with the sum 1; rounded to multiples of 1/N, which changes the cost by C/(2N) at most.

    Returns:
        The mean cost of a sample.

    Example:
        >>> transport_cost(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0.5, 0.5]))
        0.5

    """
    samples = len(probabilities)
    places = np.floor(shares * samples).astype(int)
    remainders = shares * samples - places
    places[np.argsort(-remainders, kind="stable")[: samples - places.sum()]] += 1
    costs = np.repeat(1 - probabilities, places, axis=1)  # a column for each place
    return float(costs[linear_sum_assignment(costs)].mean())
