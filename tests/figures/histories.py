"""Histories with numbers that are easy to follow."""

import numpy as np

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
    """One run: two test sets, losses and accuracies, standard errors, sensitivities, layers, outputs and classes."""
    rows = []
    for i, epoch in enumerate(EPOCHS):
        row = {
            "epoch": epoch,
            "step": 10 * epoch,
            "tansens/train_loss": LOSSES["trivial"][i],
            "tansens/layer_norm": -3.0 + i,
        }
        for name, values in LOSSES.items():
            if values[i] is not None:
                row[f"tansens/test_loss/{name}"] = values[i]
                row[f"tansens/test_accuracy/{name}"] = 1 - values[i] / 4
                row[f"tansens/other_loss/{name}"] = values[i] + 1
        row["tansens/test_loss/empirical_stderr"] = ERRORS[i]
        row |= {"tansens/empirical/train": 2.0 * 4**i, "tansens/empirical/test": 3.0 * 5**i}
        row |= {"tansens/empirical/test_stderr": 0.25, "tansens/empirical/other": 7.0 + i, "tansens/signed/test": i - 1.0}
        row |= {"tansens/active_nodes/train": 40.0 + i, "tansens/active_nodes/test": 41.0 + i}
        row |= {"tansens/empirical/test/first": 1.0, "tansens/empirical/test/last": 1.0 + 2 * i}
        row |= {f"tansens/output_sensitivity/test/{c}": (c + 1.0) * i for c in (0, 1)}
        row |= {f"tansens/class_sensitivity/test/all/{c}": (c + 2.0) * (i + 1) for c in (0, 1)}
        row |= {f"tansens/class_sensitivity/test/{k}": 1.0 for k in (0, 1)}
        row |= {f"tansens/class_sensitivity/test/{k}/{c}": CLASS_SENSITIVITIES[k, c][i] for k in (0, 1) for c in (0, 1)}
        row |= {f"tansens/class_loss/train/{k}": 1.0 for k in (0, 1)}
        row |= {f"tansens/class_loss/test/{k}": 1.0 + CLASS_GAPS[k][i] for k in (0, 1)}
        rows.append(row)
    return rows


CLASS_GAPS = [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, -1.0]]
CLASS_SENSITIVITIES = {
    (0, 0): [0.0, 2.0, 4.0, 6.0],
    (0, 1): [3.0, 2.0, 1.0, 0.0],
    (1, 0): [1.0, 1.0, 1.0, 1.0],
    (1, 1): [0.0, 1.0, 0.0, 1.0],
}


def as_csv(rows):
    """The rows as a CSV reader gives them: text, every column in each row."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: str(row[key]) if key in row else "" for key in columns} for row in rows]


def drawn(ax):
    """The y data of the lines by label, a list each, with None where there is a hole."""
    return {line.get_label(): [None if np.isnan(y) else float(y) for y in line.get_ydata()] for line in ax.lines}


def band(area):
    """The lower and the upper border of a filled area at its places, from left to right."""
    vertices = area.get_paths()[0].vertices
    places = sorted(set(vertices[:, 0]))
    both = [sorted(vertices[vertices[:, 0] == place, 1]) for place in places]
    return [pair[0] for pair in both], [pair[-1] for pair in both]
