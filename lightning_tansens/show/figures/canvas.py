"""Draws with matplotlib, an optional dependency, without its global state."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.show.figures.style import ORDERED

# matplotlib is imported where something is drawn
if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
else:
    Axes = Figure = Any

#: Inches of a figure with one axis.
SIZE = (6.8, 4.4)

#: Inches of a figure whose letters can be read when TensorBoard shrinks it to the width of a card, 350 pixels, and the
#: dots per inch that leave such a figure twice as many.
CARD, DPI = (5.2, 3.8), 150


def check_matplotlib() -> None:
    """Raises ModuleNotFoundError, which says how to install matplotlib, if it is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "lightning_tansens.show.figures: expected matplotlib, but it is not installed; "
            'pip install "lightning-tansens[figures]"'
        ) from error


def new_figure(width: float = SIZE[0], height: float = SIZE[1]) -> Figure:
    """Makes an empty figure; it is unknown to pyplot, so that it is freed with its last reference, and needs no backend."""
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def one_axis(ax: Axes | None, width: float = SIZE[0], height: float = SIZE[1]) -> tuple[Figure, Axes]:
    """Returns an axis to draw on and its figure: the given one, or one of a new figure; raises TypeError if it is none."""
    if ax is None:
        figure = new_figure(width, height)
        return figure, figure.subplots()
    check_matplotlib()
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected one matplotlib Axes, or None for a new figure, but got {type(ax).__name__}")
    own: Any = ax.figure
    return own.figure, ax  # of a subfigure the figure around it, of a figure itself


def set_epochs(ax: Axes) -> None:
    """Labels the horizontal axis as epochs, with whole numbers."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)


def ordered_colours(number: int) -> list[str]:
    """Returns colours, even in lightness, for what has an order, without the palest end of the map."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[ORDERED](np.linspace(0.05, 0.9, number))]


def some_points(points: int, line: int = 0) -> tuple[int, int]:
    """Returns the first of a line's points that carries a marker, and the step from one to the next: up to about ten.

    Lines that lie on one another have other numbers, so that their markers are in different places.
    """
    step = max(1, points // 10)
    return line % step, step


def legend_beside(ax: Axes, title: str | None = None, reverse: bool = False, columns: int = 1) -> None:
    """Puts a legend to the right of the axis, where it cannot cover a line."""
    look: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    ax.legend(title=title, reverse=reverse, ncols=columns, fontsize="small", title_fontsize="small", **look)


def legend_above(ax: Axes, columns: int) -> None:
    """Puts a legend above the axis, which keeps the width of the figure; long names leave room for fewer columns."""
    look: dict[str, Any] = {"frameon": False, "borderpad": 0.2, "columnspacing": 1.2}
    room = 1.15 * ax.get_window_extent().width  # of a new figure nearly nine tenths; beyond them a legend is cut off
    for count in range(columns, 0, -1):
        legend = ax.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=count, **look)
        if legend.get_window_extent().width <= room:
            return


def robust_limits(always: NDArray[np.float64], usually: NDArray[np.float64]) -> tuple[float, float, int]:
    """Computes limits of an axis on which a few far values do not flatten all the others.

    Args:
        always: Values that must be seen; nan for none.
        usually: Values of which the farthest tenth, five per cent on each side, may lie outside, if they are farther from
            the others than these are from one another.

    Returns:
        The lower and the upper limit, and how many values are outside.
    """
    always, usually = (numbers[np.isfinite(numbers)] for numbers in (always, usually))
    every = np.concatenate([always, usually])
    if not len(every):
        return 0.0, 1.0, 0
    inner = np.concatenate([always, np.quantile(usually, [0.05, 0.95])]) if len(usually) else always
    low, high = float(inner.min()), float(inner.max())
    span = high - low or abs(high) or 1.0
    # what is not far outside may as well be seen
    near = every[(every >= low - span) & (every <= high + span)]
    low, high = float(near.min()), float(near.max())
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    low, high = low - margin, high + margin
    return low, high, int(((every < low) | (every > high)).sum())


def say_outside(ax: Axes, outside: int) -> None:
    """Says on the axis how many values lie outside of it."""
    if outside:
        text = f"{outside} value{'s' * (outside > 1)} outside"
        ax.text(0.99, 0.01, text, transform=ax.transAxes, ha="right", fontsize="small", style="italic")
