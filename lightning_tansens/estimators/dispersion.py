"""How far apart the predicted classes lie in the space of features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Need, Score
from lightning_tansens.estimators.summary import SetSummary


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
        """Returns the score."""
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
