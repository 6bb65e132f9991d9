"""What is said of measures and of estimates."""

import pytest

from lightning_tansens import metrics
from lightning_tansens.metrics.base import Measure
from lightning_tansens.record import Estimate
from lightning_tansens.show.words import answer, describe
from tests.records import record, target

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


def test_a_doubt_about_error_rate_and_loss_is_said_once():
    off = "may be off by more than a factor of 1.6"
    few = "fewer than 3 earlier measurements"
    doubted = {"accuracies": {"estimate": Estimate(0.5, doubts=(few, f"the error rate {off}", "it may fail"))}}
    doubted["losses"] = {"estimate": Estimate(1.0, doubts=(few, f"the loss {off}"))}
    found = answer(record(targets=[target(**doubted)]), "test").doubts
    assert found == (few, f"error rate and loss {off}", "it may fail")
