"""What a measure says of the sets over a training: beside one another, against the gap, and by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_tansens.show.figures.canvas import legend_beside, one_axis, ordered_colours, set_epochs, some_points
from lightning_tansens.show.figures.labels import part_label, value_label
from lightning_tansens.show.figures.rows import (
    History,
    Series,
    check_history,
    column,
    correlated,
    gap_of,
    known_column,
    parts_of,
    reference_of,
    targets_of,
)
from lightning_tansens.show.figures.style import ORDERED, estimate_style, set_style
from lightning_tansens.show.keys import Keys

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More layers than this are no longer told apart; the smallest are drawn as one.
MAX_LAYERS = 12


def plot_sensitivities(
    history: History, measure: str = "empirical", keys: Keys | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws a measure on the reference, dashed, and on each test set over the epochs.

    The axis is logarithmic unless the measure is a logarithm itself or not positive. The bands are one standard error on
    either side, where it was logged.

    Args:
        history: A monitor's ``history``: one row of logged values a measurement.
        measure: The name of a measure or of another value that is logged for sets, such as ``empirical_norm``, or of a
            measure of the weights alone.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If the measure was not logged.

    Example:
        >>> values = {"tansens/train_loss": 1.0, "tansens/empirical/train": 2.0, "tansens/empirical/test": 3.0}
        >>> row = {"tansens/test_loss/trivial": 1.0, **values}
        >>> figure, ax = plot_sensitivities([{"epoch": epoch, **row} for epoch in range(3)])
        >>> [line.get_label() for line in ax.lines], ax.get_yscale()
        (['train', 'test'], 'log')

    """
    keys = keys or Keys()
    check_history(history)
    names = {name: keys.value(measure, name) for name in [reference_of(history, keys), *targets_of(history, keys)]}
    found = {name: key for name, key in names.items() if not np.isnan(column(history, key)).all()}
    of_weights = not found
    if of_weights:
        found = {"weights": keys.value(measure)}
        known_column(history, keys.value(measure), "measure")
    figure, ax = one_axis(ax)
    epochs = column(history, "epoch")
    positive = True
    for number, (name, key) in enumerate(found.items()):
        values, errors = column(history, key), column(history, keys.stderr(key))
        style = estimate_style(measure) if of_weights else set_style(name)
        positive &= bool((values[np.isfinite(values)] > 0).all())
        ax.plot(epochs, values, label=name, markevery=some_points(len(values), number), **style.of_line())
        if not np.isnan(errors).all():
            ax.fill_between(epochs, values - errors, values + errors, color=style.colour, alpha=0.2, linewidth=0)
    label = value_label(measure)
    if positive and not label.logarithm:
        _set_logarithmic(ax)
    set_epochs(ax)
    ax.set_ylabel(str(label))
    if not of_weights:
        ax.legend(fontsize="small")
    return figure, ax


def plot_sensitivity_gap(
    history: History,
    measure: str = "empirical",
    target: str = "test",
    keys: Keys | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    r"""Draws a measure on a test set against the generalisation gap, one point a measurement, coloured by its epoch.

    .. math:: \mathrm{gap}_t = |l(X_{te}; \theta_t) - l(X_{ref}; \theta_t)|

    (Section 5 of Rácz et al. 2023). The title has Pearson's and Spearman's coefficients.

    Args:
        history: A monitor's ``history`` with true losses: one row of logged values a measurement.
        measure: The name of a measure or of another logged value, on the set or of the weights alone.
        target: The name of the test set.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis; the colour bar is an axis of its own in the figure.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If the measure or the true loss was not logged.

    Example:
        >>> losses = {"tansens/train_loss": 1.0, "tansens/test_loss/trivial": 1.0}
        >>> actual, measured = "tansens/test_loss/actual", "tansens/empirical/test"
        >>> rows = [{"epoch": t, **losses, actual: 1 + t, measured: 3.0 * t} for t in range(4)]
        >>> figure, ax = plot_sensitivity_gap(rows)
        >>> ax.get_title()
        'Pearson 1.00, Spearman 1.00'

    """
    keys = keys or Keys()
    check_history(history)
    gaps = gap_of(history, target, keys)
    values = measured_on(history, measure, target, keys)
    figure, ax = one_axis(ax)
    points = ax.scatter(values, gaps, c=column(history, "epoch"), cmap=ORDERED, s=30, edgecolors="black", linewidths=0.4)
    figure.colorbar(points, ax=ax, label="epoch")
    found = correlated(values, gaps)
    ax.set_title(", ".join(f"{name.title()} {value:.2f}" for name, value in found.items()) or "correlations undefined")
    ax.set_xlabel(f"{value_label(measure)}")
    ax.set_ylabel(f"gap |true − reference loss| on {target}")
    ax.grid(alpha=0.3)
    return figure, ax


def plot_layer_shares(
    history: History, set_name: str = "test", measure: str = "empirical", keys: Keys | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""Draws the share of each layer in a measure on a set over the epochs, as areas that add up to one.

    .. math:: \|\delta_i\|^2 \|J_{i-1}\|_F^2 \Big/ \sum_j \|\delta_j\|^2 \|J_{j-1}\|_F^2

    for the mean over the set of the empirical sensitivity, whose layers ``EmpiricalSensitivity(per_layer=True)`` logs. The
    first layer is at the bottom. Of more than twelve layers the smallest are drawn as one.

    Args:
        history: A monitor's ``history``: one row of logged values a measurement.
        set_name: The name of the reference or of a test set.
        measure: A measure whose layers were logged.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If the layers were not logged.

    Example:
        >>> rows = [{"epoch": t, "tansens/empirical/test/0": 1.0, "tansens/empirical/test/2": 3.0} for t in range(3)]
        >>> figure, ax = plot_layer_shares(rows)
        >>> [area.get_label() for area in ax.collections]
        ['0', '2']

    """
    keys = keys or Keys()
    check_history(history)
    key = keys.value(measure, set_name)
    layers = parts_of(history, key)
    if not layers:
        raise ValueError(
            f"history: expected the layers of {key!r} as {key + '/<layer>'!r}, but got none; use "
            "EmpiricalSensitivity(per_layer=True) in the monitor, and the name of a set it measures"
        )
    # a layer that is frozen in between has no share then
    values = np.nan_to_num(np.stack([column(history, f"{key}/{layer}") for layer in layers]))
    measured = values.sum(0) > 0
    epochs, values = column(history, "epoch")[measured], values[:, measured]
    shares, labels = _largest(values / values.sum(0), layers)
    figure, ax = one_axis(ax, 7.6)
    colours = ordered_colours(len(labels))
    if len(epochs) == 1:  # an area of one point would be nothing
        epochs, shares = epochs + np.array([-0.4, 0.4]), shares.repeat(2, 1)
    ax.stackplot(epochs, shares, labels=labels, colors=colours, edgecolor="white", linewidth=0.8)
    set_epochs(ax)
    ax.set(ylim=(0, 1), xlim=(epochs.min(), epochs.max()))
    ax.set_title(f"{part_label(measure).name} on {set_name}", fontsize="medium")
    ax.set_ylabel("share of each layer")
    legend_beside(ax, "layer", reverse=True)  # in the order of the areas
    return figure, ax


def measured_on(history: History, measure: str, target: str, keys: Keys) -> Series:
    """Returns a measure on a set, shape (T,), or that of the weights where it needs no data."""
    weights = column(history, keys.value(measure))
    return known_column(history, keys.value(measure, target), "measure") if np.isnan(weights).all() else weights


def _largest(shares: Series, layers: list[str]) -> tuple[Series, list[str]]:
    """The layers with the largest mean shares in their order, and one that stands for all others."""
    if len(layers) <= MAX_LAYERS:
        return shares, layers
    kept = np.sort(np.argsort(shares.mean(1))[::-1][: MAX_LAYERS - 1])
    others = shares.sum(0) - shares[kept].sum(0)
    return np.vstack([shares[kept], others]), [*(layers[i] for i in kept), f"{len(layers) - len(kept)} others"]


def _set_logarithmic(ax: Axes) -> None:
    from matplotlib.ticker import LogFormatter, LogLocator

    ax.set_yscale("log")
    # within a decade or two, numbers at 1, 2 and 5 rather than one power of ten
    low, high = ax.get_ylim()
    if high / low < 100:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        ax.yaxis.set_major_formatter(LogFormatter(minor_thresholds=(np.inf, np.inf)))
        ax.yaxis.set_minor_locator(LogLocator(subs=()))
