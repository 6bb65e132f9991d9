"""How things look in every figure: one colour, marker and line for a name, so that charts agree with one another."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from lightning_tansens.show.keys import ACTUAL, REFERENCE_NAMES, TRIVIAL


@dataclass(frozen=True)
class Style:
    """What tells a series apart; the marker and the line do so in print, where colours are grey.

    Attributes:
        colour: A colour of a palette that color-blind readers can tell apart (Okabe and Ito 2008, Tol 2021).
        marker: A matplotlib marker.
        line: A matplotlib line style.
        width: The width of the line, in points.

    """

    colour: str
    marker: str = "o"
    line: Any = "-"
    width: float = 1.5

    def of_line(self) -> dict[str, Any]:
        """Returns the arguments of ``plot`` for a line with a few markers."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.line,
            "linewidth": self.width,
            "markersize": 5,
        }

    def of_points(self) -> dict[str, Any]:
        """Returns the arguments of ``plot`` for points alone."""
        return {"color": self.colour, "marker": self.marker, "linestyle": "none", "markersize": 6, "alpha": 0.8}


#: The truth and the trivial estimate, and the estimators by the keys of their measures.
ESTIMATES = {
    ACTUAL: Style("black", "", "-", 2.4),
    TRIVIAL: Style("#767676", "", "--", 1.8),
    "empirical": Style("#0072B2", "o"),
    "active_nodes": Style("#E69F00", "s"),
    "layer_norm": Style("#009E73", "^"),
    "input_output": Style("#CC79A7", "D"),
    "spectral_norm": Style("#D55E00", "v"),
    "fisher_rao": Style("#56B4E9", "P"),
    "region": Style("#882255", "X"),
    "mean_tangent": Style("#999933", "<"),
}

#: Sets: references are dashed, test sets solid.
SETS = {name: Style("#D55E00", "s", "--") for name in REFERENCE_NAMES} | {"test": Style("#0072B2", "o")}

_OTHER_COLOURS = ("#332288", "#44AA99", "#AA4499", "#661100", "#CC6677")
_OTHER_MARKERS = ("p", "*", ">", "h", "d", "8", "H")
_OUTPUT_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#882255")
_OUTPUT_LINES = ("-", "--", ":", "-.")

#: For what has an order, such as epochs or layers: even in lightness, so that it reads in grey too.
ORDERED = "viridis"

#: For correlations, from −1 to 1.
SIGNED = "RdBu_r"


def estimate_style(name: str) -> Style:
    """Returns the style of an estimator, of the truth or of the trivial estimate; a name is always given the same one."""
    return ESTIMATES.get(name) or _from_name(name)


def set_style(name: str) -> Style:
    """Returns the style of a reference or a test set; a name is always given the same one."""
    return SETS.get(name) or _from_name(name)


def output_style(number: int) -> Style:
    """Returns the style of an output or a class: 28 of them differ in their colour or their line."""
    colours = len(_OUTPUT_COLOURS)
    return Style(_OUTPUT_COLOURS[number % colours], "", _OUTPUT_LINES[number // colours % len(_OUTPUT_LINES)])


def _from_name(name: str) -> Style:
    # Python's own hash of a string is another one in every process
    number = zlib.crc32(name.encode())
    return Style(_OTHER_COLOURS[number % len(_OTHER_COLOURS)], _OTHER_MARKERS[number % len(_OTHER_MARKERS)])
