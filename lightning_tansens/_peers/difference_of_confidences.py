"""The difference of the average confidences on two sets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens._peers.spread import standard_error, variance_of_mean
from lightning_tansens.show.keys import Quantity


class DifferenceOfConfidences(Peer):
    r"""Estimates the accuracy by the reference's, less the drop of the average confidence (Guillory et al., ICCV 2021).

    .. math:: \widehat{acc}(X_{te}) = acc_{ref}
              - \Big(\frac1{N_{ref}} \sum_{n \in ref} \max_c p_c(x_n) - \frac1N \sum_{n \in te} \max_c p_c(x_n)\Big)

    This is the form without a regression on other sets ("DoC" as Garg et al. 2022 compare it), clamped to [0, 1]. It needs
    the labels of the reference. The standard error is that of the two sets' means; accuracy and confidence of the
    reference are taken as a pair.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the average
    confidence.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> target, reference = DifferenceOfConfidences(), DifferenceOfConfidences()
        >>> reference.update(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log(), torch.tensor([0, 1]))
        >>> target.update(torch.tensor([[0.625, 0.375]]).log())
        >>> round(target.estimate(target.summary(), reference.summary())["accuracy"].value, 6)
        0.375

    """

    key = "difference_of_confidences"
    estimates = ("accuracy",)
    needs_labels = True

    confidence: Tensor
    confidence_squares: Tensor
    gap: Tensor
    gap_squares: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("confidence")
        self._sum_state("confidence_squares")
        self._sum_state("gap", labels=True)
        self._sum_state("gap_squares", labels=True)

    def _add(self, batch: Batch) -> None:
        self.confidence += batch.confidences.sum()
        self.confidence_squares += batch.confidences.square().sum()
        if batch.labels is not None:
            gaps = batch.correct(batch.labels) - batch.confidences
            self.gap += gaps.sum()
            self.gap_squares += gaps.square().sum()

    def score(self) -> Tensor:
        """Returns the average confidence."""
        return self.confidence / self.count

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        value = float(reference["gap"] / reference["count"] + target["confidence"] / target["count"])
        of_target = variance_of_mean(target["confidence"], target["confidence_squares"], target["count"])
        of_reference = variance_of_mean(reference["gap"], reference["gap_squares"], reference["count"])
        return {"accuracy": Estimate(min(max(value, 0.0), 1.0), standard_error(of_target, of_reference))}
