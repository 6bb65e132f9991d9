"""The loss, by the entropies of the predictions on two sets."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens._peers.spread import standard_error, variance_of_mean
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.show.keys import Quantity


class PredictiveEntropy(Peer):
    """The mean entropy H(x) = −Σ_c p_c(x) log p_c(x) of the predictions; a subclass makes a loss of it.

    The estimate is that of the cross-entropy, in nats, and needs the labels of the reference.
    """

    estimates = ("loss",)
    needs_labels = True

    entropy: Tensor
    entropy_squares: Tensor
    loss: Tensor
    loss_squares: Tensor
    products: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("entropy")
        self._sum_state("entropy_squares")
        for name in ("loss", "loss_squares", "products"):
            self._sum_state(name, labels=True)

    def _add(self, batch: Batch) -> None:
        self.entropy += batch.entropies.sum()
        self.entropy_squares += batch.entropies.square().sum()
        if batch.labels is not None:
            losses = batch.cross_entropies(batch.labels)
            self.loss += losses.sum()
            self.loss_squares += losses.square().sum()
            self.products += (losses * batch.entropies).sum()

    def score(self) -> Tensor:
        """Returns the mean entropy, in nats."""
        return self.entropy / self.count

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        of_target = variance_of_mean(target["entropy"], target["entropy_squares"], target["count"])
        count = float(reference["count"])
        value, by_entropy, by_reference, by_loss = self._loss(
            float(target["entropy"] / target["count"]),
            float(reference["entropy"] / reference["count"]),
            float(reference["loss"] / reference["count"]),
        )

        def of_reference(a: float, b: float) -> float:
            """The variance of the mean of a·l + b·H over the reference."""
            squares = a**2 * reference["loss_squares"] + b**2 * reference["entropy_squares"]
            squares = squares + 2 * a * b * reference["products"]
            return variance_of_mean(a * reference["loss"] + b * reference["entropy"], squares, count)

        error = standard_error(by_entropy**2 * of_target, of_reference(by_loss, by_reference))
        return {"loss": Estimate(value, error)}

    @abstractmethod
    def _loss(self, entropy: float, of_reference: float, loss: float) -> tuple[float, float, float, float]:
        """Returns the estimate, and its derivatives by the two entropies and by the reference's loss."""


class EntropyRatio(PredictiveEntropy):
    r"""Estimates the loss by the reference's, times the ratio of the mean predictive entropies.

    .. math:: \hat l(X_{te}) = l(X_{ref}) \, \frac{\bar H(X_{te})}{\bar H(X_{ref})}, \qquad
              H(x) = -\sum_c p_c(x) \log p_c(x)

    The cross-entropy of a calibrated classifier is its entropy in expectation (Gneiting and Raftery 2007), so that the
    ratio of the two is what the reference tells of the calibration. The standard error is that of the means, by the delta
    method; loss and entropy of the reference are taken as a pair.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the mean
    entropy, in nats.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> target, reference = EntropyRatio(), EntropyRatio()
        >>> reference.update(torch.tensor([[0.8, 0.2]]).log(), torch.tensor([0]))  # entropy 0.50, loss 0.22
        >>> target.update(torch.zeros(1, 2))  # entropy 0.69
        >>> round(target.estimate(target.summary(), reference.summary())["loss"].value, 3)
        0.309

    """

    key = "entropy_ratio"

    def _loss(self, entropy: float, of_reference: float, loss: float) -> tuple[float, float, float, float]:
        if of_reference == 0:
            raise UndefinedEstimateError("expected a reference with entropy, but all of its predictions are certain")
        ratio = entropy / of_reference
        return ratio * loss, loss / of_reference, -ratio * loss / of_reference, ratio


class EntropyDifference(PredictiveEntropy):
    r"""Estimates the loss by the reference's, plus the difference of the mean predictive entropies, at least 0.

    .. math:: \hat l(X_{te}) = l(X_{ref}) + \bar H(X_{te}) - \bar H(X_{ref}), \qquad H(x) = -\sum_c p_c(x) \log p_c(x)

    It is to the loss what the difference of confidences is to the accuracy. The standard error is that of the means; loss
    and entropy of the reference are taken as a pair.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the mean
    entropy, in nats.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> target, reference = EntropyDifference(), EntropyDifference()
        >>> reference.update(torch.tensor([[0.8, 0.2]]).log(), torch.tensor([0]))  # entropy 0.50, loss 0.22
        >>> target.update(torch.zeros(1, 2))  # entropy 0.69
        >>> round(target.estimate(target.summary(), reference.summary())["loss"].value, 3)
        0.416

    """

    key = "entropy_difference"

    def _loss(self, entropy: float, of_reference: float, loss: float) -> tuple[float, float, float, float]:
        return max(loss + entropy - of_reference, 0.0), 1.0, -1.0, 1.0
