"""How near the hidden units come to switching on or off over a set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.bounds.regions import neuron_margins
from lightning_tansens.metrics.base import Measure
from lightning_tansens.tangent.network import batch_length


class NeuronMargins(Measure):
    r"""The margins of the hidden units over a set: their mean and the smallest one.

    .. math:: \rho_l = \min_{x \in X} |h_l(x)|, \qquad \hat\rho_l = \min_{x \in X} |\mathrm{sigmoid}(h_l(x)) - \tfrac12|

    (the margins of Daróczy 2022), over the units l of all activations. ``neuron_margins`` is the mean of ρ_l over the units
    and ``neuron_margins_min`` the smallest one: no preactivation of any sample is nearer to zero. The other two values are
    the same of ρ̂_l, which is between 0 and ½. Minima fall as the set grows, so compare sets of one size. It describes a set
    and gives no estimate.

    As input to ``update``: a model and a batch of shape (N, ...), all batches of samples of one shape. As output of
    ``compute``: the mean of ρ_l, a scalar in units of a preactivation.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-3.0]]))
        >>> measure = NeuronMargins()
        >>> measure.update(net, torch.tensor([[3.0], [-2.0]]))
        >>> {name: f"{float(value):.2f}" for name, value in list(measure.values().items())[:2]}  # of 2 and 6
        {'neuron_margins': '4.00', 'neuron_margins_min': '2.00'}

    """

    key = "neuron_margins"

    margins: Tensor
    probability_margins: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("count")
        self._learn_units(())  # their number is learnt from the network

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the number of units."""
        self._learn_units(neuron_margins(model, inputs).preactivation.shape)

    def update(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...); their positions do not matter.

        Raises:
            ValueError: If the network has another number of hidden units on this batch than before.

        """
        found = neuron_margins(model, inputs)
        if found.preactivation.shape != self.margins.shape:
            if self.count:
                raise ValueError(
                    f"inputs: expected samples of one shape, on which the network has {len(self.margins)} hidden units as "
                    f"before, but it has {len(found.preactivation)}; resize the samples, or leave NeuronMargins out"
                )
            self._learn_units(found.preactivation.shape)
        self.margins = torch.minimum(self.margins, found.preactivation.to(self.margins))
        self.probability_margins = torch.minimum(self.probability_margins, found.probability.to(self.probability_margins))
        self.count += batch_length(inputs)

    def _learn_units(self, shape: tuple[int, ...]) -> None:
        device = self.count.device
        for name in ("margins", "probability_margins"):
            self.add_state(name, torch.full(shape, math.inf, dtype=torch.float64), dist_reduce_fx="min")
            setattr(self, name, getattr(self, name).to(device))

    def values(self) -> dict[str, Tensor]:
        """Returns the mean and the minimum over the units of ρ_l, and of ρ̂_l; nan without samples."""
        values: dict[str, Tensor] = {}
        for name, margins in {self.key: self.margins, f"{self.key}_probability": self.probability_margins}.items():
            known = margins if self.count else torch.full((1,), math.nan, dtype=torch.float64)
            values |= {name: known.mean(), f"{name}_min": known.min()}
        return values
