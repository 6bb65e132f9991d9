"""Figures leave no trace: no backend, no global state; and without matplotlib the error says what to install."""

import gc
import importlib
import sys
import weakref

import pytest
import torch
from matplotlib import pyplot

import lightning_tansens.show.figures
from lightning_tansens.show.figures import (
    plot_answer,
    plot_estimates,
    plot_extreme_samples,
    plot_histograms_over_epochs,
    plot_layer_shares,
    plot_scatter_estimates,
    plot_sensitivities,
)
from lightning_tansens.show.figures.labels import VALUES
from tests.figures.histories import history
from tests.records import measure, record
from tests.tiers import cases

SAMPLES = {"train": torch.tensor([1, 2]), "test": torch.tensor([2, 3])}

#: Every function, with arguments of which it draws something.
FIGURES = {
    "plot_answer": lambda: plot_answer(history()),
    "plot_estimates": lambda **kwargs: plot_estimates(history(), **kwargs),
    "plot_extreme_samples": lambda: plot_extreme_samples(torch.rand(4, 3, 3), torch.rand(4)),
    "plot_histograms_over_epochs": lambda **kwargs: plot_histograms_over_epochs({0: SAMPLES}, **kwargs),
    "plot_layer_shares": lambda **kwargs: plot_layer_shares(history(), **kwargs),
    "plot_scatter_estimates": lambda **kwargs: plot_scatter_estimates(history(), **kwargs),
    "plot_sensitivities": lambda **kwargs: plot_sensitivities(history(), **kwargs),
}


def test_every_function_is_here():
    assert {name for name in lightning_tansens.show.figures.__all__ if name.startswith("plot_")} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole_and_leave_no_trace(name, tmp_path):
    """Labels, titles and legends lie inside of the picture, of which pyplot knows nothing."""
    before = pyplot.get_fignums()
    figure, _ = FIGURES[name]()
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert_inside(figure)
    assert pyplot.get_fignums() == before
    alive = weakref.ref(figure)
    del figure, _
    gc.collect()
    assert alive() is None


def test_a_long_title_of_layers_has_room():
    records = [record(measures=measure("active_nodes", parts={"layer": 1.0}))]
    assert_inside(plot_layer_shares(records, "train", "active_nodes")[0])


#: The labels of most characters, and the shortest one.
EXTREME = sorted(VALUES, key=lambda name: len(str(VALUES[name])))


@pytest.mark.parametrize("name", cases({name: name for name in VALUES}, *EXTREME[-5:], EXTREME[0]))
def test_every_label_has_room(name):
    figure, ax = plot_sensitivities([record(measures=measure(name, 1.0))], name)
    assert ax.get_ylabel() == str(VALUES[name])
    assert_inside(figure)


def assert_inside(figure):
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    for ax in figure.axes:
        box = ax.get_tightbbox()
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"plot_answer", "plot_extreme_samples"}))
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


def test_the_import_does_not_need_matplotlib(monkeypatch):
    before = lightning_tansens.show.figures
    monkeypatch.setattr(lightning_tansens, "figures", before)  # puts it back afterwards
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
        elif name.startswith("lightning_tansens.show.figures"):
            monkeypatch.delitem(sys.modules, name)
    again = importlib.import_module("lightning_tansens.show.figures")
    assert again is not before
    assert again.__all__ == before.__all__
