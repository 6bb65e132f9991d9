"""What ``plot`` of a measure draws: torchmetrics' plot of values, and what a measure with parts has instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_tansens.show.figures.canvas import check_matplotlib, figure_of, legend_beside
from lightning_tansens.show.figures.heat_map import draw_matrix
from lightning_tansens.show.figures.labels import Label
from lightning_tansens.show.figures.style import output_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_tansens.metrics.base import Measure


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


def plot_bars(values: Mapping[str, Tensor], label: Label, kind: str, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws a bar for each part, such as an output or a class.

    Args:
        values: The parts' values, scalars, by name.
        label: What the values are.
        kind: What the parts are.
        ax: A matplotlib axis to draw on; None for one of a new figure of pyplot.

    Returns:
        The figure and the axis.

    """
    axis = _axis(ax)
    places = range(len(values))
    axis.bar(places, [float(value) for value in values.values()], color=output_style(0).colour)
    step = -(-len(values) // 25)
    axis.set_xticks(places[::step], list(values)[::step])
    axis.set_xlabel(kind)
    axis.set_ylabel(str(label))
    axis.grid(axis="y", alpha=0.3)
    return figure_of(axis), axis


def plot_matrix(values: Mapping[str, Tensor], label: Label, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws values of pairs ``<class>/<output>`` as a heat map; a class without samples stays blank.

    Args:
        values: The pairs' values, scalars, by name; other names are passed over.
        label: What the values are.
        ax: A matplotlib axis to draw on; None for one of a new figure of pyplot.

    Returns:
        The figure and the axis; the colour bar is an axis of its own in the figure.

    """
    pairs = {tuple(name.split("/")): float(value) for name, value in values.items() if "/" in name}
    pairs = {(k, c): value for (k, c), value in pairs.items() if k != "all"}
    classes, outputs = (sorted({pair[i] for pair in pairs}, key=int) for i in (0, 1))
    matrix = np.array([[pairs.get((k, c), np.nan) for c in outputs] for k in classes])
    axis = _axis(ax)
    draw_matrix(axis, matrix, classes, outputs, str(label))
    return figure_of(axis), axis


def synced_parts(measure: Measure) -> dict[str, Tensor]:
    """Returns ``part_values`` of a measure over the samples of all processes, as ``compute`` does for its value."""
    with measure.sync_context(dist_sync_fn=measure.dist_sync_fn):
        return measure.part_values()


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
