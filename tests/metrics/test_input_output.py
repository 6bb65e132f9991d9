"""The mean input–output sensitivity over batches and processes, and Eq. 9."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from lightning_tansens.errors import UndefinedEstimateError, UnsupportedNetworkError
from lightning_tansens.functional.input_output import input_output_norms
from lightning_tansens.metrics.input_output import InputOutputSensitivity
from tests.boring import fit, make_monitor, measured
from tests.cases import Lambda
from tests.metrics.test_metrics import INPUTS, NET, SPLITS, assert_equal, fed, gathered
from tests.networks import COVERED


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("outputs", ["sum", "each", torch.tensor([1.0, -2.0, 0.5])], ids=["sum", "each", "weighting"])
def test_the_mean_of_the_norms(split, outputs):
    norms = input_output_norms(NET, INPUTS, outputs=outputs)
    measure = fed(InputOutputSensitivity(outputs), split)
    assert list(measure.values()) == ["input_output"]
    torch.testing.assert_close(measure.compute(), norms.mean(), rtol=1e-12, atol=0)
    assert measure.distributions() == {}
    assert measure.part_values() == {}
    assert measure.note() is None
    assert measure.needs_data


def test_all_outputs_by_default():
    assert_equal(fed(InputOutputSensitivity()).compute(), input_output_norms(NET, INPUTS, outputs="each").mean())


@pytest.mark.parametrize("name", ["dict", "tuple of outputs", "embedding"])
def test_inputs_and_outputs_of_every_kind(name):
    example = COVERED[name]
    model, inputs = example.make()
    measure = InputOutputSensitivity(wrt=example.wrt, output=example.output)
    measure.prepare(model, inputs)
    measure.update(model, inputs)
    expected = input_output_norms(model, inputs, wrt=example.wrt, output=example.output)
    assert_equal(measure.compute(), expected.mean())


@pytest.mark.parametrize("split", [[12], [5, 7]])
def test_standard_error(split):
    norms = input_output_norms(NET, INPUTS)
    measure = fed(InputOutputSensitivity(), split)
    assert measure.standard_error() == pytest.approx(float(norms.std()) / math.sqrt(12), rel=1e-5)
    influence = measure.influence()
    torch.testing.assert_close(influence.values, norms / norms.mean() - 1, rtol=0, atol=1e-6)  # kept in single precision
    assert influence.positions.tolist() == list(range(12))
    assert influence.block == 1
    placed = InputOutputSensitivity()
    placed.update(NET, INPUTS[:3], [7, 2, 5])
    assert placed.influence().positions.tolist() == [7, 2, 5]


def test_without_samples_and_without_sensitivity():
    assert InputOutputSensitivity().influence() is None
    assert InputOutputSensitivity().standard_error() is None
    constant = Lambda(lambda m, x: torch.zeros(len(x), 2))
    measure = fed(InputOutputSensitivity(), model=constant)
    assert measure.compute() == 0
    assert measure.influence() is None


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_update():
    assert torch.isnan(InputOutputSensitivity().compute())


@pytest.mark.parametrize("split", [[6, 6], [3, 4, 5], [11, 0, 1], [0, 12]])
def test_sync(split):
    measures = [InputOutputSensitivity() for _ in split]
    for measure, part, positions in zip(measures, INPUTS.split(split), torch.arange(12).split(split)):
        if len(part):
            measure.update(NET, part, positions.tolist())
    measure, whole = measures[0], fed(InputOutputSensitivity())
    with measure.sync_context(dist_sync_fn=gathered(*measures), distributed_available=lambda: True):
        assert measure.count == 12
        assert_equal(measure.values()["input_output"], whole.compute())
        assert measure.standard_error() == pytest.approx(whole.standard_error(), rel=1e-5)
    assert measure.count == split[0]


def test_reset_clone_pickle_and_forward():
    measure = fed(InputOutputSensitivity())
    expected = measure.compute()
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        assert torch.equal(other.compute(), expected)
    measure.reset()
    assert measure.influence() is None
    assert torch.equal(fed(measure).compute(), expected)
    assert measure.rows().dtype == torch.float64
    assert {state.dtype for state in measure.samples} == {torch.float64}
    first = InputOutputSensitivity()
    assert_equal(first(NET, INPUTS[:5]), fed(InputOutputSensitivity(), [5], INPUTS[:5]).compute())
    first(NET, INPUTS[5:])
    assert_equal(first.compute(), expected)
    assert not first.compute().requires_grad


def test_equation_9():
    measure = InputOutputSensitivity()
    assert measure.log_ratio({"input_output": 6.0}, {"input_output": 2.0}) == pytest.approx(math.log(3))
    for target, reference in [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0)]:
        with pytest.raises(UndefinedEstimateError, match=r"the means of input_output are .*only if both are positive"):
            measure.log_ratio({"input_output": target}, {"input_output": reference})


def test_refusals():
    with pytest.raises(ValueError, match="outputs: expected 'sum', 'each'"):
        InputOutputSensitivity("all")
    mixing = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(UnsupportedNetworkError, match="normalises by the batch"):
        InputOutputSensitivity().update(mixing, torch.randn(3, 4))


def test_in_a_fit():
    monitor = make_monitor(measures=[InputOutputSensitivity()])
    trainer = fit(monitor)
    keys = {"input_output/train", "input_output/test", "test_loss/input_output", "test_loss/input_output_stderr"}
    assert keys <= measured(trainer)
    row = monitor.history[-1]
    ratio = row["tansens/input_output/test"] / row["tansens/input_output/train"]
    assert row["tansens/test_loss/input_output"] == pytest.approx(ratio * row["tansens/train_loss"])
