"""torchmetrics' plot of values with a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_tansens.show.figures.canvas import check_matplotlib, figure_of, legend_beside
from lightning_tansens.show.figures.labels import Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_values(measure: Metric, value: Any, label: Label, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws a value as a point, a sequence of values as a curve, and values by name with a legend, as torchmetrics does.

    Args:
        measure: The measure.
        value: A number or a scalar tensor, a dict of them by name, or a sequence of either; None computes it now.
        label: What the value is.
        ax: A matplotlib axis to draw on; None for one of a new figure of pyplot, which is torchmetrics' convention.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If ``value`` is none of these.
        ValueError: If it is empty.

    """
    value = measure.compute() if value is None else value
    several = isinstance(value, Sequence) and not isinstance(value, str)
    values = [_tensors(one) for one in value] if several else _tensors(value)
    if several and not values:
        raise ValueError("val: expected at least one value, but got an empty sequence; pass what compute() returned")
    axis = _axis(ax)
    measure._plot(values, axis)
    axis.set_ylabel(str(label))
    if several:
        from matplotlib.ticker import MaxNLocator

        axis.set_xlabel("measurement")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if isinstance(value, Mapping) or (several and isinstance(value[0], Mapping)):
        legend_beside(axis)  # torchmetrics puts it over the axis, where many names would cover the title
    return figure_of(axis), axis


def _axis(ax: Axes | None) -> Axes:
    check_matplotlib()
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def _tensors(value: Any) -> Any:
    """A tensor, or a dict of tensors, of double precision; NumPy's arrays and numbers are taken as well."""
    if isinstance(value, Mapping):
        return {name: _tensors(one) for name, one in value.items()}
    if not isinstance(value, (Tensor, float, int, np.ndarray, np.number)):
        raise TypeError(
            f"val: expected what compute() returned, a dict by name or a sequence of them, but got {type(value).__name__}"
        )
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")
