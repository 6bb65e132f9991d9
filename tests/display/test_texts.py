"""The measures explain themselves."""

import pytest

from lightning_tansens import metrics
from lightning_tansens.metrics.base import Measure
from lightning_tansens.show.texts import describe

MEASURES = [
    measure
    for name in metrics.__all__
    if issubclass(measure := getattr(metrics, name), Measure) and isinstance(getattr(measure, "key", None), str)
]


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.key)
def test_every_measure_has_a_sentence_and_a_formula(measure):
    lines = describe(measure.key, measure.__new__(measure)).splitlines()
    assert lines[0].startswith(f"**{measure.key}**: ")
    assert lines[0].endswith(".")
    assert lines[2].startswith("    ")
    assert not any(mark in line for line in lines for mark in (".. math", ":class:", ":func:", "Args:"))


def test_the_equation_is_linked():
    text = describe("empirical", metrics.EmpiricalSensitivity())
    assert text.endswith("Eqs. 3 and 8 of [Daróczy 2022](https://doi.org/10.3390/math10071123)")


def test_without_a_docstring_there_is_the_name():
    assert describe("mine", object.__new__(type("Mine", (), {}))) == "**mine**: "
