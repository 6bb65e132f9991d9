"""Numbers that rank sets and networks, from which no loss or accuracy follows by itself."""

from collections.abc import Mapping

import numpy as np

from lightning_tansens.checks import check_counts, check_numbers
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Need, Score, SetSummary

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


class DispersionScore(Score):
    r"""Scores the dispersion of the predicted classes' mean features (Xie et al., NeurIPS 2023).

    .. math:: \log \frac{1}{C - 1} \sum_c n_c \, \|\bar z - \bar z_c\|^2

    with the features z, which are the input of the last layer, their mean, and the mean over the n_c samples that are
    predicted to be of class c. It ranks sets of one size for one network; it is -inf where all predictions are of one class.

    Example:
        >>> from lightning_tansens.estimators import Outputs
        >>> outputs = Outputs.of(np.eye(2), features=[[1.0], [3.0]])
        >>> round(DispersionScore().scores(SetSummary("test", outputs=outputs))["dispersion"], 4)  # log(1² + 1²)
        0.6931
    """

    key = "dispersion"
    needs = frozenset({Need.CLASSES, Need.FEATURES})

    def scores(self, summary: SetSummary) -> Mapping[str, float]:
        outputs = summary.class_scores
        if outputs.features is None:
            raise UndefinedEstimateError(
                "expected features, the input of the network's last layer, but got none; the network calls no linear or "
                "convolutional layer with a row for each sample, so leave DispersionScore out"
            )
        order = outputs.predictions.argsort(kind="stable")
        found, starts, counts = np.unique(outputs.predictions[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(outputs.features[order], starts)
        means = sums / counts[:, None] - outputs.features.mean(0)
        total = float(counts @ np.square(means).sum(1)) / (outputs.classes - 1)
        return {self.key: float(np.log(total)) if len(found) > 1 and total > 0 else -np.inf}
