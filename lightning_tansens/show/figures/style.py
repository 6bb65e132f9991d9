"""One colour, marker and line for each name, the same in every figure."""

from dataclasses import dataclass
from typing import Any

from lightning_tansens.record import HEADLINE, TRIVIAL, Verdict
from lightning_tansens.show.keys import ACTUAL, REFERENCE_NAMES


@dataclass(frozen=True)
class Style:
    """The look of a series; in print, where colours are grey, marker and line tell it apart."""

    colour: str  #: A colour; those of a figure differ for colour-blind readers as well.
    marker: str = "o"  #: A matplotlib marker.
    line: Any = "-"  #: A matplotlib line style.
    width: float = 1.5  #: The width of the line, in points.

    def of_line(self) -> dict[str, Any]:
        """Returns the arguments of ``plot`` for a line with a few markers."""
        look = {"color": self.colour, "marker": self.marker, "linestyle": self.line}
        return {**look, "linewidth": self.width, "markersize": 5}

    def of_points(self) -> dict[str, Any]:
        """Returns the arguments of ``plot`` for points alone."""
        return {"color": self.colour, "marker": self.marker, "linestyle": "none", "markersize": 6, "alpha": 0.8}


#: The nearest two are 22 apart (CIELAB) for readers without green cones, black and the grey of the trivial one included.
COLOURS = ("#0077BB", "#B15928", "#E69F00", "#33BBEE", "#AA4499", "#332288", "#EE6677", "#661100", "#DDCC77")
_BLUE, _BROWN, _ORANGE, _SKY, _PURPLE, _INDIGO, _PINK, _MAROON, _SAND = COLOURS

#: The truth, the trivial estimate and the headline; estimates from measures (dash-dotted), outputs (solid), and
#: earlier outputs or copies (dotted).
ESTIMATES = {
    ACTUAL: Style("black", "", "-", 2.4),
    TRIVIAL: Style("#767676", "", "--", 1.8),
    HEADLINE: Style(_BLUE, "o", "-", 2.4),
    "empirical": Style(_BROWN, "s", "-."),
    "active_nodes": Style(_ORANGE, "^", "-."),
    "layer_norm": Style(_SKY, "v", "-."),
    "input_output": Style(_PURPLE, "D", "-."),
    "spectral_norm": Style(_INDIGO, "<", "-."),
    "fisher_rao": Style(_PINK, "P", "-."),
    "region": Style(_MAROON, "X", "-."),
    "mean_tangent": Style(_SAND, ">", "-."),
    "entropy_ratio": Style(_SKY, "o"),
    "entropy_difference": Style(_INDIGO, "s"),
    "average_confidence": Style(_ORANGE, "p"),
    "cbpe": Style(_MAROON, "^"),
    "cot": Style(_PINK, "D"),
    "atc_confidence": Style(_BROWN, "v"),
    "atc_entropy": Style(_PURPLE, "h"),
    "difference_of_confidences": Style(_SAND, "d"),
    "importance_weighting": Style(_BLUE, "*", ":"),
    "temporal_ensemble": Style(_ORANGE, "s", ":"),
    "disagreement": Style(_SKY, "D", ":"),
    "agreement_line_s": Style(_PURPLE, "^", ":"),
    "agreement_line_d": Style(_INDIGO, "v", ":"),
    "pseudo_label_loss": Style(_PINK, "o", ":"),
    "atc_ensemble": Style(_MAROON, "d", ":"),
    "cot_ensemble": Style(_SAND, "8", ":"),
    "transport_loss": Style(_BLUE, "P", "-."),
    "calibrated": Style(_BROWN, "H", ":"),
}


@dataclass(frozen=True)
class Mark:
    """The colour behind a word, and that of the word."""

    colour: str  #: What is behind.
    ink: str = "white"  #: What is written on it.


#: Verdicts. Each stands on its colour as a word, and the colours differ for colour-blind readers as well.
VERDICTS: dict[Verdict | None, Mark] = {
    "like the reference": Mark("#00806B"),
    "better": Mark(_BLUE),
    "worse": Mark("#C43E00"),
    "unsure": Mark(_ORANGE, "black"),
    None: Mark("#E0E0E0", "black"),
}

#: Sets: references are dashed, targets solid.
SETS = {name: Style(_BROWN, "s", "--") for name in REFERENCE_NAMES} | {"test": Style(_BLUE, "o")}

#: For what has an order, such as epochs or layers: even in lightness, so that it reads in grey too.
ORDERED = "viridis"

_MARKERS = ("p", "*", ">", "h", "d", "8", "H")
_given: dict[str, dict[str, Style]] = {"estimate": {}, "set": {}}


def estimate_style(name: str) -> Style:
    """Returns the style of an estimator, of the truth or of the trivial estimate.

    A name that has no style of its own is given the next free one, and keeps it as long as the process lives.
    """
    return ESTIMATES.get(name) or _next_style("estimate", name)


def set_style(name: str) -> Style:
    """Returns the style of a reference or a target, as :func:`estimate_style` does."""
    return SETS.get(name) or _next_style("set", name)


def _next_style(kind: str, name: str) -> Style:
    given = _given[kind]
    if name not in given:
        # blue and brown are taken: by references and "test", or by estimates that are drawn more often
        colours = COLOURS[2:]
        number = len(given)
        line = "-" if kind == "set" else "--"
        given[name] = Style(
            colours[number % len(colours)], _MARKERS[(number + number // len(colours)) % len(_MARKERS)], line
        )
    return given[name]
