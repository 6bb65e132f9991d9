"""Every estimator is made from YAML by its class path."""

import pytest
from jsonargparse import ArgumentParser

from lightning_tansens.estimators import Calibrated, Estimator, MeasureRatio, default_estimators
from lightning_tansens.estimators.calibrated import Masked
from lightning_tansens.estimators.headline import Blur

ROOM = "lightning_tansens.estimators"
BY_KEY = {
    "atc_entropy": {"score": "entropy"},
    "atc_ensemble": {"score": "ensemble"},
    "cot_ensemble": {"probabilities": "ensemble"},
    "agreement_line_s": {"form": "S"},
}


def parsed(*configured):
    parser = ArgumentParser()
    parser.add_argument("--estimators", type=list[Estimator])
    make = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its older name
    return make(parser.parse_object({"estimators": list(configured)})).estimators


@pytest.mark.parametrize("estimator", default_estimators(), ids=lambda estimator: estimator.key)
def test_the_default_ones(estimator):
    name, arguments = type(estimator).__name__, BY_KEY.get(estimator.key, {})
    (found,) = parsed({"class_path": f"{ROOM}.{name}", "init_args": arguments})
    assert (type(found), found.key) == (type(estimator), estimator.key)


def test_those_that_are_built_of_others():
    ratio, calibrated = parsed(
        {
            "class_path": f"{ROOM}.MeasureRatio",
            "init_args": {
                "measure": {"class_path": "lightning_tansens.metrics.EmpiricalSensitivity"},
                "accuracy_form": "ratio",
            },
        },
        {
            "class_path": f"{ROOM}.Calibrated",
            "init_args": {
                "copies": [
                    {"class_path": f"{ROOM}.calibrated.Masked", "init_args": {"share": share}} for share in (0.1, 0.2, 0.3)
                ],
                "features": ["entropy"],
            },
        },
    )
    assert isinstance(ratio, MeasureRatio)
    assert (ratio.key, ratio.accuracy_form) == ("empirical", "ratio")
    assert isinstance(calibrated, Calibrated)
    assert calibrated.copies == (Masked(0.1), Masked(0.2), Masked(0.3))


def test_the_headline_with_what_is_known():
    (found,) = parsed(
        {
            "class_path": f"{ROOM}.Headline",
            "init_args": {
                "class_shares": "same",
                "copies": [
                    {"class_path": f"{ROOM}.headline.Blur", "init_args": {"sigma": 1.0}},
                    {"class_path": f"{ROOM}.calibrated.Masked", "init_args": {"share": 0.2}},
                ],
                "seed": 3,
                "copied_samples": 64,
            },
        }
    )
    assert (found.class_shares, found.copies, found.seed) == ("same", (Blur(1.0), Masked(0.2)), 3)
    assert found.copied_samples == 64
    for stated in ("auto", None):
        (found,) = parsed({"class_path": f"{ROOM}.Headline", "init_args": {"copied_samples": stated}})
        assert found.copied_samples == stated


def test_a_criterion_by_its_path():
    (found,) = parsed({"class_path": f"{ROOM}.PseudoLabelLoss", "init_args": {"criterion": "torch.nn.functional.mse_loss"}})
    assert found.criterion.__name__ == "mse_loss"
