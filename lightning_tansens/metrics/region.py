"""The activation regions of a set: how many active paths they have, and how probable they are."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_choice
from lightning_tansens.functional.regions import activation_regions
from lightning_tansens.metrics.base import LogarithmicMeasure, RatioForm
from lightning_tansens.metrics.samples import SampleMeasure
from lightning_tansens.metrics.uncertainty import Influence


class RegionSensitivity(SampleMeasure, LogarithmicMeasure):
    r"""The mean logarithm of the number of active paths times the region's probability, and the estimate built on it.

    .. math:: R(X) = E_{x \in X} \Big[\sum_i \log n_i(x) + \log P(A(x) \mid x)\Big], \qquad
        \hat l(X_{te}) = \frac{R(X_{te})}{R(X_{ref})} \, l(X_{ref}) \quad\text{("log")}, \qquad
        e^{R(X_{te}) - R(X_{ref})} \, l(X_{ref}) \quad\text{("linear")}

    (the region form of Eq. 8, from Eqs. 4–5 of Daróczy 2022). "log", the ratio of the mean logarithms, is what the
    authors' code computes; "linear" scales by the ratio of the geometric means. Samples with a layer without an active
    unit have no active path and no logarithm: they are left out, and their share is reported.

    Args:
        form: "log" or "linear".
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2))
        >>> measure = RegionSensitivity()
        >>> measure.update(net, torch.randn(64, 3))
        >>> sorted(measure.values())
        ['region', 'region_dead', 'region_log_paths', 'region_log_probability']
    """

    key = "region"
    not_finite = "on one of the sets no sample has an active path, so there is no mean logarithm"
    no_ratio = (
        "the mean logarithms are {now:.3g} and {before:.3g}; their ratio is an estimate only if both have one sign; "
        "RegionSensitivity(form='linear') needs none"
    )

    def __init__(self, form: RatioForm = "log", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("form", form, get_args(RatioForm))
        self.form = form

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns the logarithms of the number of active paths and of the region's probability, shape (N, 2)."""
        regions = activation_regions(model, inputs)
        return torch.stack([regions.log_paths, regions.log_probability], 1)

    def usable(self, rows: Tensor) -> Tensor:
        """Returns which samples have numbers at all; those without an active path are dead."""
        return ~rows.isnan().any(1)

    @property
    def _alive(self) -> Tensor:
        return self.rows()[:, 0].isfinite()

    def numbers(self) -> Tensor:
        """Returns the logarithm of each sample that has one, shape (N,)."""
        return self.rows()[self._alive].sum(1)

    def values(self) -> dict[str, Tensor]:
        """Returns the mean logarithm, its two parts, and the share of samples without an active path."""
        paths, probability = self.rows().reshape(-1, 2)[self._alive].mean(0)
        return {
            "region": paths + probability,
            "region_log_paths": paths,
            "region_log_probability": probability,
            "region_dead": (~self._alive).double().mean(),
        }

    def distributions(self) -> dict[str, Tensor]:
        return {"": self.numbers()} if self.count else {}

    def influence(self) -> Influence | None:
        """Returns each sample's effect on the logarithm of the factor."""
        numbers = self.numbers()
        if not len(numbers):
            return None
        effects = numbers / numbers.mean() - 1 if self.form == "log" else numbers - numbers.mean()
        return Influence(effects, self._joined("positions")[self._alive])
