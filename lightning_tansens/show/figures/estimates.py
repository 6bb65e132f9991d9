"""Draws estimates of a target's loss or accuracy, and the truth."""

from collections.abc import Iterable, Sequence

import numpy as np

from lightning_tansens.checks import check_choice
from lightning_tansens.record import HEADLINE, TRIVIAL, Estimate, Quantity
from lightning_tansens.show.figures import canvas
from lightning_tansens.show.figures.canvas import Axes, Figure
from lightning_tansens.show.figures.labels import estimate_label
from lightning_tansens.show.figures.series import (
    Records,
    Series,
    check_records,
    check_target,
    epochs,
    estimates,
    on_set,
    series,
    targets_of,
    truth_of,
)
from lightning_tansens.show.figures.style import estimate_style
from lightning_tansens.show.keys import ACTUAL, QUANTITIES

#: So many lines have room for their names above the axis.
_NAMES_ABOVE = 9


def plot_estimates(
    records: Records, target: str = "test", quantity: Quantity = "loss", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the estimates of a target's loss or accuracy over the epochs, with the truth where labels were compared.

    The bands are the estimates' intervals, or one standard error on either side. The trivial estimate, dashed, is what
    another one should beat (Figure 3 of Daróczy 2022, over time). A few estimates far from all others, such as those of the
    norms after the first epoch, lie outside of the axis, which says how many.

    Args:
        records: The records of a monitor.
        target: The name of the target.
        quantity: "loss", in units of the criterion, or "accuracy".
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If they are no list of records.
        ValueError: If nothing of the kind was estimated.

    Example:
        >>> from lightning_tansens.record import Estimate, Record, SetRecord
        >>> loss = {"trivial": Estimate(1.0), "empirical": Estimate(1.25)}
        >>> test = SetRecord("test", estimates={"loss": loss})
        >>> figure, ax = plot_estimates([Record(t, t, SetRecord("val", loss=1.0), {"test": test}) for t in range(3)])
        >>> [line.get_label() for line in ax.lines]
        ["trivial: the reference's own", 'empirical']
    """
    found = _checked_estimates(records, [target], quantity)[target]
    truth = series(one.labelled(quantity) for one in on_set(records, target))
    values = {name: _values(of) for name, of in found.items()}
    known = {**values, **({} if np.isnan(truth).all() else {ACTUAL: truth})}
    above = ax is None and len(known) <= _NAMES_ABOVE  # an axis of the user's may have a title there
    figure, ax = canvas.one_axis(ax, *(canvas.CARD if above else (8, 4.4)))
    for number, (name, line) in enumerate(known.items()):
        style = estimate_style(name)
        look = style.of_line()
        if len(line) == 1:  # a line of one point is nothing without a marker
            look["marker"] = style.marker or "o"
        order = {ACTUAL: 4, HEADLINE: 3.5, TRIVIAL: 3}.get(name, 2)
        every = canvas.some_points(len(line), number)
        ax.plot(epochs(records), line, label=estimate_label(name), zorder=order, markevery=every, **look)
        low, high = _band(found.get(name, []))
        if not np.isnan(low).all():
            ax.fill_between(epochs(records), low, high, color=style.colour, alpha=0.15, linewidth=0)
    bottom, top, outside = canvas.robust_limits(
        np.concatenate([truth, values.get(TRIVIAL, truth)]), _all_of(values.values())
    )
    ax.set_ylim(bottom, top)
    canvas.say_outside(ax, outside)
    canvas.set_epochs(ax)
    ax.set_ylabel(_axis_label(quantity, target))
    if above:
        canvas.legend_above(ax, 3)
    else:
        canvas.legend_beside(ax)
    return figure, ax


def plot_scatter_estimates(
    records: Records, target: str | Sequence[str] | None = None, quantity: Quantity = "loss", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws each estimate against the truth, one marker an estimator; on the diagonal an estimate is right.

    Args:
        records: Records with true values, of one run or of several, in any order.
        target: The name of a target, or several; None for all whose truth is known.
        quantity: As in :func:`plot_estimates`, which returns and raises the same.
        ax: As there.

    Example:
        >>> from lightning_tansens.record import Estimate, Record, SetRecord
        >>> test = SetRecord("test", loss=1.5, estimates={"loss": {"trivial": Estimate(1.0), "empirical": Estimate(1.25)}})
        >>> figure, ax = plot_scatter_estimates([Record(0, 9, SetRecord("val", loss=1.0), {"test": test})])
        >>> ax.lines[1].get_label(), ax.lines[1].get_xydata().tolist()
        ('empirical', [[1.5, 1.25]])
    """
    check_records(records)
    if target is None:
        known = targets_of(records)
        targets = [name for name in known if any(one.labelled(quantity) is not None for one in on_set(records, name))]
        targets = targets or known  # of which the truth is missed below
    else:
        targets = [target] if isinstance(target, str) else list(target)
    found = _checked_estimates(records, targets, quantity)
    truth = _all_of(truth_of(records, one, quantity) for one in targets)
    figure, ax = canvas.one_axis(ax, 7.2, 4.8)
    nothing = [None] * len(records)
    names = dict.fromkeys(name for of in found.values() for name in of)
    of_all = {name: _all_of(_values(of.get(name, nothing)) for of in found.values()) for name in names}
    for name, line in of_all.items():
        # the trivial one lies below the others and has a marker here
        extra = {"marker": "x", "zorder": 1.5} if name == TRIVIAL else {}
        ax.plot(truth, line, label=estimate_label(name), **{**estimate_style(name).of_points(), **extra})
    left, right, _ = canvas.robust_limits(truth, truth)
    low, high, outside = canvas.robust_limits(truth, _all_of(line[np.isfinite(truth)] for line in of_all.values()))
    ends = [min(left, low), max(right, high)]
    ax.plot(ends, ends, color="black", linewidth=1, zorder=1, label="estimate = truth")
    ax.set(xlim=(left, right), ylim=(low, high))
    canvas.say_outside(ax, outside)
    sets = ", ".join(targets) if len(targets) <= 3 else f"{len(targets)} sets"
    ax.set_xlabel("true " + _axis_label(quantity, sets))
    ax.set_ylabel("estimated " + _axis_label(quantity, sets))
    ax.grid(alpha=0.3)
    canvas.legend_beside(ax)
    return figure, ax


def _checked_estimates(
    records: Records, targets: Sequence[str], quantity: Quantity
) -> dict[str, dict[str, list[Estimate | None]]]:
    """The estimates of each target, by name."""
    check_records(records)
    check_choice("quantity", quantity, QUANTITIES)
    if not targets:
        raise ValueError("target: expected a test set, but none was measured; pass test_dataloaders to the monitor")
    for target in targets:
        check_target(records, target)
    found = {target: estimates(records, target, quantity) for target in targets}
    if not any(found.values()):
        raise ValueError(
            f"quantity: expected estimates of the {quantity} of {list(targets)}, but there are none; an accuracy is "
            "estimated for classifiers only"
        )
    return found


def _values(found: Sequence[Estimate | None]) -> Series:
    return series(None if one is None else one.value for one in found)


def _band(found: Sequence[Estimate | None]) -> tuple[Series, Series]:
    """The ends of the intervals, or one standard error on either side."""
    ends: list[tuple[float | None, float | None]] = []
    for one in found:
        if one is not None and one.low is None and one.stderr is not None:
            ends.append((one.value - one.stderr, one.value + one.stderr))
        else:
            ends.append((None, None) if one is None else (one.low, one.high))
    return series(low for low, _ in ends), series(high for _, high in ends)


def _all_of(lines: Iterable[Series]) -> Series:
    return np.concatenate(list(lines))


def _axis_label(quantity: Quantity, target: str) -> str:
    return f"{quantity} on {target} [{'units of the criterion' if quantity == 'loss' else 'share of samples'}]"
