"""Figures leave no trace: no backend, no global state; and without matplotlib the error says what to install."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from matplotlib import pyplot

import lightning_tansens.figures
from lightning_tansens.figures import (
    plot_bound,
    plot_class_correlations,
    plot_estimates,
    plot_extreme_samples,
    plot_gap,
    plot_histograms,
    plot_histograms_over_epochs,
    plot_layer_shares,
    plot_losses,
    plot_outputs,
    plot_scatter_estimates,
    plot_sensitivities,
    plot_sensitivity_gap,
)
from tests.figures.histories import history

SAMPLES = {"train": torch.tensor([1, 2]), "test": torch.tensor([2, 3])}

#: Every function, with arguments of which it draws something.
FIGURES = {
    "plot_bound": lambda **kwargs: plot_bound("max_weight", [0.1, 1.0], curve_values=[2], **kwargs),
    "plot_class_correlations": lambda **kwargs: plot_class_correlations(history(), **kwargs),
    "plot_estimates": lambda **kwargs: plot_estimates(history(), **kwargs),
    "plot_extreme_samples": lambda: plot_extreme_samples(torch.rand(4, 3, 3), torch.rand(4)),
    "plot_gap": lambda **kwargs: plot_gap(history(), **kwargs),
    "plot_histograms": lambda **kwargs: plot_histograms(SAMPLES, **kwargs),
    "plot_histograms_over_epochs": lambda **kwargs: plot_histograms_over_epochs({0: SAMPLES}, **kwargs),
    "plot_layer_shares": lambda **kwargs: plot_layer_shares(history(), **kwargs),
    "plot_losses": lambda **kwargs: plot_losses(history(), **kwargs),
    "plot_outputs": lambda **kwargs: plot_outputs(history(), **kwargs),
    "plot_scatter_estimates": lambda **kwargs: plot_scatter_estimates(history(), **kwargs),
    "plot_sensitivities": lambda **kwargs: plot_sensitivities(history(), **kwargs),
    "plot_sensitivity_gap": lambda **kwargs: plot_sensitivity_gap(history(), **kwargs),
}


def test_every_function_is_here():
    assert {name for name in lightning_tansens.figures.__all__ if name.startswith("plot_")} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_pyplot_does_not_know_the_figure(name, tmp_path):
    before = pyplot.get_fignums()
    figure, _ = FIGURES[name]()
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before
    alive = weakref.ref(figure)
    del figure, _
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_or_is_clipped(name):
    """Labels, titles and legends lie inside of the picture, and a legend beside an axis not over it."""
    figure, _ = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    for ax in figure.axes:
        box = ax.get_tightbbox()
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"plot_extreme_samples"}))
def test_a_given_axis_is_drawn_on(name):
    figure = pyplot.figure()
    try:
        given = figure.subplots()
        same, ax = FIGURES[name](ax=given)
        assert same is figure
        assert ax is given
        assert given.has_data()
    finally:
        pyplot.close(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_without_matplotlib(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r'is not installed; pip install "lightning-tansens\[figures\]"'):
        FIGURES[name]()


def test_the_import_does_not_need_matplotlib():
    """In a fresh interpreter that cannot import it."""
    code = (
        "import sys, lightning, torchmetrics\n"  # these find matplotlib by its metadata
        "for name in {'matplotlib', *sys.modules}:\n"
        "    if name.split('.')[0] == 'matplotlib':\n"
        "        sys.modules[name] = None\n"
        "from lightning_tansens.figures import BoundSetting\n"
        "print(round(BoundSetting(depth=2).log10_bound('consistent'), 3))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
