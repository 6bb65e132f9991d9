"""The mean Fisher–Rao norm over batches and processes, and Eq. 10."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tansens.errors import UndefinedEstimateError, UnsupportedNetworkError
from lightning_tansens.functional.fisher_rao import fisher_rao_norms
from lightning_tansens.metrics.fisher_rao import FisherRaoSensitivity
from tests.boring import fit, make_monitor, measured
from tests.cases import Lambda
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, assert_equal, fed, gathered

CRITERIA = {"default": None, "function": F.cross_entropy, "module": nn.MultiMarginLoss()}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_mean_of_the_norms(split, criterion):
    norms = fisher_rao_norms(NET, INPUTS, criterion=CRITERIA[criterion])
    measure = fed(FisherRaoSensitivity(CRITERIA[criterion]), split)
    assert list(measure.values()) == ["fisher_rao"]
    torch.testing.assert_close(measure.compute(), norms.mean(), rtol=1e-12, atol=0)
    assert measure.needs_data
    assert not list(measure.modules())[1:]


def test_a_sum_over_classes_of_means_over_samples():
    logits = NET.eval()(INPUTS).detach()
    p = logits.softmax(1)
    expected = sum((((p - F.one_hot(torch.tensor(j), 3)) * logits).sum(1) ** 2).mean() for j in range(3))
    assert_equal(fed(FisherRaoSensitivity()).compute(), expected)


def test_output():
    model = Lambda(lambda m, x: {"logits": m.net(x)}, net=NET)
    measure = fed(FisherRaoSensitivity(output=lambda out: out["logits"]), model=model)
    assert_equal(measure.compute(), fed(FisherRaoSensitivity()).compute())
    assert_equal(measure.compute(), fed(FisherRaoSensitivity(), model=model).compute())  # logits are found by their name
    several = Lambda(lambda m, x: {"near": m.net(x), "far": m.net(x)}, net=NET)
    with pytest.raises(UnsupportedNetworkError, match="pass output=callable that picks it"):
        fed(FisherRaoSensitivity(), model=several)


def test_standard_error_and_influence():
    norms = fisher_rao_norms(NET, INPUTS)
    measure = fed(FisherRaoSensitivity(), [5, 7])
    assert measure.standard_error() == pytest.approx(float(norms.std()) / math.sqrt(12), rel=1e-5)
    expected = norms / norms.mean() - 1
    torch.testing.assert_close(measure.influence().values, expected, rtol=0, atol=1e-6)  # kept in single precision
    zeros = fed(FisherRaoSensitivity(), model=Lambda(lambda m, x: torch.zeros(len(x), 2)))
    assert zeros.compute() == 0
    assert zeros.influence() is None


@pytest.mark.parametrize("split", [[6, 6], [3, 4, 5], [11, 0, 1], [0, 12]])
def test_sync(split):
    measures = [FisherRaoSensitivity() for _ in split]
    for measure, part, positions in zip(measures, INPUTS.split(split), torch.arange(12).split(split)):
        if len(part):
            measure.update(NET, part, positions.tolist())
    measure, whole = measures[0], fed(FisherRaoSensitivity())
    with measure.sync_context(dist_sync_fn=gathered(*measures), distributed_available=lambda: True):
        assert_equal(measure.values()["fisher_rao"], whole.compute())
        assert measure.standard_error() == pytest.approx(whole.standard_error(), rel=1e-5)
    assert measure.count == split[0]


def test_reset_clone_pickle_and_forward():
    measure = fed(FisherRaoSensitivity(nn.CrossEntropyLoss()))
    expected = measure.compute()
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure)):
        assert torch.equal(other.compute(), expected)
        other.reset()
        assert torch.equal(fed(other).compute(), expected)
    first = FisherRaoSensitivity()
    assert_equal(first(NET, INPUTS[:5]), fed(FisherRaoSensitivity(), [5], INPUTS[:5]).compute())
    first(NET, INPUTS[5:])
    assert_equal(first.compute(), expected)


def test_equation_10():
    measure = FisherRaoSensitivity()
    assert measure.log_ratio({"fisher_rao": 6.0}, {"fisher_rao": 2.0}) == pytest.approx(math.log(3))
    with pytest.raises(UndefinedEstimateError, match="the means of fisher_rao are 0 and 1; their ratio is an estimate only"):
        measure.log_ratio({"fisher_rao": 0.0}, {"fisher_rao": 1.0})


def test_in_a_fit():
    monitor = make_monitor(measures=[FisherRaoSensitivity()])
    trainer = fit(monitor)
    keys = {"fisher_rao/train", "fisher_rao/test", "test_loss/fisher_rao", "test_loss/fisher_rao_stderr"}
    assert keys <= measured(trainer)
    row = monitor.history[-1]
    ratio = row["tansens/fisher_rao/test"] / row["tansens/fisher_rao/train"]
    assert row["tansens/test_loss/fisher_rao"] == pytest.approx(ratio * row["tansens/train_loss"])
