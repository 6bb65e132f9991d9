"""What every measure of a network has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tansens.checks import checked_positions
from lightning_tansens.metrics.uncertainty import Influence


class Measure(Metric, ABC):
    """A torchmetrics Metric of one network on one set of inputs.

    To add a measure, subclass this (or :class:`SensitivityMeasure`, if it gives an estimate of the loss, or
    :class:`LabelledMeasure`, if it needs labels) in a file of its own: add states that are sums and counts in
    ``__init__``, fill them in ``update(model, inputs, positions)`` and turn them into named numbers in :meth:`values`. The
    monitor logs and syncs any such object. In ``update``, ``positions`` are the samples' positions in their set, which
    name random probes and pair samples; None continues where the last batch ended.

    Attributes:
        key: The name under which the measure is logged, e.g. ``empirical`` in ``tansens/empirical/test``.
        needs_data: False for a measure of the weights alone; its ``update`` takes the model alone.
        remembers: True for a measure that compares with its own earlier values; it is also taken before the first step.

    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    key: ClassVar[str]
    needs_data: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Adds the states whose shape depends on the network; every rank calls it before the first update.

        Args:
            model: The network.
            inputs: A batch of at least one sample; its values do not matter.

        """

    @abstractmethod
    def values(self) -> dict[str, Tensor]:
        """Returns the scalars to log, by name; one of them is named :attr:`key`. Needs synced states."""

    def part_values(self) -> dict[str, Tensor]:
        """Returns what is logged by part, such as a layer, an output or a class; nothing by default. Needs synced states."""
        return {}

    def distributions(self) -> dict[str, Tensor]:
        """Returns numbers for histograms, one a sample, shapes (N,), by part; the whole is "". Needs synced states."""
        return {}

    def note(self) -> str | None:
        """Returns what a user should know about how the network is measured, once :meth:`prepare` has seen it."""
        return None

    def standard_error(self) -> float | None:
        """Returns the standard error of :meth:`compute`, if the measure knows. Needs synced states."""
        return None

    def remember(self) -> None:
        """Keeps what the next measurement is compared with; called once a measurement, with synced states."""

    def memory(self) -> dict[str, Tensor]:
        """Returns what was kept, for a checkpoint."""
        return {}

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Takes what :meth:`memory` returned, from a checkpoint."""

    def compute(self) -> Tensor:
        """Returns the measure itself, a scalar; under DDP over the samples of all processes."""
        return self.values()[self.key]

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a value as a point or a sequence of values as a curve, in torchmetrics' convention.

        Args:
            val: What ``compute`` returned, or a list of it; what ``values`` or ``part_values`` returned, or a list of it;
                None takes the value now.
            ax: A matplotlib axis to draw on; None for one of a new figure.

        Returns:
            The figure and the axis.

        Raises:
            TypeError: If ``val`` is none of these.
            ValueError: If it is an empty sequence.

        """
        from lightning_tansens.show.figures.labels import value_label  # matplotlib is optional
        from lightning_tansens.show.figures.measures import plot_values

        return plot_values(self, val, value_label(self.key), ax)

    def _sum_state(self, name: str, *shape: int) -> None:
        """Adds a state that sums up in double precision."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")


class SensitivityMeasure(Measure):
    """A measure whose ratio on two sets (or at two moments in time) scales the loss: an estimate is built on it."""

    @abstractmethod
    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds a batch.

        Args:
            model: The network.
            inputs: The batch; None where the measure needs no data.
            positions: The samples' positions in their set; None continues where the last batch ended.

        """

    def influence(self) -> Influence | None:
        """Returns how far each sample moves the factor's logarithm, if the measure knows. Needs synced states."""
        return None

    @abstractmethod
    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of the factor by which the reference's loss is scaled.

        Args:
            target: :meth:`values` on the target set (now, for a measure that needs no data).
            reference: :meth:`values` on the reference set (at the previous measurement).

        Raises:
            UndefinedEstimateError: If these values define no factor; the message says why.

        """


class LabelledMeasure(Measure):
    """A measure that describes a set by its labels; it is taken where labels may be used, and no estimate sees it."""

    @abstractmethod
    def update(self, model: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds a labelled batch.

        Args:
            model: The network.
            inputs: The batch.
            targets: Its labels.
            positions: The samples' positions in their set; None continues where the last batch ended.

        """


def positions_from(positions: Sequence[int] | None, start: int, like: Tensor) -> Tensor:
    """Returns the samples' positions as a state; without positions they continue from ``start``."""
    own = range(start, start + len(like)) if positions is None else checked_positions("positions", positions, len(like))
    return torch.tensor(list(own), dtype=like.dtype, device=like.device)
