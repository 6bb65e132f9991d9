"""How far apart the predicted classes lie in the space of features."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens._peers.base import Peer
from lightning_tansens._peers.batch import Batch


class DispersionScore(Peer):
    r"""Scores the dispersion of the predicted classes' mean features (Xie et al., NeurIPS 2023).

    .. math:: \log \frac{1}{C - 1} \sum_c n_c \, \|\bar z - \bar z_c\|^2

    with the features z, which are the input of the last layer, their mean, and the mean over the n_c samples that are
    predicted to be of class c. It ranks sets of one size for one network. It needs no labels.

    As input to ``update``: logits (N, C) and features (N, F). As output of ``compute``: the score.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> peer = DispersionScore()
        >>> peer.update(torch.eye(2), features=torch.tensor([[1.0], [3.0]]))
        >>> peer.compute()  # log(1² + 1²)
        tensor(0.6931, dtype=torch.float64)

    """

    key = "dispersion"
    needs_features = True

    members: Tensor
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("members")
        self._sum_state("sums")

    def _prepare(self, batch: Batch) -> None:
        if batch.features is None:
            raise ValueError(
                "features: expected the input of the network's last layer, but got None; the network calls no linear or "
                "convolutional layer with a row for each sample, so leave DispersionScore out"
            )
        self._shaped_state("members", batch.classes)
        self._shaped_state("sums", batch.classes, batch.features.shape[1])

    def _add(self, batch: Batch) -> None:
        assert batch.features is not None
        members = F.one_hot(batch.predictions, batch.classes).double()
        self.members += members.sum(0)
        self.sums += members.T @ batch.features

    def score(self) -> Tensor:
        """Returns the score; -inf where all predictions are of one class."""
        if not self.members.dim():
            return self.count * torch.nan
        some = self.members > 0
        means = self.sums[some] / self.members[some, None]
        mean = self.sums.sum(0) / self.members.sum()
        return ((self.members[some] * (means - mean).square().sum(1)).sum() / (len(self.members) - 1)).log()

    def scores(self) -> dict[str, Tensor]:
        """Returns the score."""
        return {self.key: self.score()}
