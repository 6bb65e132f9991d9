"""The activation regions of a set: how many active paths they have, and how probable they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.bounds.regions import activation_regions
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.base import SensitivityMeasure, positions_from
from lightning_tansens.metrics.layerwise_norm import NormForm
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error


class RegionSensitivity(SensitivityMeasure):
    r"""The mean logarithm of the number of active paths times the region's probability, and the estimate built on it.

    .. math:: R(X) = E_{x \in X} \Big[\sum_i \log n_i(x) + \log P(A(x) \mid x)\Big], \qquad
        \hat l(X_{te}) = \frac{R(X_{te})}{R(X_{ref})} \, l(X_{ref}) \quad\text{("log")}, \qquad
        e^{R(X_{te}) - R(X_{ref})} \, l(X_{ref}) \quad\text{("linear")}

    (the region form of Eq. 8, from Eqs. 4–5 of Daróczy 2022). "log", the ratio of the mean logarithms, is what the
    authors' code computes; "linear" scales by the ratio of the geometric means. Samples with a layer without an active
    unit have no active path and no logarithm: they are left out, and their share is reported.

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: a scalar, a natural logarithm.

    Args:
        form: "log" or "linear".
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If the form is neither.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2))
        >>> measure = RegionSensitivity()
        >>> measure.update(net, torch.randn(64, 3))
        >>> sorted(measure.values())
        ['region', 'region_dead', 'region_log_paths', 'region_log_probability']

    """

    key = "region"

    paths: Tensor
    probability: Tensor
    count: Tensor
    dead: Tensor
    samples: list[Tensor]
    positions: list[Tensor]

    def __init__(self, form: NormForm = "log", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if form not in get_args(NormForm):
            raise ValueError(f"form: expected 'log' or 'linear', but got {form!r}")
        self.form = form
        for name in ("paths", "probability", "count", "dead"):
            self._sum_state(name)
        self.add_state("samples", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        start = int(self.count + self.dead)
        regions = activation_regions(model, inputs)
        alive = regions.log_paths.isfinite()
        self.paths += regions.log_paths[alive].sum().to(self.paths)
        self.probability += regions.log_probability[alive].sum().to(self.probability)
        self.count += alive.sum()
        self.dead += (~alive).sum()
        samples = regions.log_score.to(self.paths.device, self.dtype)  # the type of an empty process's state
        chosen = alive.to(samples.device)
        self.samples.append(samples[chosen])
        self.positions.append(positions_from(positions, start, samples)[chosen])

    def values(self) -> dict[str, Tensor]:
        """Returns the mean logarithm, its two parts, and the share of samples without an active path."""
        paths, probability = self.paths / self.count, self.probability / self.count
        return {
            "region": paths + probability,
            "region_log_paths": paths,
            "region_log_probability": probability,
            "region_dead": self.dead / (self.count + self.dead),
        }

    def distributions(self) -> dict[str, Tensor]:
        """Returns the logarithm of each sample that has one, shape (N,)."""
        return {"": dim_zero_cat(self.samples)} if len(self.samples) else {}

    def influence(self) -> Influence | None:
        """Returns each sample's effect on the logarithm of the factor."""
        samples = dim_zero_cat(self.samples).double() if len(self.samples) else torch.zeros(0)
        if not len(samples):
            return None
        mean = samples.mean()
        effects = samples / mean - 1 if self.form == "log" else samples - mean
        return Influence(effects, dim_zero_cat(self.positions))

    def standard_error(self) -> float | None:
        """Returns the standard error of the mean logarithm."""
        influence = self.influence()
        if influence is None:
            return None
        scale = abs(float(self.values()[self.key])) if self.form == "log" else 1.0
        return relative_standard_error([influence]) * scale

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of R(target)/R(reference), or R(target) − R(reference) for "linear"."""
        now, before = target[self.key], reference[self.key]
        if not (math.isfinite(now) and math.isfinite(before)):
            raise UndefinedEstimateError("on one of the sets no sample has an active path, so there is no mean logarithm")
        if self.form == "linear":
            return now - before
        if now * before <= 0:
            raise UndefinedEstimateError(
                f"the mean logarithms are {now:.3g} and {before:.3g}; their ratio is an estimate only if both have one "
                "sign; RegionSensitivity(form='linear') needs none"
            )
        return math.log(now / before)
