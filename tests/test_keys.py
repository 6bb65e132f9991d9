"""The one place where a record becomes strings."""

import re

import pytest

from lightning_tansens.record import Estimate
from lightning_tansens.show.keys import Keys, check_set_names, flat_row
from tests.records import measure, record, target

FULL = record(
    3,
    1.5,
    step=41,
    name="val",
    accuracy=0.75,
    loss_stderr=0.125,
    measures=measure("empirical", 2.0, parts={"net.0": 1.0}, stderr=0.25, empirical_max=4.0),
    class_losses={0: 1.0},
    weights=measure("layer_norm", -3.0),
    seconds={"total": 0.5, "calibration": 0.25},
    targets=[
        target(
            "class",
            loss=1.75,
            losses={
                "trivial": Estimate(1.5, has_flag=False),
                "estimate": Estimate(1.6, 0.1, 1.4, 1.8, ("few samples",), "unsure"),
            },
            accuracies={"cot": Estimate(0.625, has_flag=False)},
            class_losses={0: 1.25},
            scores={"average_confidence": 0.5},
            correlations={"pearson/empirical": 0.5, "spearman/empirical/all/2": -0.5},
        )
    ],
)

ROW = {
    "epoch": 3,
    "step": 41,
    "t/empirical/val": 2.0,
    "t/empirical_max/val": 4.0,
    "t/empirical/val/net.0": 1.0,
    "t/empirical/val_stderr": 0.25,
    "t/layer_norm": -3.0,
    "t/class_loss/val/0": 1.0,
    "t/class_loss/class/0": 1.25,
    "t/average_confidence/class": 0.5,
    "t/val_loss": 1.5,
    "t/val_loss_stderr": 0.125,
    "t/val_accuracy": 0.75,
    "t/class_loss/trivial": 1.5,
    "t/class_loss/estimate": 1.6,
    "t/class_loss/estimate_stderr": 0.1,
    "t/class_loss/estimate_low": 1.4,
    "t/class_loss/estimate_high": 1.8,
    "t/class_loss/estimate_reliable": 0.0,
    "t/class_accuracy/cot": 0.625,
    "t/class_loss/actual": 1.75,
    "t/pearson/empirical/class": 0.5,
    "t/spearman/empirical/class/all/2": -0.5,
    "t/seconds": 0.5,
    "t/calibration_seconds": 0.25,
}


def test_everything_has_a_key_of_its_own():
    assert list(flat_row(FULL, Keys("t")).items()) == list(ROW.items())


def test_brief_rows_say_nothing_twice():
    """They have no standard errors, zeros and ones, parts of the cost, or what repeats the reference's own values."""
    left_out = {key for key in ROW if key.endswith(("_stderr", "_reliable"))} | {"t/calibration_seconds"}
    left_out |= {"t/class_loss/trivial"}
    assert flat_row(FULL, Keys("t"), brief=True) == {key: value for key, value in ROW.items() if key not in left_out}


def test_the_default_prefix():
    assert list(flat_row(FULL))[2:] == [f"tansens/{key.removeprefix('t/')}" for key in list(ROW)[2:]]


@pytest.mark.parametrize("name", ["train", "val", "reference", "all", "class", "", "a/b", 3])
def test_names_that_are_taken(name):
    message = r"test_dataloaders: expected names without '/' other than \['train', 'val', 'reference'\].*; rename that set"
    with pytest.raises(ValueError, match=message):
        check_set_names(["other", name])


@pytest.mark.parametrize("name", ["test_stderr", "x_low", "x_high", "x_reliable"])
def test_endings_of_keys_are_refused(name):
    with pytest.raises(ValueError, match=f"expected names that end in none of .* but got '{name}'; rename that set"):
        check_set_names(["test", name])


@pytest.mark.parametrize("names", [["a", "a?"], ["é", "è"], ["test", "test"]])
def test_names_that_loggers_show_alike_are_refused(names):
    message = f"loggers show both '{names[0]}' and '{re.escape(names[1])}' as '.*'; rename one of the sets"
    with pytest.raises(ValueError, match=message):
        check_set_names(names)


def test_other_names_are_taken():
    check_set_names(["test", "test_2", "blurred digits", "blurred_digits", "Standard_error", "test_loss"])
