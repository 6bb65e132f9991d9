"""Forms of the paper's measures beside those of the package: the linear Eq. 6, and the regions of the authors' notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tansens.functional import preactivations
from lightning_tansens.metrics import LayerwiseNormSensitivity, MeanSensitivity


class LinearLayerNorm(LayerwiseNormSensitivity):
    """Eq. 6 as it is printed, under a key of its own, so that one monitor takes it beside the logarithmic form."""

    key = "layer_norm_linear"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(form="linear", **kwargs)


class NotebookRegion(MeanSensitivity):
    r"""The region form of Eq. 8 as the authors' notebook has it, which differs from the paper in two ways.

    .. math:: R(X) = -E_{x \in X} \Big[\sum_i \log n_i(x) + \sum_l \log \mathrm{sigmoid}(\mathrm{relu}(h_l(x)))\Big], \qquad
        \hat l(X_{te}) = \frac{R(X_{tr})}{R(X_{te})} \, l(X_{tr})

    The paper has |h_l| for relu(h_l), and the test set above the training set. The sign makes R positive.
    """

    key = "region_notebook"

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns each sample's number, shape (N,); inf, which the mean leaves out, where a layer has no active unit."""
        hidden = [h.flatten(1).double() for h in preactivations(model, inputs)]
        log_paths = torch.stack([(h > 0).sum(1).double().log() for h in hidden]).sum(0)
        return -log_paths - torch.stack([F.logsigmoid(h.relu()).sum(1) for h in hidden]).sum(0)

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of the factor, the two sets swapped."""
        return super().log_ratio(reference, target)
