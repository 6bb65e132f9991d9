"""A batch of a classifier's outputs, and what the estimators make of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The logits of N samples and C classes, in double precision.

    Attributes:
        logits: Shape (N, C).
        labels: Class indices, shape (N,), or None where labels are not used.
        features: The input of the last layer, shape (N, F), or None.

    """

    logits: Tensor
    labels: Tensor | None = None
    features: Tensor | None = None

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.logits)

    @property
    def classes(self) -> int:
        """The number C of classes."""
        return self.logits.shape[1]

    @cached_property
    def log_probabilities(self) -> Tensor:
        """The logarithm of the softmax, shape (N, C)."""
        return F.log_softmax(self.logits, 1)

    @cached_property
    def probabilities(self) -> Tensor:
        """The softmax, shape (N, C)."""
        return self.log_probabilities.exp()

    @cached_property
    def confidences(self) -> Tensor:
        """The largest probability of each sample, shape (N,)."""
        return self.probabilities.amax(1)

    @cached_property
    def entropies(self) -> Tensor:
        """The entropy of each sample's probabilities, in nats, shape (N,)."""
        entropies: Tensor = torch.special.entr(self.probabilities).sum(1)
        return entropies

    @cached_property
    def predictions(self) -> Tensor:
        """The class with the largest logit, shape (N,)."""
        return self.logits.argmax(1)

    @cached_property
    def unusable(self) -> Tensor:
        """Which samples have no probabilities, because a logit is missing or infinite, shape (N,)."""
        return ~self.probabilities.isfinite().all(1)

    def correct(self, labels: Tensor) -> Tensor:
        """Which predictions are right, as zeros and ones, shape (N,)."""
        return (self.predictions == labels).double()

    def cross_entropies(self, labels: Tensor) -> Tensor:
        """The cross-entropy of each sample, in nats, shape (N,)."""
        return -self.log_probabilities.gather(1, labels[:, None]).squeeze(1)


def checked_batch(outputs: Any, targets: Any, features: Any, device: torch.device) -> Batch:
    """Makes a batch of what a network has returned.

    Args:
        outputs: Logits, shape (N, C) with C >= 2.
        targets: Class indices, shape (N,), or None.
        features: Shape (N, F), or None.
        device: Where to compute.

    Raises:
        ValueError: If the outputs are no logits of two or more classes, the targets no class indices of theirs, or the
            features not one row for each sample.

    """
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or outputs.dim() != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"outputs: expected logits of shape (N, C) with two or more classes C, but got {_what(outputs)}; estimators for "
            "classifiers do not cover other outputs"
        )
    samples, classes = outputs.shape
    labels = None
    if targets is not None:
        integers = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
        if not integers or targets.shape != (samples,):
            raise ValueError(f"targets: expected class indices of shape ({samples},), but got {_what(targets)}")
        labels = targets.detach().to(device).long()
        if samples and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"targets: expected classes from 0 to {classes - 1}, as many as outputs, but got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
    if features is not None:
        if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != samples:
            raise ValueError(f"features: expected shape ({samples}, F), one row for each sample, but got {_what(features)}")
        features = features.detach().to(device).double()
    return Batch(outputs.detach().to(device).double(), labels, features)


def _what(value: Any) -> str:
    return f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
