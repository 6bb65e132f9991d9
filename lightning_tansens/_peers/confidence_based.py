"""The mean of a target's confidences, once these are calibrated on the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens.show.keys import Quantity


class ConfidenceBasedEstimation(Peer):
    r"""Estimates the accuracy by the mean of the calibrated confidences (CBPE, as in NannyML).

    .. math:: \widehat{acc}(X_{te}) = \frac1N \sum_n g\big(\max_c p_c(x_n)\big)

    with the non-decreasing g that fits the reference's rights and wrongs best in the mean square (isotonic regression),
    linear between the reference's confidences and constant beyond them. It needs the labels of the reference. The standard
    error is not known.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the average
    confidence.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> target, reference = ConfidenceBasedEstimation(), ConfidenceBasedEstimation()
        >>> sure, unsure = [0.9, 0.1], [0.6, 0.4]
        >>> reference.update(torch.tensor([sure, sure, unsure, unsure]).log(), torch.tensor([0, 0, 0, 1]))
        >>> target.update(torch.tensor([sure, unsure, unsure, unsure]).log())
        >>> target.estimate(target.summary(), reference.summary())["accuracy"].value
        0.625

    """

    key = "cbpe"
    estimates = ("accuracy",)
    needs_labels = True

    confidences: list[Tensor]
    rights: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sample_state("confidences")
        self._sample_state("rights", labels=True)

    def _add(self, batch: Batch) -> None:
        self.confidences.append(batch.confidences)
        if batch.labels is not None:
            self.rights.append(batch.correct(batch.labels))

    def score(self) -> Tensor:
        """Returns the average confidence."""
        return self.summary()["confidences"].mean()

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        # samples of equal confidence are one point, so that their order does not matter
        confidences, place, counts = np.unique(
            reference["confidences"].cpu().numpy(), return_inverse=True, return_counts=True
        )
        rights = np.bincount(place, weights=reference["rights"].cpu().numpy()) / counts
        calibrated = isotonic_regression(rights, weights=counts.astype(np.float64)).x
        return {"accuracy": Estimate(float(np.interp(target["confidences"].cpu().numpy(), confidences, calibrated).mean()))}
