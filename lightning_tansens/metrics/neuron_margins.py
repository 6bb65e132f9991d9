"""How near the hidden units come to switching on or off over a set."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.functional.regions import margins_and_finite
from lightning_tansens.metrics.base import Measure


class NeuronMargins(Measure):
    r"""The margins of the hidden units over a set: their mean and the smallest one.

    .. math:: \rho_l = \min_{x \in X} |h_l(x)|, \qquad \hat\rho_l = \min_{x \in X} |\mathrm{sigmoid}(h_l(x)) - \tfrac12|

    (the margins of Daróczy 2022), over the units l of all activations. ``neuron_margins`` is the mean of ρ_l over the units
    and ``neuron_margins_min`` the smallest one: no preactivation of any sample is nearer to zero. The other two values are
    the mean and the minimum of ρ̂_l, which is between 0 and ½. Minima fall as the set grows, so
    compare sets of one size; all samples must have one shape. It describes a set and gives no estimate.

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
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("count")
        self._learn_units(())  # their number is learnt from the network

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        self._learn_units(margins_and_finite(model, inputs)[0].shape)

    def update(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch; their positions do not matter.

        Raises:
            ValueError: If the network has another number of hidden units on this batch than before.
        """
        found, finite = margins_and_finite(model, inputs)
        if found.shape != self.margins.shape:
            if self.count:
                raise ValueError(
                    f"inputs: expected samples of one shape, on which the network has {len(self.margins)} hidden units as "
                    f"before, but it has {len(found)}; resize the samples, or leave NeuronMargins out"
                )
            self._learn_units(found.shape)
        self.margins = torch.minimum(self.margins, found.to(self.margins))
        self.count += finite.sum()
        self.unusable += (~finite).sum()

    def _learn_units(self, shape: tuple[int, ...]) -> None:
        default = torch.full(shape, math.inf, dtype=torch.float64, device=self.device)
        self.add_state("margins", default, dist_reduce_fx="min")

    def values(self) -> dict[str, Tensor]:
        """Returns the mean and the minimum over the units of ρ_l, and of ρ̂_l; nan without samples."""
        margins = self.margins if self.count else self.margins.new_full((1,), math.nan)
        # ρ̂_l = ½ tanh(ρ_l / 2), as the sigmoid is monotone
        named = {self.key: margins, f"{self.key}_probability": torch.tanh(margins / 2) / 2}
        return {name + end: value for name, of in named.items() for end, value in (("", of.mean()), ("_min", of.min()))}
