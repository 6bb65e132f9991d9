"""The product of the spectral norms over time, and Eq. 11."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional import layer_norms as functional
from lightning_tansens.functional.layer_norms import spectral_norms
from lightning_tansens.metrics.spectral_norm import SpectralNormSensitivity
from lightning_tansens.metrics.states import copied
from tests.boring import Recorder, fit, make_monitor, measured
from tests.boring import mlp as boring_mlp
from tests.cases import mlp
from tests.metrics.test_metrics import INPUTS, NET, assert_equal, fed, gathered


def log_product(model):
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return sum(math.log(np.linalg.norm(layer.weight.detach().numpy(), 2)) for layer in layers)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2)).double()


@pytest.mark.parametrize("updates", [1, 3])
def test_the_logarithm_of_the_product(updates):
    measure = SpectralNormSensitivity()
    for _ in range(updates):
        measure.update(NET)
    assert list(measure.values()) == ["spectral_norm"]
    assert float(measure.compute()) == pytest.approx(log_product(NET), rel=1e-6)
    layers = measure.part_values()
    assert list(layers) == ["0", "2", "4"]
    for name, norm in layers.items():
        assert float(norm) == pytest.approx(np.linalg.norm(NET[int(name)].weight.detach().numpy(), 2), rel=1e-6)
    assert not measure.needs_data
    assert measure.distributions() == {}
    assert measure.influence() is None
    assert measure.standard_error() is None


def test_depth_does_not_overflow():
    model = mlp(*[20] * 40, bias=False)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 1e30
    measure = SpectralNormSensitivity()
    measure.update(model)
    assert 2600 < float(measure.compute()) == pytest.approx(log_product(model), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_an_update_there_is_no_value():
    assert torch.isnan(SpectralNormSensitivity().compute())
    assert SpectralNormSensitivity().part_values() == {}


def test_sizes_and_vectors_outlive_copies_and_resets(monkeypatch):
    starts = []
    lanczos = functional._lanczos

    def recording(apply, shape, device, known, tolerance):
        starts.append(known)
        return lanczos(apply, shape, device, known, tolerance)

    monkeypatch.setattr(functional, "_lanczos", recording)
    monkeypatch.setattr(functional, "SMALL", 10)
    model, measure = convolutional(), SpectralNormSensitivity()
    with pytest.raises(ValueError, match=r"call the measure's prepare\(model, inputs\) first"):
        measure.update(model)
    measure.prepare(model, torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    expected = [float(norm) for norm in spectral_norms(model, torch.zeros(1, 1, 8, 8, dtype=torch.float64)).values()]
    starts.clear()
    for turn, fresh in enumerate([measure, copied(measure), measure.clone(), copy.deepcopy(measure), measure]):
        fresh.reset()
        fresh.update(model)
        assert [float(norm) for norm in fresh.part_values().values()] == pytest.approx(expected, rel=1e-6)
        assert [known is not None for known in starts] == [turn > 0]
        starts.clear()
    assert "cache" not in measure.state_dict()
    assert set(measure.metric_state) == {"log_norms", "count", "unusable"}


def test_prepare_on_another_size():
    model, measure = convolutional()[:1], SpectralNormSensitivity()
    values = {}
    for size in (2, 9):
        inputs = torch.zeros(1, 1, size, size, dtype=torch.float64)
        measure.reset()
        measure.prepare(model, inputs)
        measure.update(model)
        values[size] = float(measure.part_values()["0"])
        assert values[size] == pytest.approx(float(spectral_norms(model, inputs)["0.weight"]), rel=1e-6)
    assert values[2] < 0.99 * values[9]
    measure.reset()
    measure.update(model, torch.zeros(1, 1, 2, 2, dtype=torch.float64))  # inputs of an update count
    assert float(measure.part_values()["0"]) == pytest.approx(values[2], rel=1e-6)


def test_reset_clone_pickle_and_forward():
    measure = fed(SpectralNormSensitivity())
    expected = measure.compute()
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        assert torch.equal(other.compute(), expected)
        assert other.part_values() == measure.part_values()
        other.update(NET)
        assert_equal(other.compute(), expected)
    measure.reset()
    assert torch.equal(fed(measure).compute(), expected)
    first = SpectralNormSensitivity()
    assert_equal(first(NET, INPUTS[:5]), expected)
    assert_equal(first(NET, INPUTS[5:]), expected)
    assert_equal(first.compute(), expected)
    assert_equal(sum(first.part_values().values()), sum(measure.part_values().values()))


def test_a_network_may_change_its_layers_between_measurements():
    measure = SpectralNormSensitivity()
    measure.update(NET)
    measure.reset()
    measure.update(NET[:3])
    assert list(measure.part_values()) == ["0", "2"]
    assert float(measure.compute()) == pytest.approx(log_product(NET[:3]), rel=1e-6)


def test_sync():
    measure = fed(SpectralNormSensitivity(), [12])
    expected = measure.compute()
    measure.dist_sync_fn, measure.distributed_available_fn = gathered(measure, measure.clone()), lambda: True
    measure._computed = None
    assert_equal(measure.compute(), expected)


def test_equation_11():
    measure = SpectralNormSensitivity()
    now, before = {"spectral_norm": 3.0}, {"spectral_norm": 2.5}
    assert measure.log_ratio(now, before) == -0.5
    model = copy.deepcopy(NET)
    measure.update(model)
    first = {"spectral_norm": float(measure.compute())}
    with torch.no_grad():
        model[0].weight *= 2
        model[2].weight *= 4
    measure.reset()
    measure.update(model)
    second = {"spectral_norm": float(measure.compute())}
    assert math.exp(measure.log_ratio(second, first)) == pytest.approx(1 / 8, rel=1e-5)
    for pair in [(-math.inf, 1.0), (1.0, -math.inf), (math.nan, 1.0)]:
        with pytest.raises(UndefinedEstimateError, match=r"log Π ‖W‖₂ was .* and is .*that is, if no layer is zero"):
            measure.log_ratio({"spectral_norm": pair[0]}, {"spectral_norm": pair[1]})


def test_a_layer_of_zeros():
    model = copy.deepcopy(NET)
    nn.init.zeros_(model[2].weight)
    measure = SpectralNormSensitivity()
    measure.update(model)
    assert measure.compute() == -math.inf
    assert float(measure.part_values()["2"]) == 0
    assert float(measure.part_values()["0"]) > 0


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"tolerance: expected a number between 0 and 1, both excluded, but got 2\.0"):
        SpectralNormSensitivity(tolerance=2.0)


def test_the_tolerance_is_used(monkeypatch):
    used = []
    monkeypatch.setattr(functional, "check_share", lambda name, value: used.append(value))
    SpectralNormSensitivity(tolerance=1e-3).update(NET)
    assert used == [1e-3]


def test_in_a_fit():
    monitor, recorder = make_monitor(measures=[SpectralNormSensitivity()]), Recorder()
    trainer = fit(monitor, recorder)
    assert {"spectral_norm", "test_loss/spectral_norm", "test_accuracy/spectral_norm"} <= measured(trainer)
    products = []
    for row, weights in zip(monitor.history, recorder.weights, strict=True):
        network = boring_mlp()
        network.load_state_dict({name.removeprefix("network."): weight for name, weight in weights.items()})
        products.append(log_product(network))
        assert row["tansens/spectral_norm"] == pytest.approx(products[-1], rel=1e-5)
    last = monitor.history[-1]
    ratio = math.exp(products[0] - products[1])
    assert last["tansens/test_loss/spectral_norm"] == pytest.approx(ratio * last["tansens/train_loss"], rel=1e-5)
