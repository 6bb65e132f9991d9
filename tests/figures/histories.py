"""Histories with numbers that are easy to follow."""

import numpy as np

from tests.records import measure, record, target

#: The estimates of the loss on "test" at epochs 0, 2, 4 and 6; one is missing once.
LOSSES = {
    "trivial": [1.0, 0.8, 0.6, 0.5],
    "empirical": [1.25, 1.0, 0.75, 0.5],
    "layer_norm": [None, 0.9, 0.7, 0.6],
    "actual": [1.5, 1.25, 1.125, 1.0],
}
ERRORS = [0.125, 0.0625, 0.03125, 0.015625]
EPOCHS = [0, 2, 4, 6]


def history():
    """One run: two targets, losses and accuracies, standard errors, sensitivities, layers, outputs and classes."""
    return [one(i, epoch) for i, epoch in enumerate(EPOCHS)]


def one(i, epoch):
    losses = {name: values[i] for name, values in LOSSES.items() if values[i] is not None}
    actual = losses.pop("actual")
    pairs = {f"{k}/{c}": CLASS_SENSITIVITIES[k, c][i] for k in (0, 1) for c in (0, 1)}
    of_test = {
        **measure("empirical", 3.0 * 5**i, parts={"first": 1.0, "last": 1.0 + 2 * i}, stderr=0.25),
        **measure("signed", i - 1.0),
        **measure("active_nodes", 41.0 + i),
        **measure("output_sensitivity", parts={str(c): (c + 1.0) * i for c in (0, 1)}),
        **measure("class_sensitivity", parts={"all/0": 2.0 * (i + 1), "all/1": 3.0 * (i + 1), "0": 1.0, "1": 1.0, **pairs}),
    }
    test = target(
        "test",
        actual,
        1 - actual / 4,
        {**losses, "empirical": (losses["empirical"], ERRORS[i])},
        {name: 1 - value / 4 for name, value in losses.items()},
        of_test,
        class_losses={k: 1.0 + CLASS_GAPS[k][i] for k in (0, 1)},
    )
    other = target(
        "other",
        actual + 1,
        losses={name: value + 1 for name, value in losses.items()},
        measures=measure("empirical", 7.0 + i),
    )
    return record(
        epoch,
        losses["trivial"],
        measures={**measure("empirical", 2.0 * 4**i), **measure("active_nodes", 40.0 + i)},
        class_losses={0: 1.0, 1: 1.0},
        targets=[test, other],
        weights=measure("layer_norm", -3.0 + i),
    )


CLASS_GAPS = [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, -1.0]]
CLASS_SENSITIVITIES = {
    (0, 0): [0.0, 2.0, 4.0, 6.0],
    (0, 1): [3.0, 2.0, 1.0, 0.0],
    (1, 0): [1.0, 1.0, 1.0, 1.0],
    (1, 1): [0.0, 1.0, 0.0, 1.0],
}


def drawn(ax):
    """The y data of the lines by label, a list each, with None where there is a hole."""
    return {line.get_label(): [None if np.isnan(y) else float(y) for y in line.get_ydata()] for line in ax.lines}


def band(area):
    """The lower and the upper border of a filled area at its places, from left to right."""
    vertices = area.get_paths()[0].vertices
    places = sorted(set(vertices[:, 0]))
    both = [sorted(vertices[vertices[:, 0] == place, 1]) for place in places]
    return [pair[0] for pair in both], [pair[-1] for pair in both]


def pixels_per_point(figure, width=350):
    """Pixels for each point of a font when a figure is shrunk to a card of TensorBoard."""
    return width / (72 * figure.get_size_inches()[0])
