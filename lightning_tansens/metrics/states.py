"""States of metrics that sum up exactly and can be gathered from processes without a sample."""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def copied(metric: AnyMetric) -> AnyMetric:
    """Returns an independent copy with nothing accumulated."""
    copy = cast(AnyMetric, metric.clone())
    copy.reset()
    return copy


class StatefulMetric(Metric):
    """A torchmetrics Metric with two kinds of states: sums, and lists of tensors with one entry per sample.

    torchmetrics sends an empty list as an empty tensor of the metric's own type, which moving the metric resets to single
    precision, and gloo aborts where processes gather tensors of different types. So each list starts with an empty tensor
    of its type, also after a reset.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def _sum_state(self, name: str, *shape: int) -> None:
        """Adds a state that is summed over processes, in double precision, on the metric's device."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64, device=self.device), dist_reduce_fx="sum")

    def _sample_state(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        """Adds a list of tensors that are joined over batches and processes; positions and labels take int64."""
        self.add_state(name, [], dist_reduce_fx="cat")
        getattr(self, name).append(torch.zeros(0, dtype=dtype, device=self.device))

    def _append(self, name: str, values: Tensor) -> None:
        """Adds the samples of a batch to such a list, flat: a process without a sample knows no number of columns."""
        state = getattr(self, name)
        state.append(values.detach().to(state[0]).flatten())

    def _joined(self, name: str) -> Tensor:
        """Returns such a list as one tensor, flat."""
        return dim_zero_cat(getattr(self, name))

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots what ``compute``, ``values`` or ``part_values`` returned, or a list of it, as torchmetrics does.

        Args:
            val: The value, or a list of values for a curve; None takes the value now.
            ax: A matplotlib axis to draw on; None for one of a new figure.

        Returns:
            The figure, None where an axis is given, and the axis.
        """
        return self._plot(val, ax)

    def reset(self) -> None:
        """Forgets what was accumulated."""
        empty = {name: getattr(self, name)[0][:0] for name, default in self._defaults.items() if isinstance(default, list)}
        super().reset()
        for name, tensor in empty.items():
            getattr(self, name).append(tensor)

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Casts the floating-point states; integers, such as hashes, keep all of their bits."""
        integers = {
            name: state
            for name, state in self.metric_state.items()
            if isinstance(state, list) and not state[0].is_floating_point()
        }
        super().set_dtype(dst_type)
        for name, state in integers.items():
            setattr(self, name, state)
        return self
