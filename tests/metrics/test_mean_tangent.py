"""The norm of the mean tangent sensitivity over batches, processes and in a fit."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UndefinedEstimateError, UnsupportedNetworkError
from lightning_tansens.functional.mean_tangent import LARGEST
from lightning_tansens.metrics.mean_tangent import MeanTangentSensitivity
from lightning_tansens.tangent.sensitivity import tangent_sensitivity
from tests.boring import fit, make_monitor, measured
from tests.cases import Lambda, frozen, mlp
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, assert_equal, synced
from tests.oracle import tangent_matrices

WEIGHTING = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def expected(weighting=None):
    """From nested autograd, sample by sample."""
    matrices = torch.cat(list(tangent_matrices(NET, INPUTS, weighting).values()), 1)
    return float(matrices.mean(0).norm())


def fed(split=(12,), inputs=INPUTS, measure=None, model=NET):
    measure = measure or MeanTangentSensitivity()
    for part in inputs.split(list(split)):
        measure.update(model, part)
    return measure


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("weighting", [None, WEIGHTING])
def test_against_nested_autograd(split, weighting):
    measure = fed(split, measure=MeanTangentSensitivity("sum" if weighting is None else weighting))
    assert list(measure.values()) == ["mean_tangent"]
    assert float(measure.compute()) == pytest.approx(expected(weighting), rel=1e-12)
    assert measure.part_values() == measure.distributions() == {}
    assert measure.influence() is measure.standard_error() is measure.note() is None


def test_it_is_no_mean_of_norms():
    squares = tangent_sensitivity(NET, INPUTS, method="exact")
    assert float(fed().compute()) < 0.9 * float(squares.mean().sqrt())
    one = fed([1], INPUTS[:1])
    assert float(one.compute()) == pytest.approx(float(squares[0].sqrt()), rel=1e-9)
    # samples of opposite sensitivity cancel: of f = w x², ∂²f/∂w∂x = 2x
    square = Lambda(lambda m, x: m.weight * x.square(), weight=nn.Parameter(torch.ones(1)))
    assert float(fed([1, 1], torch.tensor([[3.0], [-3.0]]), model=square).compute()) == 0


@pytest.mark.parametrize("split", [[6, 6], [3, 4, 5], [11, 0, 1], [0, 12]])
def test_processes(split):
    measure, others = synced(MeanTangentSensitivity, split)
    own = measure.total.clone()
    with measure.sync_context(**others):
        assert float(measure.values()["mean_tangent"]) == pytest.approx(expected(), rel=1e-12)
        assert measure.count == 12
    assert torch.equal(measure.total, own)
    assert measure.count == split[0]


def test_single_precision():
    model = copy.deepcopy(NET).float()
    measure = fed([5, 7], INPUTS.float(), model=model)
    assert measure.total.dtype == torch.float64
    assert float(measure.compute()) == pytest.approx(expected(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_copies_and_forward():
    measure = fed([5, 7])
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        assert_equal(other.compute(), fed().compute())
    measure.reset()
    assert math.isnan(measure.compute())
    assert math.isnan(MeanTangentSensitivity().compute())
    for metric in (measure, MeanTangentSensitivity()):
        assert_equal(metric(NET, INPUTS[:5]), fed([5], INPUTS[:5]).compute())
        assert_equal(metric(NET, INPUTS[5:]), fed([7], INPUTS[5:]).compute())
        assert_equal(metric.compute(), fed().compute())
    assert not measure.compute().requires_grad


def test_states_are_moved_with_the_measure():
    measure = MeanTangentSensitivity().to("meta")
    measure._learn_shape(3, 4)
    assert measure.total.device.type == "meta"
    assert measure.total.shape == (3, 4)


def test_layers_may_be_unfrozen_between_measurements():
    model = frozen(copy.deepcopy(NET), "0.weight")
    measure = fed(model=model)
    part = float(measure.compute())
    model.requires_grad_(True)
    with pytest.raises(ValueError, match=r"expected matrices of P · D = \(59, 4\) as before, but got \(83, 4\); resize the"):
        measure.update(model, INPUTS)
    measure.reset()
    assert part < float(fed(model=model, measure=measure).compute()) == pytest.approx(expected(), rel=1e-12)


def test_wrt_and_output():
    model = Lambda(lambda m, x: {"logits": m.net(2 * m.stem(x))}, stem=nn.Flatten(), net=NET)
    measure = MeanTangentSensitivity(wrt="stem", output=lambda out: out["logits"])
    measure.prepare(model, INPUTS[:1])
    assert measure.total.shape == (83, 4)
    measure.update(model, INPUTS / 2)
    assert float(measure.compute()) == pytest.approx(2 * expected(), rel=1e-12)


@pytest.mark.parametrize("call", ["prepare", "update"])
def test_large_networks_are_refused(call):
    measure = MeanTangentSensitivity(max_entries=331)
    message = r"expected a network with P · D of at most 3.3e\+02, but Sequential has 83 · 4 = 3.3e\+02; use EmpiricalSens"
    with pytest.raises(ValueError, match=message):
        getattr(measure, call)(NET, INPUTS)
    assert measure.total.shape == ()
    getattr(MeanTangentSensitivity(max_entries=332), call)(NET, INPUTS)
    with pytest.raises(ValueError, match=r"at most 2.0e\+07, but Linear has 12000000 · 3000 = 3.6e\+10"):
        getattr(MeanTangentSensitivity(), call)(nn.Linear(3000, 4000, bias=False), torch.zeros(1, 3000))


def test_factors():
    measure = MeanTangentSensitivity()
    assert measure.log_ratio({"mean_tangent": 6.0}, {"mean_tangent": 2.0}) == pytest.approx(math.log(9))
    for target, reference in [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0)]:
        with pytest.raises(UndefinedEstimateError, match=r"the norms of the mean matrices are .*only if both are positive"):
            measure.log_ratio({"mean_tangent": target}, {"mean_tangent": reference})


def test_refusals():
    with pytest.raises(ValueError, match=r"outputs: expected 'sum' or a weighting .* got 'each'; pass the unit vector e_c"):
        MeanTangentSensitivity("each")
    with pytest.raises(ValueError, match="outputs: expected 'sum', 'each' or a weighting"):
        MeanTangentSensitivity("all")
    for entries in (0, 2.5, LARGEST + 1):
        with pytest.raises(ValueError, match=f"max_entries: expected an integer between 1 and {LARGEST}, but got {entries}"):
            MeanTangentSensitivity(max_entries=entries)
    with pytest.raises(UnsupportedNetworkError, match="Lambda mixes them"):
        MeanTangentSensitivity().update(Lambda(lambda m, x: m.net(x - x.mean(0)), net=mlp(4, 2)), torch.randn(3, 4))


def test_in_the_monitor():
    monitor = make_monitor(measures=[MeanTangentSensitivity()])
    keys = {key for key in measured(fit(monitor)) if "mean_tangent" in key}
    estimates = ("test_loss/mean_tangent", "test_accuracy/mean_tangent")
    assert keys == {"mean_tangent/train", "mean_tangent/test", *estimates}
    row = monitor.history[-1]
    ratio = row["tansens/mean_tangent/test"] / row["tansens/mean_tangent/train"]
    assert row["tansens/test_loss/mean_tangent"] == pytest.approx(ratio**2 * row["tansens/train_loss"])
    with pytest.raises(ValueError, match=r"expected a network with P · D of at most 1.0e\+02, but BoringModule has 51 · 4"):
        fit(make_monitor(measures=[MeanTangentSensitivity(max_entries=100)]))
