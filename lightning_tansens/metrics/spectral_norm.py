"""The product of the layers' spectral norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_share
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.spectral import SpectralCache, spectral_norms
from lightning_tansens.metrics.base import SensitivityMeasure


class SpectralNormSensitivity(SensitivityMeasure):
    r"""The product of the layers' spectral norms, log Π_i ‖W_i‖₂, and the loss estimate from its change in time.

    .. math:: \hat l_t = \frac{\prod_i \|W_i^{(t-1)}\|_2}{\prod_i \|W_i^{(t)}\|_2} \, l_t

    (Eq. 11 of Daróczy 2022, after Bartlett et al. 2017). It needs no data: t−1 is the previous measurement. Convolutions
    are taken as operators on their input's size, which :meth:`prepare` learns; ``update`` needs inputs only for others. A
    measurement starts from the singular vectors of the one before, which copies of the measure share.

    Args:
        tolerance: The relative error of a norm.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> measure = SpectralNormSensitivity()
        >>> layer = torch.nn.Linear(4, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, 0.5)
        >>> measure.update(layer)
        >>> measure.compute()
        tensor(0., dtype=torch.float64)
    """

    key = "spectral_norm"
    needs_data = False

    log_norms: Tensor
    count: Tensor

    def __init__(self, tolerance: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_share("tolerance", tolerance)
        self.tolerance = tolerance
        #: What the measurements of a network hand on; no state, so that it survives ``reset``.
        self.cache = SpectralCache()
        self.layers: tuple[str, ...] = ()
        self._sum_state("log_norms")  # its length is learnt from the network
        self._sum_state("count")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        self.cache.learn_sizes(model, inputs)

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Takes the norms of the weights as they are."""
        norms = spectral_norms(model, inputs, tolerance=self.tolerance, cache=self.cache)
        if not self.count:
            self.layers = tuple(name.removesuffix(".weight") for name in norms)
            self._sum_state("log_norms", len(norms))
        self.log_norms += torch.stack(list(norms.values())).log().to(self.log_norms)
        self.count += 1

    def values(self) -> dict[str, Tensor]:
        """Returns log Π_i ‖W_i‖₂; the mean over the updates, which all processes agree on."""
        return {self.key: self.log_norms.sum() / self.count}

    def part_values(self) -> dict[str, Tensor]:
        """Returns ‖W_i‖₂ of each layer."""
        return dict(zip(self.layers, (self.log_norms / self.count).exp())) if self.count else {}

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        now, before = target[self.key], reference[self.key]
        if not (math.isfinite(now) and math.isfinite(before)):
            raise UndefinedEstimateError(
                f"log Π ‖W‖₂ was {before:.3g} and is {now:.3g}; their difference is an estimate only if both are finite, "
                "that is, if no layer is zero"
            )
        return before - now
