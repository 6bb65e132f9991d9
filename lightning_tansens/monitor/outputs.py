"""What is made of a network's outputs on a set: the labelled loss, and the label-free estimators' sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.reading import Reading
from lightning_tansens.metrics.copies import copied
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.tangent.features import outputs_and_features
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import call_model


class OutputMetrics:
    """Accumulates everything that one forward pass gives.

    Args:
        loss: Where to accumulate the labelled loss; None leaves the labels alone.
        peers: The label-free estimators.
        peers_see_labels: Whether they get the labels, which is for the reference alone.

    """

    def __init__(self, loss: LabelledLoss | None, peers: Sequence[Peer] = (), peers_see_labels: bool = False) -> None:
        self.loss = loss
        self.peers = list(peers)
        self._peers_see_labels = peers_see_labels

    def copy(self) -> OutputMetrics:
        """Returns an independent copy with nothing accumulated."""
        loss = None if self.loss is None else copied(self.loss)
        return OutputMetrics(loss, [copied(peer) for peer in self.peers], self._peers_see_labels)

    @property
    def metrics(self) -> list[Metric]:
        """All that accumulates."""
        return [*([self.loss] if self.loss is not None else []), *self.peers]

    def prepare(self, network: nn.Module, inputs: Any) -> None:
        """Learns the shapes of the peers' sums; every process calls it before the first update.

        Args:
            network: The network.
            inputs: A batch of at least one sample.

        """
        if self.peers:
            outputs, features = self._forward(network, inputs)
            for peer in self.peers:
                peer.prepare(outputs, features)

    def update(self, network: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds a batch.

        Args:
            network: The network.
            inputs: The batch.
            targets: Its labels, if they are used at all.
            positions: The samples' positions in their set.

        """
        if not self.metrics:
            return
        outputs, features = self._forward(network, inputs)
        if self.loss is not None:
            self.loss.update(outputs, targets, positions)
        for peer in self.peers:
            peer.update(outputs, targets if self._peers_see_labels else None, features, positions)

    def added_to(self, reading: Reading) -> Reading:
        """Returns a reading with what was accumulated, over all processes. Needs synced states."""
        reading = replace(
            reading,
            summaries={peer.key: peer.summary() for peer in self.peers},
            scores={peer.key: {name: float(score) for name, score in peer.scores().items()} for peer in self.peers},
        )
        if self.loss is None:
            return reading
        accuracy = self.loss.accuracy()
        return replace(
            reading,
            loss=float(self.loss.total / self.loss.count),  # its compute() would sync once more
            loss_influence=self.loss.influence(),
            accuracy=None if accuracy is None else float(accuracy),
            wrong=None if accuracy is None else float(self.loss.classified - self.loss.correct),
            class_losses=self.loss.class_losses(),
        )

    def _forward(self, network: nn.Module, inputs: Any) -> tuple[Any, Tensor | None]:
        with evaluation(network), torch.no_grad():
            if any(peer.needs_features for peer in self.peers):
                return outputs_and_features(network, inputs)
            return call_model(network, inputs), None
