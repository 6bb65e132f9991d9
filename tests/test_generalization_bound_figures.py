"""The figures of the second paper's example, from records: losses, the gap, outputs, classes."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tests.figures.histories import CLASS_GAPS, CLASS_SENSITIVITIES, LOSSES, drawn, history
from tests.figures.test_sensitivities import ON_TEST
from tests.figures.test_state import assert_inside
from tests.records import measure, with_target

GAPS = [actual - reference for actual, reference in zip(LOSSES["actual"], LOSSES["trivial"])]


def unlabelled():
    return [with_target(one, "test", loss=None, accuracy=None) for one in history()]


EXAMPLE = Path(__file__).parents[1] / "example_projects" / "generalization_bound_paper"
sys.path.insert(0, str(EXAMPLE))
FIGURES = SimpleNamespace(**runpy.run_path(str(EXAMPLE / "gap_figures.py")))
sys.path.remove(str(EXAMPLE))


@pytest.mark.parametrize("name", ["plot_losses", "plot_gap", "plot_outputs", "plot_class_correlations"])
def test_labels_have_room(name):
    assert_inside(getattr(FIGURES, name)(history())[0])


def test_losses():
    _, ax = FIGURES.plot_losses(history())
    assert drawn(ax) == {"train": LOSSES["trivial"], "test": LOSSES["actual"]}
    assert ax.get_ylabel() == "loss [units of the criterion]"


def test_gap_and_the_measure_scaled_to_it():
    _, ax = FIGURES.plot_gap(history())
    gap, scaled = (line.get_ydata() for line in ax.lines)
    np.testing.assert_allclose(gap, GAPS, rtol=1e-12)
    assert scaled.min() == pytest.approx(min(GAPS))
    assert scaled.max() == pytest.approx(max(GAPS))
    np.testing.assert_allclose(np.diff(scaled) / np.diff(ON_TEST), np.ptp(GAPS) / np.ptp(ON_TEST))
    assert ax.lines[1].get_label().endswith(f"scaled to it (r = {stats.pearsonr(ON_TEST, GAPS).statistic:.2f})")


def test_a_gap_has_no_sign():
    _, ax = FIGURES.plot_gap([replace(one, reference=replace(one.reference, loss=2.0)) for one in history()])
    assert ax.lines[0].get_ydata().tolist() == [2 - actual for actual in LOSSES["actual"]]


def test_a_measure_that_never_changes_has_no_correlation():
    _, ax = FIGURES.plot_gap([with_target(one, "test", measures=measure("empirical", 5.0)) for one in history()])
    assert ax.lines[1].get_label().endswith("(r undefined)")
    assert set(ax.lines[1].get_ydata()) == {min(GAPS)}


def test_records_without_one_of_both_do_not_count():
    records = history()
    records[1] = with_target(records[1], "test", loss=None)
    records[2] = with_target(records[2], "test", measures={})
    with pytest.raises(
        ValueError, match="measure: expected a measurement with both the true loss of 'test' and 'empirical'"
    ):
        FIGURES.plot_gap(records[1:3])


def test_outputs():
    _, ax = FIGURES.plot_outputs(history())
    r = f"{stats.pearsonr([0, 1, 2, 3], GAPS).statistic:.2f}"
    assert drawn(ax) == {f"0 (r = {r})": [0.0, 1.0, 2.0, 3.0], f"1 (r = {r})": [0.0, 2.0, 4.0, 6.0]}
    assert ax.get_legend().get_title().get_text() == "output (r with the gap)"


def test_outputs_over_all_classes():
    """Of the parts of class_sensitivity, those over all samples."""
    _, ax = FIGURES.plot_outputs(unlabelled(), measure="class_sensitivity")
    assert drawn(ax) == {"0": [2.0, 4.0, 6.0, 8.0], "1": [3.0, 6.0, 9.0, 12.0]}


def test_class_correlations():
    figure, ax = FIGURES.plot_class_correlations(history())
    matrix = ax.images[0].get_array()
    for k in (0, 1):
        for c in (0, 1):
            if (k, c) == (1, 0):
                assert np.ma.getmaskarray(matrix)[k, c] or np.isnan(matrix[k, c])  # it never changes
            else:
                gap = np.abs(CLASS_GAPS[k])
                assert matrix[k, c] == pytest.approx(stats.pearsonr(gap, CLASS_SENSITIVITIES[k, c]).statistic)
    assert [text.get_text() for text in ax.texts] == ["1.00", "-1.00", "1.00"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("output", "class")
    assert ax.images[0].get_clim() == (-1, 1)
    assert figure.axes[1].get_ylabel() == "r of the class's gap and the sensitivity"


@pytest.mark.parametrize("plot", [FIGURES.plot_gap, FIGURES.plot_losses])
def test_the_truth_is_needed(plot):
    with pytest.raises(ValueError, match="expected the true loss of 'test'"):
        plot(unlabelled())
    with pytest.raises(ValueError, match="target: expected one of the test sets"):
        plot(history(), target="tset")


def test_parts_are_needed():
    with pytest.raises(ValueError, match=r"expected the outputs of 'output_sensitivity' on 'other', .*OutputSensitivity"):
        FIGURES.plot_outputs(history(), "other")
    bare = [with_target(one, "test", measures={}) for one in history()]
    with pytest.raises(ValueError, match=r"expected the class_sensitivity of classes and outputs on 'test', .*matrix=True"):
        FIGURES.plot_class_correlations(bare)
    bare = [with_target(one, "test", class_losses={}) for one in history()]
    with pytest.raises(ValueError, match=r"expected the losses of class 0 on 'test' .*by_class=True"):
        FIGURES.plot_class_correlations(bare)
