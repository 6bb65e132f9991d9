"""The figures of a measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_tansens.monitor.report import Report
from lightning_tansens.monitor.sets import MeasuredSet
from lightning_tansens.show.figures import (
    plot_estimates,
    plot_extreme_samples,
    plot_histograms_over_epochs,
    plot_layer_shares,
    plot_sensitivity_gap,
)
from lightning_tansens.show.keys import Keys, Quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, float]]

#: The measure whose samples, layers and course are drawn.
SHOWN = "empirical"


def draw_figures(
    report: Report,
    history: History,
    sets: Sequence[MeasuredSet],
    active_nodes: Mapping[int, Mapping[str, Tensor]],
    num_images: int,
    keys: Keys,
) -> Iterator[tuple[str, Figure]]:
    """Draws what there is to draw of a run so far, one figure after another.

    Args:
        report: The last measurement.
        history: The rows of all measurements.
        sets: What was measured.
        active_nodes: For some epochs, the number of active nodes of each sample of each set.
        num_images: How many of the least and of the most sensitive images are drawn.
        keys: How the values are named.

    Yields:
        A tag and a figure.

    """
    row = history[-1]
    for target in keys.targets(row):
        quantities: tuple[Quantity, ...] = ("loss", "accuracy")
        for quantity in quantities:
            if keys.estimates(row, target, quantity):
                yield keys.value("figures", f"{target}_{quantity}"), plot_estimates(history, target, quantity, keys)[0]
        measured = keys.value(SHOWN, target) in row
        if measured and keys.actual(row, target, "loss") is not None:
            yield keys.value("figures", f"{target}_gap"), plot_sensitivity_gap(history, SHOWN, target, keys)[0]
        if any(key.startswith(keys.value(SHOWN, target) + "/") for key in row):
            yield keys.value("figures", f"{target}_layers"), plot_layer_shares(history, target, SHOWN, keys)[0]
    if active_nodes:
        yield keys.value("figures", "active_nodes"), plot_histograms_over_epochs(active_nodes)[0]
    for measured_set in sets[1:] if num_images else ():
        found = _extremes(report, measured_set, num_images)
        if found is not None:
            images, squares, positions = found
            numbers = [measured_set.subset.indices[position] for position in positions]
            figure, _ = plot_extreme_samples(images, squares, k=num_images, numbers=numbers)
            yield keys.value("figures", f"{measured_set.name}_samples"), figure


def _extremes(report: Report, measured: MeasuredSet, count: int) -> tuple[Tensor, Tensor, list[int]] | None:
    """The least and the most sensitive samples of a set, their ‖S‖_F² and numbers, where the samples are images."""
    influence = report.influences.get(measured.name, {}).get(SHOWN)
    if influence is None or len(influence.values) < 2:
        return None
    squares = (influence.values.double().cpu() + 1) * report.scalars[report.keys.value(SHOWN, measured.name)]
    order = squares.argsort()
    count = min(count, len(order) // 2)
    chosen = torch.cat([order[:count], order[-count:]])
    positions = influence.positions.cpu()[chosen].long().tolist()
    images = measured.samples(positions)
    return (images, squares[chosen], positions) if _are_images(images) else None


def _are_images(inputs: Any) -> bool:
    """Whether these are images of one or three channels, with finite pixels; sequences of vectors are none."""
    shaped = isinstance(inputs, Tensor) and inputs.dim() == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 1
    return shaped and inputs.is_floating_point() and bool(inputs.isfinite().all())
