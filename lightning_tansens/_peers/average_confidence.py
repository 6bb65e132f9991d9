"""The average confidence of a classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens._peers.spread import standard_error, variance_of_mean
from lightning_tansens.show.keys import Quantity


class AverageConfidence(Peer):
    r"""Estimates the accuracy by the mean of the largest softmax probability (Hendrycks & Gimpel, ICLR 2017).

    .. math:: \widehat{acc}(X_{te}) = \frac1N \sum_n \max_c p_c(x_n)

    It needs no labels at all, and is right where the confidences are calibrated on the target set. The standard error is
    that of a mean.

    As input to ``update``: logits (N, C). As output of ``compute``: the average confidence.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> peer = AverageConfidence()
        >>> peer.update(torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log())
        >>> peer.compute()
        tensor(0.6250, dtype=torch.float64)

    """

    key = "average_confidence"
    estimates = ("accuracy",)

    confidence: Tensor
    confidence_squares: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("confidence")
        self._sum_state("confidence_squares")

    def _add(self, batch: Batch) -> None:
        self.confidence += batch.confidences.sum()
        self.confidence_squares += batch.confidences.square().sum()

    def score(self) -> Tensor:
        """Returns the average confidence."""
        return self.confidence / self.count

    def scores(self) -> dict[str, Tensor]:
        """Returns the average confidence."""
        return {self.key: self.score()}

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        variance = variance_of_mean(target["confidence"], target["confidence_squares"], target["count"])
        return {"accuracy": Estimate(float(target["confidence"] / target["count"]), standard_error(variance))}
