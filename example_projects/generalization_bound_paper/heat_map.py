"""A matrix of classes and outputs in colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_tansens.show.figures.canvas import one_axis
from lightning_tansens.show.figures.series import Series
from lightning_tansens.show.figures.style import ORDERED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Up to so many columns there is room for the numbers themselves.
_WRITTEN = 12


def draw_matrix(
    ax: Axes,
    matrix: Series,
    classes: Sequence[str],
    outputs: Sequence[str],
    label: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws a matrix with its numbers, a row for each class and a column for each output; what is nan stays blank.

    Args:
        ax: The axis.
        matrix: The numbers, shape (K, C).
        classes: The names of the rows.
        outputs: The names of the columns.
        label: What the numbers are.
        limits: The ends of a scale that has its middle in white; None takes the smallest and the largest number.

    """
    low, high = limits or (None, None)
    image = ax.imshow(matrix, cmap="RdBu_r" if limits else ORDERED, vmin=low, vmax=high, aspect="auto")
    one_axis(ax)[0].colorbar(image, ax=ax, label=label)
    for axis, names, name in ((ax.xaxis, outputs, "output"), (ax.yaxis, classes, "class")):
        step = -(-len(names) // 25)
        axis.set_ticks(range(0, len(names), step), list(names)[::step])
        axis.set_label_text(name)
    if len(outputs) > _WRITTEN or len(classes) > _WRITTEN:
        return
    for row, numbers in enumerate(matrix):
        for place, number in enumerate(numbers):
            if number == number:  # not nan
                red, green, blue, _ = image.cmap(image.norm(number))
                # luminance decides which of black and white can be read on it
                light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                text = f"{number:.2f}" if limits else f"{number:.3g}"
                ax.text(place, row, text, ha="center", va="center", fontsize="x-small", color="black" if light else "white")
