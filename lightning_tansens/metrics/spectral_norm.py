"""The product of the layers' spectral norms."""

from typing import Any

from torch import Tensor, nn

from lightning_tansens.checks import check_share
from lightning_tansens.functional.layer_norms import SpectralCache, spectral_norms
from lightning_tansens.metrics.base import WeightMeasure


class SpectralNormSensitivity(WeightMeasure):
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
    power = -1.0
    not_finite = (
        "log Π ‖W‖₂ was {before:.3g} and is {now:.3g}; their difference is an estimate only if both are finite, that is, if "
        "no layer is zero"
    )

    def __init__(self, tolerance: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_share("tolerance", tolerance)
        self.tolerance = tolerance
        #: What the measurements of a network hand on; no state, so that it survives ``reset``.
        self.cache = SpectralCache()

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        self.cache.learn_sizes(model, inputs)

    def of_layers(self, model: nn.Module, inputs: Any) -> dict[str, Tensor]:
        """Returns log ‖W_i‖₂ of each layer."""
        norms = spectral_norms(model, inputs, tolerance=self.tolerance, cache=self.cache)
        return {name: norm.log() for name, norm in norms.items()}

    def part_values(self) -> dict[str, Tensor]:
        """Returns ‖W_i‖₂ of each layer."""
        return dict(zip(self.layers, (self.log_norms / self.count).exp())) if self.count else {}
