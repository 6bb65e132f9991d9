"""The measures explain themselves."""

import pytest

from lightning_tansens import metrics
from lightning_tansens.metrics.base import Measure
from lightning_tansens.show.words import describe

MEASURES = [
    measure
    for name in metrics.__all__
    if issubclass(measure := getattr(metrics, name), Measure) and isinstance(getattr(measure, "key", None), str)
]


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.key)
def test_every_measure_has_a_sentence(measure):
    text = describe(measure.__new__(measure))
    assert text.startswith(f"**{measure.key}**: ")
    assert text.endswith(".")
    assert "\n" not in text
    assert not any(mark in text for mark in (".. math", ":class:", ":func:", "Args:", "``"))


def test_without_a_docstring_there_is_the_name():
    assert describe(object.__new__(type("Mine", (), {"key": "mine"}))) == "**mine**: "
