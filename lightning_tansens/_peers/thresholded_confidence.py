"""The share of a target's samples above a threshold that is learnt on the reference."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from torch import Tensor

from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.batch import Batch
from lightning_tansens.checks import check_choice
from lightning_tansens.show.keys import Quantity

#: What is compared with the threshold: the largest probability, or the negative entropy of all of them.
ScoreName = Literal["confidence", "entropy"]


class ThresholdedConfidence(Peer):
    r"""Estimates the accuracy by the share of samples that score at least a threshold (ATC; Garg et al., ICLR 2022).

    .. math:: \widehat{acc}(X_{te}) = \frac1N \sum_n 1[s(x_n) \ge t], \qquad
              \frac1{N_{ref}} \sum_{n \in ref} 1[s(x_n) < t] = 1 - acc_{ref}

    with the score s(x) = max_c p_c(x) ("confidence") or Σ_c p_c log p_c ("entropy"). The threshold t is a score of the
    reference, so the second equation holds exactly unless scores are equal. It needs the labels of the reference. The
    standard error is binomial in both sets, with equal densities at the threshold.

    As input to ``update``: logits (N, C), and class indices (N,) of the reference. As output of ``compute``: the mean score.

    Args:
        score: "confidence" or "entropy"; the key is ``atc_confidence`` or ``atc_entropy``.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If the score is neither.

    Example:
        >>> import torch
        >>> target, reference = ThresholdedConfidence(), ThresholdedConfidence()
        >>> reference.update(torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log(), torch.tensor([0, 1]))  # one of two is right
        >>> target.update(torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]).log())
        >>> target.estimate(target.summary(), reference.summary())["accuracy"].value
        0.5

    """

    estimates = ("accuracy",)
    needs_labels = True

    scores_of_samples: list[Tensor]

    def __init__(self, score: ScoreName = "confidence", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("score", score, get_args(ScoreName))
        self.score_name: ScoreName = score
        self.key = f"atc_{score}"
        self._sample_state("scores_of_samples")

    def _add(self, batch: Batch) -> None:
        self.scores_of_samples.append(batch.confidences if self.score_name == "confidence" else -batch.entropies)

    def score(self) -> Tensor:
        """Returns the mean score."""
        return self.summary()["scores_of_samples"].mean()

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        ordered = reference["scores_of_samples"].sort().values
        correct, count = int(reference["correct"]), len(ordered)
        threshold = float(ordered[count - correct]) if correct else math.inf
        value = float((target["scores_of_samples"] >= threshold).double().mean())
        accuracy = correct / count
        variance = value * (1 - value) / float(target["count"]) + accuracy * (1 - accuracy) / count
        return {"accuracy": Estimate(value, math.sqrt(variance))}
