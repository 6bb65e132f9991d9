"""An entrywise norm of the normalised logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_tansens._peers.base import Peer
from lightning_tansens._peers.batch import Batch
from lightning_tansens.checks import check_counts, check_numbers


class MaNo(Peer):
    r"""Scores how peaked the normalised logits are (Xie et al., NeurIPS 2024).

    .. math:: \Big(\frac1{NC} \sum_{n,c} \sigma_c(x_n)^p\Big)^{1/p}, \qquad
              \Phi = -\frac1{NC} \sum_{n,c} \log p_c(x_n)

    σ is the softmax where Φ exceeds the threshold, so that predictions are far from uniform, and elsewhere its Taylor form
    :math:`\sigma_c = v(z_c) / \sum_j v(z_j)`, v(z) = 1 + z + z²/2, of the logits z. (The authors' code subtracts
    each row's smallest v before it normalises; the paper does not.) It ranks sets and networks. It needs no labels.

    As input to ``update``: logits (N, C). As output of ``compute``: the score.

    Args:
        order: p.
        threshold: What Φ is compared with.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If the order is no positive integer or the threshold no number.

    Example:
        >>> import torch
        >>> peer = MaNo()
        >>> peer.update(torch.zeros(2, 4))  # uniform
        >>> peer.compute()
        tensor(0.2500, dtype=torch.float64)

    """

    key = "mano"

    divergence: Tensor
    of_softmax: Tensor
    of_taylor: Tensor
    classes: Tensor

    def __init__(self, order: int = 4, threshold: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_counts(order=order)
        check_numbers(threshold=threshold)
        self.order, self.threshold = order, threshold
        for name in ("divergence", "of_softmax", "of_taylor", "classes"):
            self._sum_state(name)

    def _add(self, batch: Batch) -> None:
        taylor = 1 + batch.logits + batch.logits.square() / 2
        self.divergence -= batch.log_probabilities.mean(1).sum()
        self.of_softmax += batch.probabilities.pow(self.order).sum()
        self.of_taylor += (taylor / taylor.sum(1, keepdim=True)).pow(self.order).sum()
        self.classes += len(batch) * batch.classes

    def score(self) -> Tensor:
        """Returns the score."""
        softmax = self.divergence / self.count > self.threshold
        return (torch.where(softmax, self.of_softmax, self.of_taylor) / self.classes) ** (1 / self.order)

    def scores(self) -> dict[str, Tensor]:
        """Returns the score."""
        return {self.key: self.score()}
