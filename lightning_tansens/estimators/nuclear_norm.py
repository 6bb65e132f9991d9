"""The nuclear norm of the matrix of probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_tansens.estimators.base import Score
from lightning_tansens.estimators.summary import SetSummary

#: The most samples of one matrix.
BLOCK = 1024


class NuclearNorm(Score):
    r"""Scores confidence together with the spread over the classes (Deng et al., ICML 2023).

    .. math:: \frac{\|P\|_*}{\sqrt{N \min(N, C)}}, \qquad \|P\|_* = \sum_i \sqrt{\lambda_i(P^T P)}

    of the probabilities P, shape (N, C): 1 where all predictions are sure and the classes equally frequent. It ranks sets
    and networks; an accuracy follows from it only by a regression on other sets. The time grows with
    N · C · min(N, C), so a larger set is cut into parts of at most 1,024 samples, over which the mean is taken; it is a
    little larger, because the norm of fewer samples is.

    Example:
        >>> from lightning_tansens.estimators import Outputs
        >>> NuclearNorm().scores(SetSummary("test", outputs=Outputs.of(1000 * np.eye(3))))
        {'nuclear_norm': 1.0}

    """

    key = "nuclear_norm"

    def scores(self, summary: SetSummary) -> Mapping[str, float]:
        probabilities = summary.class_scores.probabilities
        norms = []
        for block in np.array_split(probabilities, -(-len(probabilities) // BLOCK)):
            gram = block @ block.T if len(block) < block.shape[1] else block.T @ block
            eigenvalues = np.maximum(np.linalg.eigvalsh(gram), 0)
            norms.append(np.sqrt(eigenvalues).sum() / np.sqrt(len(block) * min(block.shape)))
        return {self.key: float(np.mean(norms))}
