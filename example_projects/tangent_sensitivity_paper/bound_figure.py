"""How the bound of Eq. 2 of Daróczy (2022) depends on the network and on its active units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from lightning_tansens.bounds.active_nodes import ActiveNodeForm, log_active_node_bound
from lightning_tansens.checks import check_choice
from lightning_tansens.show.figures.canvas import one_axis, ordered_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class BoundSetting:
    """A network of layers of one width without biases, one output, and its active units; by default Figure 2's.

    Attributes:
        depth: k, the number of weight layers.
        width: Units of each hidden layer.
        max_weight: w_max.
        mean_share: μ/N, for N = (k − 1) · width hidden units.
        std_share: σ/N.
        inputs: D.

    """

    depth: int = 5
    width: int = 1000
    max_weight: float = 0.1
    mean_share: float = 0.48
    std_share: float = 0.04
    inputs: int = 3072

    def log10_bound(self, form: ActiveNodeForm) -> float:
        """Returns the common logarithm of Eq. 2's bound, in the form that is printed or the consistent one."""
        units = (self.depth - 1) * self.width
        parameters = self.width * (self.inputs + (self.depth - 2) * self.width + 1)
        moments = self.mean_share * units, self.std_share * units
        log_bound = log_active_node_bound(parameters, self.inputs, self.depth, *moments, self.max_weight, form=form)
        return log_bound / math.log(10)


#: What can be varied, as it is called on an axis and in a legend.
_NAMES = {
    "depth": "depth k [weight layers]",
    "width": "width of the layers [units]",
    "max_weight": r"largest weight $w_{max}$",
    "mean_share": r"mean of active units $\mu/N$",
    "std_share": r"deviation of active units $\sigma/N$",
    "inputs": "inputs D",
}


def plot_bound(
    varied: str,
    values: Sequence[float],
    curve: str = "depth",
    curve_values: Sequence[float] = (2, 5, 10, 100, 1000),
    setting: BoundSetting | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    r"""Draws the bound of Eq. 2 over one of its parameters, for several values of another.

    .. math:: \log_{10} \Big( P D \, w_{\max}^{2(k-1)} \, \frac{E|T|^{2(k-1)}}{(k-1)^{2(k-1)}} \Big), \qquad
        T \sim N(\mu, \sigma^2)

    (Eq. 2 and Figure 2 of Daróczy 2022). Solid is the consistent form, dashed the one that is printed in the paper, see
    :func:`~lightning_tansens.functional.log_active_node_bound`. The vertical axis is linear up to ten decades and
    logarithmic in the number of decades beyond.

    Args:
        varied: The parameter along the horizontal axis, an attribute of :class:`BoundSetting`.
        values: Its values.
        curve: The parameter that tells the curves apart, likewise.
        curve_values: Its values, a curve each.
        setting: All other parameters; None for those of Figure 2.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        ValueError: If a parameter is none of a setting's, both are the same, or there are no values.

    Example:
        >>> figure, ax = plot_bound("max_weight", [0.1, 1.0], curve_values=[2])
        >>> consistent, printed = ax.lines
        >>> round(float(consistent.get_ydata()[1] - consistent.get_ydata()[0]), 6)  # w_max to the power 2(k − 1)
        2.0

    """
    names = [field.name for field in fields(BoundSetting)]
    check_choice("varied", varied, names)
    check_choice("curve", curve, [name for name in names if name != varied], f"beside varied={varied!r}")
    for argument, name, numbers in (("values", varied, values), ("curve_values", curve, curve_values)):
        if not len(numbers):
            raise ValueError(f"{argument}: expected at least one value of {name!r}, but got none")
    setting = setting or BoundSetting()
    figure, ax = one_axis(ax)
    for colour, step in zip(ordered_colours(len(curve_values)), curve_values, strict=True):
        for form in get_args(ActiveNodeForm):
            settings = [_changed(setting, {curve: step, varied: value}) for value in values]
            label = (f"{step:g}" if step == int(step) else f"{step:.3g}") if form == "consistent" else None
            line = "-" if form == "consistent" else "--"
            ax.plot(values, [one.log10_bound(form) for one in settings], line, color=colour, label=label)
    if min(values) > 0 and max(values) / min(values) > 10:
        ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=10)
    ax.set_xlabel(_NAMES[varied])
    ax.set_ylabel(r"$\log_{10}$ of the bound, consistent (solid), printed (dashed)")
    ax.grid(alpha=0.3)
    ax.legend(title=_NAMES[curve], fontsize="small", title_fontsize="small")
    return figure, ax


def _changed(setting: BoundSetting, numbers: dict[str, Any]) -> BoundSetting:
    return replace(setting, **numbers)
