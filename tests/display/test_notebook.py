"""What a notebook shows of a monitor."""

import xml.etree.ElementTree as ET
from base64 import b64decode
from io import BytesIO

from PIL import Image

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.record import Estimate
from lightning_tansens.show.figures.style import VERDICTS
from lightning_tansens.show.notebook import to_html
from tests.boring import fit, make_monitor
from tests.records import record, target

FOUND = Estimate(0.4, None, 0.3, 0.5, ("too few samples",), "worse")


def run(name="test"):
    estimates = {"trivial": 0.5, "estimate": FOUND}
    targets = [target(name, accuracy=0.35, accuracies=estimates), target("other", accuracies={"trivial": 0.5})]
    return [record(epoch, accuracy=0.5, targets=targets) for epoch in range(3)]


def parsed(html):
    """The headings, the rows and the whole; it is well-formed, which a notebook does not check."""
    whole = ET.fromstring(html)
    headings, *rows = whole.find("table").findall("tr")
    return [cell.text for cell in headings], [["".join(cell.itertext()) for cell in row] for row in rows], whole


def test_a_row_for_each_set():
    headings, rows, whole = parsed(to_html(run()))
    assert headings == ["set", "accuracy", "loss", "verdict", "remarks"]
    assert rows == [
        ["train (labelled)", "0.50", "1.00", "", ""],
        ["test", "0.40 [0.30, 0.50], true 0.35", "", "worse?", "too few samples"],
        ["other", "0.50 (trivial)", "", "", ""],
    ]
    assert whole.find("table/caption").text == "after epoch 2"
    (mark,) = whole.iter("span")
    assert f"background:{VERDICTS['worse'].colour};" in mark.get("style")


def test_the_picture_of_the_sets():
    _, _, whole = parsed(to_html(run()))
    kind, _, data = whole.find("img").get("src").partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(BytesIO(b64decode(data))) as image:
        assert image.size == (800, 430)
        assert whole.find("img").get("width") == "400"


def test_without_matplotlib_there_is_the_table(monkeypatch):
    monkeypatch.setattr("lightning_tansens.show.notebook.find_spec", lambda name: None)
    _, rows, whole = parsed(to_html(run()))
    assert len(rows) == 3
    assert whole.find("img") is None


def test_names_are_text_and_no_markup():
    html = to_html(run("<script>&"))
    assert "<script>" not in html
    assert parsed(html)[1][1][0] == "<script>&"


def test_before_the_first_measurement_there_is_a_sentence():
    assert TangentSensitivityMonitor()._repr_html_() == to_html([])
    assert "nothing is measured yet" in to_html([])


def test_a_measurement_without_targets_or_estimates():
    assert parsed(to_html([record()]))[1] == [["train (labelled)", "1.00"]]
    assert parsed(to_html([record(targets=[target()])]))[1][1] == ["test", ""]


def test_a_monitor_shows_its_last_measurement():
    monitor = make_monitor()
    fit(monitor)
    assert monitor._repr_html_() == to_html(monitor.records)
    assert "after epoch 1" in monitor._repr_html_()
