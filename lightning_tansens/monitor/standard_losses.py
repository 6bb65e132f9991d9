"""Losses to try where a module does not say which one it is trained on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.metrics.criteria import Criterion


def aligned(function: Criterion, outputs: Tensor, targets: Tensor, **options: Any) -> Any:
    """The elements of a loss whose targets have the outputs' shape, up to axes of length 1, and type."""
    return function(outputs, targets.reshape(outputs.shape).to(outputs.dtype), reduction="none", **options)  # type: ignore[call-arg]


def _gaussian(variance: Callable[[Tensor], Tensor], outputs: Any, targets: Tensor) -> Tensor:
    mean, spread = outputs if isinstance(outputs, (tuple, list)) else outputs.chunk(2, 1)
    return F.gaussian_nll_loss(mean, targets.reshape(mean.shape).to(mean), variance(spread), reduction="none")


def _of_last_axis(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def _of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(outputs.log(), targets, reduction="none")


def _identity(value: Tensor) -> Tensor:
    return value


def _squared_exp(value: Tensor) -> Tensor:
    return (2 * value).exp()


#: The losses to try, by name, where no loss of the module fits.
STANDARD: dict[str, Criterion] = {
    "cross-entropy": F.cross_entropy,
    "binary cross-entropy with logits": functools.partial(aligned, F.binary_cross_entropy_with_logits),
    "mean squared error": functools.partial(aligned, F.mse_loss),
    "mean absolute error": functools.partial(aligned, F.l1_loss),
    "smooth L1 loss": functools.partial(aligned, F.smooth_l1_loss),
    "negative log-likelihood": F.nll_loss,
    "binary cross-entropy of probabilities": functools.partial(aligned, F.binary_cross_entropy),
    "cross-entropy of probabilities": _of_probabilities,
    "Gaussian likelihood of (mean, log variance)": functools.partial(_gaussian, torch.exp),
    "Gaussian likelihood of (mean, variance)": functools.partial(_gaussian, _identity),
    "Gaussian likelihood of (mean, log of the deviation)": functools.partial(_gaussian, _squared_exp),
    "Gaussian likelihood of (mean, softplus of the variance)": functools.partial(_gaussian, F.softplus),
    "Poisson likelihood": functools.partial(aligned, F.poisson_nll_loss),
    "Poisson likelihood of the rate": functools.partial(aligned, F.poisson_nll_loss, log_input=False),
    "cross-entropy with label smoothing 0.1": functools.partial(F.cross_entropy, label_smoothing=0.1),
    "cross-entropy over the last axis": _of_last_axis,
    "multi-class margin": F.multi_margin_loss,
}
