"""An entrywise norm of the normalised logits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_tansens.checks import check_counts, check_numbers
from lightning_tansens.estimators.base import Score
from lightning_tansens.estimators.summary import SetSummary


class MaNo(Score):
    r"""Scores how peaked the normalised logits are (Xie et al., NeurIPS 2024).

    .. math:: \Big(\frac1{NC} \sum_{n,c} \sigma_c(x_n)^p\Big)^{1/p}, \qquad
              \Phi = -\frac1{NC} \sum_{n,c} \log p_c(x_n)

    σ is the softmax where Φ exceeds the threshold, so that predictions are far from uniform, and elsewhere its Taylor form
    :math:`\sigma_c = v(z_c) / \sum_j v(z_j)`, v(z) = 1 + z + z²/2, of the logits z. (The authors' code subtracts
    each row's smallest v before it normalises; the paper does not.) It ranks sets and networks.

    Args:
        order: p.
        threshold: What Φ is compared with.

    Raises:
        ValueError: If the order is not a positive integer, or the threshold is not a number.

    Example:
        >>> from lightning_tansens.estimators import Outputs
        >>> MaNo().scores(SetSummary("test", outputs=Outputs.of(np.zeros((2, 4)))))  # uniform
        {'mano': 0.25}

    """

    key = "mano"

    def __init__(self, order: int = 4, threshold: float = 5.0) -> None:
        check_counts(order=order)
        check_numbers(threshold=threshold)
        self.order, self.threshold = order, threshold

    def scores(self, summary: SetSummary) -> Mapping[str, float]:
        outputs = summary.class_scores
        normalised = outputs.probabilities
        if not -outputs.log_probabilities.mean() > self.threshold:
            taylor = 1 + outputs.outputs + np.square(outputs.outputs) / 2
            normalised = taylor / taylor.sum(1, keepdims=True)
        return {self.key: float(np.mean(normalised**self.order) ** (1 / self.order))}
