"""What is measured on a GPU is what is measured on the CPU. Skipped without a CUDA device."""

import pytest
import torch

from lightning_tansens.estimators import Calibrated, default_estimators
from lightning_tansens.functional import active_nodes, log_max_weights, tangent_sensitivity
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, LayerwiseNormSensitivity
from lightning_tansens.tangent.batches import map_tensors
from tests.boring import BoringData, BoringModule, Recorder, fit, make_monitor, untimed
from tests.cases import CHAINS, Case, mlp
from tests.guarantees.recording import full_monitor
from tests.networks import COVERED, UNCOVERED
from tests.test_monitor_training import Noisy, assert_same

DEVICE, ACCELERATOR = "cuda", "gpu"

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

#: How far two devices may differ, relative to each value.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}

METHODS = ["exact", "input_space", "parameter_space"]

VALUES = [
    *[(name, "exact") for name in CHAINS],
    *[(name, method) for name in COVERED for method in METHODS],
    *[(name, method) for name in UNCOVERED for method in ("exact", "parameter_space")],
]


def set_tf32(products, convolutions):
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def tf32_settings():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _full_precision():
    before = tf32_settings()
    set_tf32("highest", False)  # convolutions take TF32 unless told otherwise
    yield
    set_tf32(*before)


def make(name, device, dtype=torch.float64):
    """A network and a batch on a device, and the options that the functions take."""
    chain = CHAINS.get(name)
    example = chain or (COVERED | UNCOVERED)[name]
    model, inputs = example.make()
    placed = map_tensors(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype), inputs)
    return model.to(device, dtype), placed, {"outputs": "each"} if chain else example.options


def assert_close(actual, expected, rtol):
    assert actual.device.type == DEVICE
    torch.testing.assert_close(actual.cpu(), expected, rtol=rtol, atol=1e-20)


# ------------------------------------------------------------------------------------------------------ functions


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("name", "method"), VALUES)
def test_tangent_sensitivity(name, method, dtype, request):
    if name == "weight norm" and dtype == torch.float64:
        request.applymarker(pytest.mark.xfail(reason="CUDA's kernel for it is 2.5e-8 off in double precision"))
    values = []
    for device in (DEVICE, "cpu"):
        model, inputs, options = make(name, device, dtype)
        generator = torch.Generator().manual_seed(5)
        values.append(tangent_sensitivity(model, inputs, method=method, num_probes=2, generator=generator, **options))
    assert_close(*values, rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("name", ["MLP with tanh", "residual in place", "ViT, batch first", "recurrent loop", "PReLU"])
def test_active_nodes_and_layer_norms(name):
    (model, inputs, _), (copied, same, _) = (make(name, device) for device in (DEVICE, "cpu"))
    assert_close(active_nodes(model, inputs), active_nodes(copied, same), rtol=0)
    assert torch.equal(log_max_weights(model), log_max_weights(copied))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["dropout modules", "residual in place", "ViT, batch first"])
def test_model_and_random_state_are_left_as_they_were(name, method):
    model, inputs, options = make(name, DEVICE)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(0)
    expected = torch.rand(4, device=DEVICE)
    torch.manual_seed(0)
    tangent_sensitivity(model, inputs, method=method, **options)
    assert torch.equal(torch.rand(4, device=DEVICE), expected)
    assert_same(dict(model.state_dict()), state)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("products", "rtol"), [("highest", 1e-5), ("high", 1e-3)])
def test_wide_networks_with_and_without_tf32(products, rtol):
    set_tf32(products, True)
    model, inputs = Case(lambda: mlp(3072, 3000, 3000, 3000, 10), (3072,)).make(samples=32)
    model, inputs = model.to(DEVICE), inputs.to(DEVICE)
    expected = tangent_sensitivity(model, inputs, outputs="each", method="exact")
    actual = tangent_sensitivity(model.float(), inputs.float(), outputs="each", method="exact")
    assert actual.dtype == torch.float32
    # of the mean: with TF32 a unit of a sample may be active that is not, which is 5e-3 of that sample's value
    torch.testing.assert_close(actual.double().mean(0), expected.mean(0), rtol=rtol, atol=0)
    assert tf32_settings() == (products, True)


# -------------------------------------------------------------------------------------------------------- metrics

MEASURES = {
    "empirical, layers": lambda: EmpiricalSensitivity(per_layer=True),
    "empirical, each output": lambda: EmpiricalSensitivity(outputs="each", method="input_space", num_probes=2),
    "empirical, shared probes": lambda: EmpiricalSensitivity(method="parameter_space"),
    "active nodes": ActiveNodeSensitivity,
    "layer norm": LayerwiseNormSensitivity,
}


def filled(measure, model, inputs):
    """A measure after two batches, and everything that is read from it."""
    measure.prepare(model, inputs[:1])
    for part in inputs.split([40, 30]):
        measure.update(model, part)
    values = {name: float(value) for name, value in {**measure.values(), **measure.part_values()}.items()}
    samples = {part: numbers.tolist() for part, numbers in measure.distributions().items()}.get("", [])
    return values, samples, measure.standard_error() or 0.0  # the weights' measure has none


@pytest.mark.parametrize("home", [DEVICE, "cpu"])
@pytest.mark.parametrize("make_measure", MEASURES.values(), ids=MEASURES)
def test_metrics(make_measure, home):
    model, inputs = Case(lambda: mlp(4, 6, 5, 3)).make(samples=70)
    values, samples, error = filled(make_measure(), model, inputs)
    measure = make_measure().to(home)
    values_there, samples_there, error_there = filled(measure, model.to(DEVICE), inputs.to(DEVICE))
    assert measure.compute().device.type == home
    assert values_there == pytest.approx(values, rel=1e-9)
    assert samples_there == pytest.approx(samples, rel=1e-9)
    assert error_there == pytest.approx(error, rel=1e-9)


# -------------------------------------------------------------------------------------------------------- monitor


@pytest.mark.parametrize(("precision", "rel"), [("32-true", 1e-4), ("64-true", 1e-9)])
@pytest.mark.parametrize("method", METHODS)
def test_monitor(method, precision, rel):
    histories = []
    for accelerator in (ACCELERATOR, "cpu"):
        measures = [EmpiricalSensitivity(method=method, per_layer=True), ActiveNodeSensitivity(), LayerwiseNormSensitivity()]
        monitor = make_monitor(measures=measures, compare_with_labels=True)
        module = lambda: BoringModule(lr=0.0)  # noqa: E731  the weights are the same on both
        trainer = fit(monitor, module=module, data=BoringData(noise=True), accelerator=accelerator, precision=precision)
        histories.append(untimed(monitor.history))
    assert trainer.callback_metrics
    assert len(histories[0]) == 2
    for row, expected in zip(*histories, strict=True):
        assert row == pytest.approx(expected, rel=rel)


def test_monitor_with_every_measure_and_estimator():
    histories = []
    for accelerator in (ACCELERATOR, "cpu"):
        monitor = full_monitor(estimators=[*default_estimators(), Calibrated()], num_samples=9, num_loss_samples=16)
        module = lambda: BoringModule(lr=0.0)  # noqa: E731  the weights are the same on both
        fit(monitor, module=module, data=BoringData(noise=True), accelerator=accelerator, precision="64-true")
        histories.append(untimed(monitor.history))
    assert "tansens/test_loss/calibrated" in histories[0][0]
    for row, expected in zip(*histories, strict=True):
        assert row == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.fixture
def _deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("method", METHODS)
def test_training_is_bitwise_the_same(method):
    runs = []
    for monitors in ([], [make_monitor(measures=[EmpiricalSensitivity(method=method), ActiveNodeSensitivity()])]):
        recorder = Recorder()
        options = {"accelerator": ACCELERATOR, "deterministic": True, "max_epochs": 3}
        fit(*monitors, recorder, module=Noisy, data=BoringData(noise=True), **options)
        runs.append(recorder)
    assert len(monitors[0].history) == 3
    assert runs[0].losses[0][0] != runs[0].losses[1][0]
    assert_same(runs[0].losses, runs[1].losses)
    assert_same(runs[0].epochs, runs[1].epochs)
