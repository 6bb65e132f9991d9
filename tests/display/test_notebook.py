"""What a notebook shows of a monitor."""

import xml.etree.ElementTree as ET

import pytest

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.record import Estimate
from lightning_tansens.show.figures.style import VERDICTS
from lightning_tansens.show.notebook import to_html
from tests.boring import fit, make_monitor
from tests.records import record, target

FOUND = Estimate(0.4, None, 0.3, 0.5, ("too few samples",), "worse")


def run(name="test", epochs=3, labelled=True):
    truth = 0.35 if labelled else None
    estimates = {"trivial": 0.5, "estimate": FOUND}
    targets = [target(name, accuracy=truth, accuracies=estimates), target("other", accuracies={"trivial": 0.5})]
    return [record(epoch, accuracy=0.5, targets=targets) for epoch in range(epochs)]


def parsed(html):
    """The table; it is well-formed, which a notebook does not check."""
    table = ET.fromstring(html)
    headings, *rows = table.findall("tr")
    return [cell.text for cell in headings], [["".join(cell.itertext()) for cell in row] for row in rows], table


def test_a_row_for_each_set():
    headings, rows, table = parsed(to_html(run()))
    assert headings == ["set", "accuracy", "loss", "verdict", "remarks", "accuracy over the epochs"]
    assert rows == [
        ["train (labelled)", "0.50", "1.00", "", "", ""],
        ["test", "0.40 [0.30, 0.50], true 0.35", "", "worse?", "too few samples", ""],
        ["other", "0.50 (trivial)", "", "", "", ""],
    ]
    assert table.find("caption").text == "after epoch 2"
    (mark,) = table.iter("span")
    assert f"background:{VERDICTS['worse'].colour};" in mark.get("style")


@pytest.mark.parametrize("labelled", [True, False])
def test_the_course_of_each_set(labelled):
    _, _, table = parsed(to_html(run(labelled=labelled)))
    first, second = table.iter("svg")
    own, estimate, *truth = [line.get("points").split() for line in first.iter("polyline")]
    heights = {name: {float(point.partition(",")[2]) for point in line} for name, line in (("own", own), ("e", estimate))}
    assert len(own) == len(estimate) == 3
    assert heights["own"] == {2}  # 0.5, the largest one
    assert heights["e"] > {2} or min(heights["e"]) > 2
    assert len(truth) == labelled
    assert len(list(first.iter("polygon"))) == 1
    assert not list(second.iter("polygon"))


def test_names_are_text_and_no_markup():
    html = to_html(run("<script>&"))
    assert "<script>" not in html
    assert parsed(html)[1][1][0] == "<script>&"


def test_before_the_first_measurement_there_is_a_sentence():
    assert TangentSensitivityMonitor()._repr_html_() == to_html([])
    assert "nothing is measured yet" in to_html([])


def test_a_measurement_without_targets_or_estimates():
    assert parsed(to_html([record()]))[1] == [["train (labelled)", "1.00", ""]]
    assert parsed(to_html([record(targets=[target()])]))[1][1] == ["test", "", ""]


def test_a_monitor_shows_its_last_measurement():
    monitor = make_monitor()
    fit(monitor)
    assert monitor._repr_html_() == to_html(monitor.records)
    assert "after epoch 1" in monitor._repr_html_()
