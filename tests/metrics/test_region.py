"""The region form of Eq. 8 over batches and processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.active_nodes import preactivations
from lightning_tansens.metrics import RegionSensitivity
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, assert_equal, fed


def scores(net, inputs):
    """log P(A(x)|x) and Σ log n_i of each sample, from the preactivations themselves."""
    hidden = [h.flatten(1).double() for h in preactivations(net, inputs)]
    probability = sum(F.logsigmoid(h.abs()).sum(1) for h in hidden)
    return probability, sum((h > 0).sum(1).double().log() for h in hidden)


def half_dead():
    """A network whose only hidden unit is active for positive inputs."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
    nn.init.ones_(net[0].weight)
    return net


@pytest.mark.parametrize("split", SPLITS)
def test_the_means(split):
    measure = fed(RegionSensitivity(), split)
    probability, paths = scores(NET, INPUTS)
    values = measure.values()
    assert_equal(values["region_log_probability"], probability.mean())
    assert_equal(values["region_log_paths"], paths.mean())
    assert_equal(values["region"], (probability + paths).mean())
    assert values["region_dead"] == 0
    assert_equal(measure.compute(), values["region"])
    torch.testing.assert_close(measure.distributions()[""].double(), probability + paths, rtol=1e-6, atol=0)


def test_samples_without_an_active_path_are_left_out():
    inputs = torch.tensor([[2.0], [-1.0], [3.0], [-5.0], [-2.0]])
    measure = RegionSensitivity()
    measure.update(half_dead(), inputs[:2], [4, 0])
    measure.update(half_dead(), inputs[2:], [1, 2, 3])
    values = measure.values()
    assert values["region_dead"] == pytest.approx(0.6)
    assert values["region_log_paths"] == 0
    assert values["region"] == pytest.approx(float(F.logsigmoid(torch.tensor([2.0, 3.0])).mean()))
    assert measure.influence().positions.tolist() == [4, 1]


def test_no_sample_has_an_active_path():
    measure = RegionSensitivity()
    measure.update(half_dead(), -torch.ones(2, 1))
    assert measure.influence() is None
    assert measure.standard_error() is None
    assert math.isnan(measure.compute())
    values = {"region": float(measure.compute())}
    with pytest.raises(UndefinedEstimateError, match="on one of the sets no sample has an active path"):
        measure.log_ratio(values, {"region": -3.0})


@pytest.mark.parametrize("form", ["log", "linear"])
def test_standard_errors(form):
    measure = fed(RegionSensitivity(form), [5, 7])
    score = sum(scores(NET, INPUTS))
    error = float(score.std()) / math.sqrt(len(score))
    assert measure.standard_error() == pytest.approx(error, rel=1e-5)
    moved = fed(RegionSensitivity(form))
    effects = moved.influence().values
    # the derivative of the factor's logarithm by the mean: 1/mean for the ratio of logarithms, 1 for "linear"
    slope = 1 / float(score.mean()) if form == "log" else 1.0
    torch.testing.assert_close(effects, slope * (score - score.mean()), rtol=0, atol=1e-5)


def test_factors():
    now, before = {"region": -6.0}, {"region": -3.0}
    assert RegionSensitivity().log_ratio(now, before) == pytest.approx(math.log(2))
    assert RegionSensitivity("linear").log_ratio(now, before) == -3
    with pytest.raises(UndefinedEstimateError, match=r"the mean logarithms are 1 and -3; .*\(form='linear'\) needs none"):
        RegionSensitivity().log_ratio({"region": 1.0}, before)
    assert RegionSensitivity("linear").log_ratio({"region": 1.0}, before) == 4
    with pytest.raises(ValueError, match=r"form: expected one of \['log', 'linear'\], but got 'both'"):
        RegionSensitivity("both")
