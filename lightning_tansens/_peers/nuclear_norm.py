"""The nuclear norm of the matrix of probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_tansens._peers.base import Peer
from lightning_tansens._peers.batch import Batch


class NuclearNorm(Peer):
    r"""Scores confidence together with the spread over the classes (Deng et al., ICML 2023).

    .. math:: \frac{\|P\|_*}{\sqrt{N \min(N, C)}}, \qquad \|P\|_* = \sum_i \sqrt{\lambda_i(P^T P)}

    of the probabilities P, shape (N, C): 1 where all predictions are sure and the classes equally frequent. It ranks sets
    and networks; an accuracy follows from it only by a regression on other sets. It needs no labels.

    As input to ``update``: logits (N, C). As output of ``compute``: the normalised norm.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> peer = NuclearNorm()
        >>> peer.update(1000 * torch.eye(3))
        >>> peer.compute()
        tensor(1., dtype=torch.float64)

    """

    key = "nuclear_norm"
    gram: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("gram")

    def _prepare(self, batch: Batch) -> None:
        self._shaped_state("gram", batch.classes, batch.classes)

    def _add(self, batch: Batch) -> None:
        self.gram += batch.probabilities.T @ batch.probabilities

    def score(self) -> Tensor:
        """Returns the normalised norm."""
        if self.gram.dim() < 2 or not self.gram.isfinite().all():
            return self.count * torch.nan
        norm: Tensor = torch.linalg.eigvalsh(self.gram).clamp(min=0).sqrt().sum()
        return norm / (self.count * self.count.clamp(max=len(self.gram))).sqrt()

    def scores(self) -> dict[str, Tensor]:
        """Returns the normalised norm."""
        return {self.key: self.score()}
