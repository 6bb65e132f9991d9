"""Estimates of a test set's loss or accuracy against the truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from lightning_tansens.checks import check_choice
from lightning_tansens.show.figures.canvas import (
    legend_beside,
    one_axis,
    robust_limits,
    say_outside,
    set_epochs,
    some_points,
)
from lightning_tansens.show.figures.labels import estimate_label
from lightning_tansens.show.figures.rows import (
    History,
    Series,
    check_history,
    check_target,
    column,
    estimates_of,
    targets_of,
    truth_of,
)
from lightning_tansens.show.figures.style import estimate_style
from lightning_tansens.show.keys import ACTUAL, TRIVIAL, Keys, Quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_estimates(
    history: History, target: str = "test", quantity: Quantity = "loss", keys: Keys | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the estimates of a test set's loss or accuracy over the epochs, with the truth where it was logged.

    The bands are one standard error on either side, where it was logged. The trivial estimate, dashed, is what another
    should beat (Figure 3 of Daróczy 2022, over time). A few estimates far from all others, such as those of the norms after
    the first epoch, lie outside of the axis, which says how many.

    Args:
        history: A monitor's ``history``: one row of logged values a measurement.
        target: The name of the test set.
        quantity: "loss", in units of the criterion, or "accuracy".
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If nothing of the kind was logged.

    Example:
        >>> row = {"tansens/test_loss/trivial": 1.0, "tansens/test_loss/empirical": 1.25}
        >>> figure, ax = plot_estimates([{"epoch": epoch, **row} for epoch in range(3)])
        >>> [line.get_label() for line in ax.lines]
        ["trivial: the reference's own", 'empirical']

    """
    keys = keys or Keys()
    names = _checked_estimates(history, [target], quantity, keys)
    figure, ax = one_axis(ax, 8)
    epochs = column(history, "epoch")
    values = {name: column(history, keys.estimate(target, quantity, name)) for name in [*names, ACTUAL]}
    known = {name: series for name, series in values.items() if not np.isnan(series).all()}
    for number, (name, series) in enumerate(known.items()):
        style = estimate_style(name)
        look = style.of_line()
        if len(series) == 1:  # a line of one point is nothing without a marker
            look["marker"] = style.marker or "o"
        order = {ACTUAL: 4, TRIVIAL: 3}.get(name, 2)
        every = some_points(len(series), number)
        ax.plot(epochs, series, label=estimate_label(name), zorder=order, markevery=every, **look)
        errors = column(history, keys.stderr(keys.estimate(target, quantity, name)))
        if not np.isnan(errors).all():
            ax.fill_between(epochs, series - errors, series + errors, color=style.colour, alpha=0.15, linewidth=0)
    always = np.concatenate([values[ACTUAL], values.get(TRIVIAL, values[ACTUAL])])
    low, high, outside = robust_limits(always, _all_of(values[name] for name in names))
    ax.set_ylim(low, high)
    say_outside(ax, outside)
    set_epochs(ax)
    ax.set_ylabel(_axis_label(quantity, target))
    legend_beside(ax)
    return figure, ax


def plot_scatter_estimates(
    history: History,
    target: str | Sequence[str] | None = None,
    quantity: Quantity = "loss",
    keys: Keys | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draws each estimate against the truth, one marker an estimator; on the diagonal an estimate is right.

    Args:
        history: Rows of logged values with true losses, of one run or of several, in any order.
        target: The name of a test set, or several; None for all whose truth was logged.
        quantity: "loss", in units of the criterion, or "accuracy".
        keys: How the values are named; None for ``tansens/…``.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the history is no list of rows.
        ValueError: If nothing of the kind was logged.

    Example:
        >>> row = {"tansens/test_loss/trivial": 1.0, "tansens/test_loss/empirical": 1.25, "tansens/test_loss/actual": 1.5}
        >>> figure, ax = plot_scatter_estimates([{"epoch": 0, **row}])
        >>> ax.lines[1].get_label(), ax.lines[1].get_xydata().tolist()
        ('empirical', [[1.5, 1.25]])

    """
    keys = keys or Keys()
    check_history(history)
    if target is None:
        known = targets_of(history, keys)
        targets = [name for name in known if not np.isnan(column(history, keys.estimate(name, quantity, ACTUAL))).all()]
        targets = targets or known  # of which the truth is missed below
    else:
        targets = [target] if isinstance(target, str) else list(target)
    names = _checked_estimates(history, targets, quantity, keys)
    truth = _all_of(truth_of(history, one, quantity, keys) for one in targets)
    figure, ax = one_axis(ax, 7.2, 4.8)
    of_all = {name: _all_of(column(history, keys.estimate(one, quantity, name)) for one in targets) for name in names}
    for name, estimates in of_all.items():
        style = estimate_style(name).of_points()
        # the trivial one lies below the others and has a marker here
        extra = {"marker": "x", "zorder": 1.5} if name == TRIVIAL else {}
        ax.plot(truth, estimates, label=estimate_label(name), **{**style, **extra})
    known_truth = np.isfinite(truth)
    shown = [estimates[known_truth] for estimates in of_all.values()]
    left, right, _ = robust_limits(truth, truth)
    low, high, outside = robust_limits(truth, _all_of(shown))
    ends = [min(left, low), max(right, high)]
    ax.plot(ends, ends, color="black", linewidth=1, zorder=1, label="estimate = truth")
    ax.set(xlim=(left, right), ylim=(low, high))
    say_outside(ax, outside)
    sets = ", ".join(targets) if len(targets) <= 3 else f"{len(targets)} sets"
    ax.set_xlabel("true " + _axis_label(quantity, sets))
    ax.set_ylabel("estimated " + _axis_label(quantity, sets))
    ax.grid(alpha=0.3)
    legend_beside(ax)
    return figure, ax


def _checked_estimates(history: History, targets: Sequence[str], quantity: Quantity, keys: Keys) -> list[str]:
    """The names of the estimates of any of the test sets."""
    check_history(history)
    check_choice("quantity", quantity, get_args(Quantity))
    if not targets:
        raise ValueError(
            f"target: expected a test set, but none was logged under {keys.prefix!r}; pass keys with its prefix"
        )
    for target in targets:
        check_target(history, target, keys)
    names = list(dict.fromkeys(name for target in targets for name in estimates_of(history, target, quantity, keys)))
    if not names:
        raise ValueError(
            f"quantity: expected estimates of the {quantity} of {list(targets)}, but none was logged; an accuracy is "
            "logged for classifiers only"
        )
    return names


def _all_of(series: Iterable[Series]) -> Series:
    return np.concatenate(list(series))


def _axis_label(quantity: Quantity, target: str) -> str:
    return f"{quantity} on {target} [{'units of the criterion' if quantity == 'loss' else 'share of samples'}]"
