"""Draws a measure over the epochs, by set and by layer."""

import numpy as np

from lightning_tansens.show.figures.canvas import (
    Axes,
    Figure,
    legend_beside,
    one_axis,
    ordered_colours,
    set_epochs,
    some_points,
)
from lightning_tansens.show.figures.labels import value_label
from lightning_tansens.show.figures.series import (
    Records,
    Series,
    check_records,
    epochs,
    measured,
    measured_on,
    on_set,
    series,
)
from lightning_tansens.show.figures.style import estimate_style, set_style

#: More layers than this are no longer told apart; the smallest are drawn as one.
MAX_LAYERS = 12


def plot_sensitivities(records: Records, measure: str = "empirical", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws a measure on the reference, dashed, and on each target over the epochs.

    The axis is logarithmic unless the measure is a logarithm itself or not positive. The bands are one standard error on
    either side, where it is known.

    Args:
        records: The records of a monitor.
        measure: The name of a measure or of another value that is taken on sets, such as ``empirical_norm``, or of a measure
            of the weights alone.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If they are no list of records.
        ValueError: If the measure was not taken.

    Example:
        >>> from lightning_tansens.record import MeasureRecord, Record, SetRecord
        >>> measures = {"empirical": MeasureRecord({"empirical": 2.0})}
        >>> train, test = (SetRecord(name, measures=measures) for name in ("train", "test"))
        >>> figure, ax = plot_sensitivities([Record(epoch, epoch, train, {"test": test}) for epoch in range(3)])
        >>> [line.get_label() for line in ax.lines], ax.get_yscale()
        (['train', 'test'], 'log')
    """
    check_records(records)
    names = dict.fromkeys(one.name for record in records for one in record.sets)
    found = {name: of for name in names if not np.isnan((of := measured(records, measure, name))[0]).all()}
    of_weights = not found
    if of_weights:
        found = {"weights": (measured_on(records, measure, records[-1].reference.name), series([None] * len(records)))}
    figure, ax = one_axis(ax)
    positive = True
    for number, (name, (values, errors)) in enumerate(found.items()):
        style = estimate_style(measure) if of_weights else set_style(name)
        positive &= bool((values[np.isfinite(values)] > 0).all())
        ax.plot(epochs(records), values, label=name, markevery=some_points(len(values), number), **style.of_line())
        if not np.isnan(errors).all():
            ax.fill_between(epochs(records), values - errors, values + errors, color=style.colour, alpha=0.2, linewidth=0)
    label = value_label(measure)
    if positive and not label.logarithm:
        _set_logarithmic(ax)
    set_epochs(ax)
    ax.set_ylabel(str(label))
    if not of_weights:
        ax.legend(fontsize="small")
    return figure, ax


def plot_layer_shares(
    records: Records, set_name: str = "test", measure: str = "empirical", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""Draws the share of each layer in a measure on a set over the epochs, as areas that add up to one.

    .. math:: \|\delta_i\|^2 \|J_{i-1}\|_F^2 \Big/ \sum_j \|\delta_j\|^2 \|J_{j-1}\|_F^2

    for the mean over the set of the empirical sensitivity, whose layers ``EmpiricalSensitivity(per_layer=True)`` reports.
    The first layer is at the bottom. Of more than twelve layers the smallest are drawn as one.

    Args:
        records: The records of a monitor.
        set_name: The name of the reference or of a target.
        measure: A measure whose layers are known.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If they are no list of records.
        ValueError: If the layers are not known.

    Example:
        >>> from lightning_tansens.record import MeasureRecord, Record, SetRecord
        >>> test = SetRecord("test", measures={"empirical": MeasureRecord(parts={"0": 1.0, "2": 3.0})})
        >>> figure, ax = plot_layer_shares([Record(t, t, SetRecord("train"), {"test": test}) for t in range(3)])
        >>> [area.get_label() for area in ax.collections]
        ['0', '2']
    """
    check_records(records)
    found = [one.measures[measure].parts if measure in one.measures else {} for one in on_set(records, set_name)]
    layers = list(dict.fromkeys(layer for parts in found for layer in parts))
    if not layers:
        raise ValueError(
            f"records: expected the layers of {measure!r} on {set_name!r}, but got none; use "
            "EmpiricalSensitivity(per_layer=True) in the monitor, and the name of a set it measures"
        )
    # a layer that is frozen in between has no share then
    values = np.array([[parts.get(layer, 0.0) for parts in found] for layer in layers])
    known = values.sum(0) > 0
    places, values = epochs(records)[known], values[:, known]
    shares, labels = _largest(values / values.sum(0), layers)
    figure, ax = one_axis(ax, 7.6)
    colours = ordered_colours(len(labels))
    if len(places) == 1:  # an area of one point would be nothing
        places, shares = places + np.array([-0.4, 0.4]), shares.repeat(2, 1)
    ax.stackplot(places, shares, labels=labels, colors=colours, edgecolor="white", linewidth=0.8)
    set_epochs(ax)
    ax.set(ylim=(0, 1), xlim=(places.min(), places.max()))
    # the parts of active nodes are their numbers
    name = value_label("active_nodes_mean" if measure == "active_nodes" else measure).name
    ax.set_title(f"{name} on {set_name}", fontsize="medium")
    ax.set_ylabel("share of each layer")
    legend_beside(ax, "layer", reverse=True)  # in the order of the areas
    return figure, ax


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
