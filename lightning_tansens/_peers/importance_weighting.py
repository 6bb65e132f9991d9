"""The reference's accuracy, re-weighted to the target's confidences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens._peers.spread import standard_error
from lightning_tansens.checks import check_counts
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.show.keys import Quantity


class ImportanceWeighting(Peer):
    r"""Estimates the accuracy by the reference's in bins of the confidence, weighted by the target's shares of the bins.

    .. math:: \widehat{acc}(X_{te}) = \frac{\sum_b q_b \, acc_{ref,b}}{\sum_b q_b}

    with the share q_b of the target's samples in bin b. This is the baseline IM of Garg et al. (ICLR 2022): importance
    re-weighting as in Mandoline (Chen et al., ICML 2021) with the confidence as the only slice and density ratios from
    histograms of equal width. Sums run over the bins in which the reference has samples. It needs the labels of the
    reference. The standard error holds the bins fixed: that of a mean over the target, and binomial in each bin of the
    reference.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the average
    confidence.

    Args:
        bins: The number of bins between 0 and 1; each includes its upper end.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``bins`` is no positive integer.

    Example:
        >>> import torch
        >>> target, reference = ImportanceWeighting(), ImportanceWeighting()
        >>> sure, unsure = [0.95, 0.05], [0.55, 0.45]
        >>> reference.update(torch.tensor([sure, unsure, unsure]).log(), torch.tensor([0, 0, 1]))
        >>> target.update(torch.tensor([sure, unsure, unsure, unsure]).log())
        >>> target.estimate(target.summary(), reference.summary())["accuracy"].value
        0.625

    """

    key = "importance_weighting"
    estimates = ("accuracy",)
    needs_labels = True

    confidence: Tensor
    bin_counts: Tensor
    bin_correct: Tensor

    def __init__(self, bins: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_counts(bins=bins)
        self.bins = int(bins)
        self._sum_state("confidence")
        self._sum_state("bin_counts", self.bins)
        self._sum_state("bin_correct", self.bins, labels=True)

    def _add(self, batch: Batch) -> None:
        self.confidence += batch.confidences.sum()
        inner = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64, device=self.device)[1:-1]
        of_samples = torch.bucketize(batch.confidences, inner)
        self.bin_counts += torch.bincount(of_samples, minlength=self.bins)
        if batch.labels is not None:
            self.bin_correct += torch.bincount(of_samples, batch.correct(batch.labels), self.bins)

    def score(self) -> Tensor:
        """Returns the average confidence."""
        return self.confidence / self.count

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        common = (target["bin_counts"] > 0) & (reference["bin_counts"] > 0)
        if not bool(common.any()):
            raise UndefinedEstimateError(
                "expected a bin of confidences in which both sets have samples, but there is none; take fewer bins"
            )
        counts = target["bin_counts"][common]
        shares = counts / counts.sum()
        accuracies = reference["bin_correct"][common] / reference["bin_counts"][common]
        value = (shares * accuracies).sum()
        of_target = (shares * (accuracies - value).square()).sum() / counts.sum()
        of_bins = accuracies * (1 - accuracies) / reference["bin_counts"][common]
        error = standard_error(float(of_target), float((shares.square() * of_bins).sum()))
        return {"accuracy": Estimate(float(value), error)}
