"""Figure 2 of Daróczy (2022), from the bound's own definition."""

import math
import runpy
from pathlib import Path

import pytest
from mpmath import mp, mpf, quad

EXAMPLE = Path(__file__).parents[1] / "example_projects" / "tangent_sensitivity_paper"
FIGURE = runpy.run_path(str(EXAMPLE / "bound_figure.py"), run_name="bound_figure")
BoundSetting, plot_bound = FIGURE["BoundSetting"], FIGURE["plot_bound"]


def log10_bounds(depth, width, weight, mean, std, inputs):
    """Both forms of Eq. 2, with the moments of |T| integrated numerically."""
    mp.dps = 30
    units = (depth - 1) * width
    parameters = width * (inputs + (depth - 2) * width + 1)
    mean, std = mpf(mean) * units, mpf(std) * units

    def moment(power):
        points = [mean - 12 * std, 0, mean, mean + 12 * std]
        density = lambda t: abs(t) ** power * mp.exp(-(((t - mean) / std) ** 2) / 2) / (std * mp.sqrt(2 * mp.pi))  # noqa: E731
        return quad(density, sorted(points))

    factor = parameters * inputs * mpf(weight) ** (2 * (depth - 1))
    consistent = factor * moment(2 * (depth - 1)) / mpf(depth - 1) ** (2 * (depth - 1))
    printed = factor * moment(depth - 1) ** 2 / mpf(depth) ** (2 * depth)
    return {"-": float(mp.log10(consistent)), "--": float(mp.log10(printed))}


def test_curves_against_integration():
    setting = BoundSetting(width=30, mean_share=0.5, std_share=0.1, inputs=7)
    _, ax = plot_bound("max_weight", [0.01, 0.5], curve_values=[2, 4], setting=setting)
    assert len(ax.lines) == 4
    for line in ax.lines:
        depth = 2 if line.get_color() == ax.lines[0].get_color() else 4
        for weight, height in line.get_xydata():
            expected = log10_bounds(depth, 30, weight, 0.5, 0.1, 7)[line.get_linestyle()]
            assert height == pytest.approx(expected, rel=1e-9)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["2", "4"]
    assert ax.get_legend().get_title().get_text() == "depth k [weight layers]"
    assert ax.get_xlabel() == r"largest weight $w_{max}$"
    assert ax.get_ylabel() == r"$\log_{10}$ of the bound, consistent (solid), printed (dashed)"


def test_over_the_depth():
    """The default is the paper's network: w_max to the power 2(k − 1) is the only difference of two curves."""
    _, ax = plot_bound("depth", [2, 5, 50], "max_weight", [0.1, 0.2])
    first, second = [line for line in ax.lines if line.get_linestyle() == "-"]
    rises = [2 * (depth - 1) * math.log10(2) for depth in (2, 5, 50)]
    assert (second.get_ydata() - first.get_ydata()).tolist() == pytest.approx(rises)
    expected = log10_bounds(2, 1000, 0.1, 0.48, 0.04, 3072)["-"]
    assert first.get_ydata()[0] == pytest.approx(expected)


def test_axes():
    ax = plot_bound("depth", [2, 1000], "std_share", [0.001, 0.0123456, 0.3])[1]
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0.001", "0.0123", "0.3"]
    assert plot_bound("mean_share", [0.2, 0.8], curve_values=[2])[1].get_xscale() == "linear"
    assert plot_bound("mean_share", [0.0, 0.8], curve_values=[2])[1].get_xscale() == "linear"
    assert plot_bound("width", [10, 1000], curve_values=[2])[1].get_yscale() == "symlog"


def test_large_numbers_in_the_legend():
    ax = plot_bound("depth", [2, 3], "width", [10, 10_000])[1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["10", "10000"]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"varied: expected one of \['depth', .*\], but got 'weights'"):
        plot_bound("weights", [1.0])
    with pytest.raises(ValueError, match=r"curve: expected one of \['width', .*\] beside varied='depth', but got 'depth'"):
        plot_bound("depth", [2, 3])
    with pytest.raises(ValueError, match="curve_values: expected at least one value of 'depth', but got none"):
        plot_bound("max_weight", [0.1], curve_values=[])
    with pytest.raises(ValueError, match="values: expected at least one value of 'max_weight', but got none"):
        plot_bound("max_weight", [])
