"""The curves of Rácz et al. (2023): losses, the gap with the sensitivity scaled to it, outputs and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_tansens.show.figures.canvas import legend_beside, one_axis, set_epochs, some_points
from lightning_tansens.show.figures.heat_map import draw_matrix
from lightning_tansens.show.figures.labels import value_label
from lightning_tansens.show.figures.rows import (
    History,
    Series,
    check_history,
    check_target,
    column,
    correlated,
    gap_of,
    known_column,
    parts_of,
    reference_of,
    truth_of,
)
from lightning_tansens.show.figures.sensitivities import measured_on
from lightning_tansens.show.figures.style import estimate_style, output_style, set_style
from lightning_tansens.show.keys import ACTUAL, Keys

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_losses(
    history: History, target: str = "test", keys: Keys | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the reference's loss and a test set's true loss over the epochs.

    Args:
        history: A monitor's ``history`` with true losses: one row of logged values a measurement.
        target: The name of the test set.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If a loss was not logged.

    Example:
        >>> losses = {"tansens/train_loss": 1.0, "tansens/test_loss/trivial": 1.0, "tansens/test_loss/actual": 1.5}
        >>> figure, ax = plot_losses([{"epoch": epoch, **losses} for epoch in range(3)])
        >>> [line.get_label() for line in ax.lines]
        ['train', 'test']

    """
    keys = keys or Keys()
    check_history(history)
    check_target(history, target, keys)
    reference = reference_of(history, keys)
    losses = {
        reference: column(history, keys.labelled(reference, "loss")),
        target: truth_of(history, target, "loss", keys),
    }
    figure, ax = one_axis(ax)
    for number, (name, values) in enumerate(losses.items()):
        every = some_points(len(values), number)
        ax.plot(column(history, "epoch"), values, label=name, markevery=every, **set_style(name).of_line())
    set_epochs(ax)
    ax.set_ylabel("loss [units of the criterion]")
    ax.legend(fontsize="small")
    return figure, ax


def plot_gap(
    history: History, measure: str = "empirical", target: str = "test", keys: Keys | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""Draws the generalisation gap over the epochs, and a measure on the test set scaled to the gap's range.

    .. math:: \mathrm{gap}_t = |l(X_{te}; \theta_t) - l(X_{ref}; \theta_t)|

    (the figures of Rácz et al. 2023). The legend has Pearson's coefficient, which the scaling does not change.

    Args:
        history: A monitor's ``history`` with true losses: one row of logged values a measurement.
        measure: The name of a measure or of another logged value, on the set or of the weights alone.
        target: The name of the test set.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If the measure or the true loss was not logged.

    Example:
        >>> losses = {"tansens/train_loss": 1.0, "tansens/test_loss/trivial": 1.0}
        >>> actual, measured = "tansens/test_loss/actual", "tansens/empirical/test"
        >>> figure, ax = plot_gap([{"epoch": t, **losses, actual: 1 + t, measured: 3.0 * t} for t in range(4)])
        >>> [line.get_ydata().tolist() for line in ax.lines]
        [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]]

    """
    keys = keys or Keys()
    check_history(history)
    gap, values = gap_of(history, target, keys), measured_on(history, measure, target, keys)
    both = np.isfinite(gap) & np.isfinite(values)
    if not both.any():
        raise ValueError(
            f"measure: expected a row with both the true loss of {target!r} and {measure!r}, but got none; measure both at "
            "the same epochs"
        )
    low, high = values[both].min(), values[both].max()
    span = high - low or 1.0
    scaled = gap[both].min() + (values - low) / span * np.ptp(gap[both])
    figure, ax = one_axis(ax)
    epochs, every = column(history, "epoch"), some_points(len(gap))
    ax.plot(epochs, gap, label=f"gap |true − reference loss| on {target}", **estimate_style(ACTUAL).of_line())
    style = estimate_style(measure).of_line()
    label = f"{value_label(measure).name}, scaled to it ({_pearson(gap, values)})"
    ax.plot(epochs, scaled, label=label, markevery=every, **style)
    set_epochs(ax)
    ax.set_ylabel("gap [units of the criterion]")
    ax.legend(fontsize="small")
    return figure, ax


def plot_outputs(
    history: History,
    target: str = "test",
    measure: str = "output_sensitivity",
    keys: Keys | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    r"""Draws the sensitivity of each output on a test set over the epochs, with its correlation with the gap.

    .. math:: \hat S_c(X) = \frac1N \sum_n \|S_{e_c}(x_n)\|_F

    (Section 5 of Rácz et al. 2023). The legend has Pearson's coefficients where true losses were logged.

    Args:
        history: A monitor's ``history``: one row of logged values a measurement.
        target: The name of the set.
        measure: "output_sensitivity" or "class_sensitivity", of which the outputs over all samples are drawn.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If the outputs were not logged.

    Example:
        >>> key = "tansens/output_sensitivity/test"
        >>> figure, ax = plot_outputs([{"epoch": t, f"{key}/0": 1.0, f"{key}/1": 2.0 * t} for t in range(3)])
        >>> [line.get_label() for line in ax.lines]
        ['0', '1']

    """
    keys = keys or Keys()
    check_history(history)
    key = keys.value(measure, target)
    parts = {part.removeprefix("all/"): f"{key}/{part}" for part in parts_of(history, key) if part.startswith("all/")}
    parts = parts or {part: f"{key}/{part}" for part in parts_of(history, key)}
    if not parts:
        raise ValueError(
            f"history: expected the outputs of {key!r} as {key + '/<output>'!r}, but got none; use OutputSensitivity or "
            "ClassSensitivity in the monitor"
        )
    labelled = not np.isnan(column(history, keys.estimate(target, "loss", ACTUAL))).all()
    gap = gap_of(history, target, keys) if labelled else None
    figure, ax = one_axis(ax, 7.6)
    for number, (name, part) in enumerate(parts.items()):
        values = column(history, part)
        label = name if gap is None else f"{name} ({_pearson(gap, values)})"
        style = {**output_style(number).of_line(), "marker": "o" if len(values) == 1 else ""}
        ax.plot(column(history, "epoch"), values, label=label, **style)
    set_epochs(ax)
    ax.set_ylabel(f"{value_label(measure)} on {target}")
    title = "output" if gap is None else "output (r with the gap)"
    columns = 1 + (len(parts) - 1) // 20
    legend_beside(ax, title, columns=columns)
    return figure, ax


def plot_class_correlations(
    history: History, target: str = "test", keys: Keys | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""Draws Pearson's coefficient of each class's gap with the sensitivity of each output on that class, as a matrix.

    .. math:: r\big(|l_k(X_{te}) - l_k(X_{ref})|, \hat S_{k,c}(X_{te})\big)

    with the class k, a row, and the output c, a column (Section 5 of Rácz et al. 2023 reports matching pairs). A coefficient
    that is not defined is left blank.

    Args:
        history: The ``history`` of a monitor with ``ClassSensitivity(matrix=True)`` and ``by_class=True``.
        target: The name of the test set.
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis; the colour bar is an axis of its own in the figure.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If the pairs of classes and outputs or the losses of the classes were not logged.

    Example:
        >>> losses = {"tansens/train_loss": 1.0, "tansens/class_loss/train/0": 1.0}
        >>> pair, loss = "tansens/class_sensitivity/test/0/0", "tansens/class_loss/test/0"
        >>> figure, ax = plot_class_correlations([{"epoch": t, **losses, pair: 2.0 * t, loss: 1.0 + t} for t in range(3)])
        >>> round(float(ax.images[0].get_array()[0, 0]), 6)
        1.0

    """
    keys = keys or Keys()
    check_history(history)
    reference = reference_of(history, keys)
    key = keys.value("class_sensitivity", target)
    pairs = [part.split("/") for part in parts_of(history, key) if "/" in part and not part.startswith("all/")]
    if not pairs:
        raise ValueError(
            f"history: expected {key + '/<class>/<output>'!r}, but got none; use ClassSensitivity(matrix=True) in the "
            "monitor, and compare_with_labels=True"
        )
    classes, outputs = (sorted({pair[i] for pair in pairs}, key=int) for i in (0, 1))
    matrix = np.full((len(classes), len(outputs)), np.nan)
    for row, k in enumerate(classes):
        losses = [known_column(history, keys.value("class_loss", name, k), "by_class") for name in (target, reference)]
        for place, c in enumerate(outputs):
            values = column(history, f"{key}/{k}/{c}")
            matrix[row, place] = correlated(np.abs(losses[0] - losses[1]), values).get("pearson", np.nan)
    figure, ax = one_axis(ax, 5.8, 5)
    draw_matrix(ax, matrix, classes, outputs, "r of the class's gap and the sensitivity", limits=(-1, 1))
    return figure, ax


def _pearson(first: Series, second: Series) -> str:
    found = correlated(first, second).get("pearson")
    return "r undefined" if found is None else f"r = {found:.2f}"
