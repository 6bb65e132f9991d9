"""The terms of the generalisation bound along real runs."""

import math

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import GeneralizationBoundMonitor
from lightning_tansens.functional import tangent_sensitivity
from tests.boring import BoringData, BoringModule, Recorder, fit, loader
from tests.processes import launch, several_processes
from tests.test_monitor_training import assert_same

KEYS = {
    *("C_TS", "C_GD", "K_x", "K_theta0", "K_grad0", "K_L", "distance", "max_distance", "slack"),
    *("loss_bound", "complexity", "complexity_of_distance", "initial", "confidence"),
}


class Descent(BoringModule):
    """Plain gradient descent on half squared error, without biases: what the theorem is about."""

    def __init__(self, outputs=1, lr=0.05):
        layers = nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, outputs, bias=False)
        super().__init__(nn.Sequential(*layers).double(), lr)
        self.before = []

    def training_step(self, batch, _):
        self.before.append([p.detach().clone() for p in self.network.parameters()])
        return (self(batch[0]) - batch[1]).square().sum(1).mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def points(outputs=1, samples=12):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    return TensorDataset(x, torch.randn(samples, outputs, generator=generator, dtype=torch.float64))


def make(**kwargs):
    return GeneralizationBoundMonitor(**{"loss": "half_squared", "num_samples": 100, "batch_size": 5, **kwargs})


@pytest.mark.parametrize("outputs", [1, 3])
def test_gradient_descent_stays_within_the_radius(outputs):
    """‖θ_T − θ_0‖ ≤ K_x C_TS C_GD for full-batch descent, and every term by hand."""
    module, data, monitor = Descent(outputs), points(outputs), make(sample_size=50, confidence=0.9)
    fit(monitor, module=module, data=DataLoader(data, batch_size=12), max_epochs=30, precision="64-true")
    x, y = data.tensors
    trajectory = [*module.before, [p.detach().clone() for p in module.network.parameters()]]
    start, sensitivity, descent, distances, last = trajectory[0], 0.0, 0.0, [], None
    for t, weights in enumerate(trajectory):
        with torch.no_grad():
            for parameter, value in zip(module.network.parameters(), weights, strict=True):
                parameter.copy_(value)
        sensitivity = max(sensitivity, float(tangent_sensitivity(module.network, x, outputs="each").max()) ** 0.5)
        residual = (module.network(x) - y).detach()
        distances.append(math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(weights, start, strict=True))))
        if t:
            last = monitor.history[t - 1]
            row = {key.removeprefix("tansens_bound/"): value for key, value in last.items()}
            assert row.keys() == {*KEYS, "epoch", "step"}
            radius = row["K_x"] * row["C_TS"] * row["C_GD"]
            assert row["distance"] == pytest.approx(distances[-1], rel=1e-12)
            assert row["max_distance"] == pytest.approx(max(distances), rel=1e-12)
            assert row["C_TS"] == pytest.approx(sensitivity, rel=1e-12)
            assert row["C_GD"] == pytest.approx(descent, rel=1e-12)
            assert 0 < row["distance"] <= radius
            assert row["slack"] == pytest.approx(radius / distances[-1])
            assert row["complexity"] == pytest.approx(2 * row["K_L"] * row["K_grad0"] * radius / 50**0.5)
            assert row["complexity_of_distance"] == pytest.approx(2 * row["K_L"] * row["K_grad0"] * max(distances) / 50**0.5)
            assert row["complexity_of_distance"] <= row["complexity"]
            assert row["confidence"] == pytest.approx(row["loss_bound"] * math.sqrt(2 * math.log(40) / 50))
        descent += 0.05 * float(residual.abs().sum(1).mean())
    assert row["K_x"] == pytest.approx(float(x.norm(dim=1).max()))
    assert monitor.history[0]["tansens_bound/K_theta0"] == last["tansens_bound/K_theta0"] > 0


def test_constants_at_the_start():
    module, data, monitor = Descent(), points(), make()
    start = [p.detach().clone() for p in module.network.parameters()]
    fit(monitor, module=module, data=DataLoader(data, batch_size=12), max_epochs=1, precision="64-true")
    network = Descent().network
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), start, strict=True):
            parameter.copy_(value)
    norms = []
    for sample in data.tensors[0]:
        gradients = torch.autograd.grad(network(sample[None]).sum(), list(network.parameters()))
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
    (row,) = monitor.history
    assert row["tansens_bound/K_grad0"] == pytest.approx(max(norms), rel=1e-12)
    assert row["tansens_bound/K_theta0"] == pytest.approx(float(network(data.tensors[0]).abs().max()), rel=1e-12)
    assert row["tansens_bound/initial"] == pytest.approx(row["tansens_bound/K_L"] * row["tansens_bound/K_theta0"])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross_entropy", lambda f, y: F.cross_entropy(f, y, reduction="none")),
        ("squared", lambda f, y: (f - F.one_hot(y, 3)).square().sum(1)),
        ("half_squared", lambda f, y: (f - F.one_hot(y, 3)).square().sum(1) / 2),
        ("logistic", lambda f, y: F.binary_cross_entropy_with_logits(f, F.one_hot(y, 3).float(), reduction="none").sum(1)),
    ],
)
def test_losses(loss, expected):
    monitor = make(loss=loss)
    fit(monitor, module=lambda: BoringModule(lr=0.0), max_epochs=1)
    pl.seed_everything(0, verbose=False)
    network = BoringModule().network
    inputs, labels = next(iter(DataLoader(loader().dataset, batch_size=100)))
    f = network(inputs).detach().requires_grad_()
    losses = expected(f, labels)
    (row,) = monitor.history
    assert row["tansens_bound/loss_bound"] == pytest.approx(float(losses.max()), rel=1e-5)
    assert row["tansens_bound/C_GD"] == 0  # the learning rate is zero
    assert "tansens_bound/slack" not in row


def test_the_rate_is_the_optimizers():
    class Scheduled(Descent):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)]

    monitor = make()
    fit(monitor, module=Scheduled(), data=DataLoader(points(), batch_size=12), max_epochs=3, precision="64-true")
    rows = [row["tansens_bound/C_GD"] for row in monitor.history]
    assert 0 < rows[0] == rows[1] == rows[2]


def test_accumulated_gradients_are_one_step():
    descents = []
    for batch, accumulate in ((12, 1), (6, 2)):
        monitor = make()
        data = DataLoader(points(), batch_size=batch)
        pl.seed_everything(0, verbose=False)
        fit(monitor, module=Descent, data=data, max_epochs=2, accumulate_grad_batches=accumulate, precision="64-true")
        descents.append(monitor.history[-1]["tansens_bound/C_GD"])
    assert descents[0] == pytest.approx(descents[1])


def test_training_is_bitwise_the_same():
    runs = []
    for callbacks in ([], [GeneralizationBoundMonitor(num_samples=7, batch_size=3)]):
        recorder = Recorder()
        fit(*callbacks, recorder, data=BoringData(noise=True), max_epochs=3)
        runs.append(recorder)
    assert_same(runs[0].epochs, runs[1].epochs)


def test_a_resumed_run_continues_the_series(tmp_path):
    data = BoringData(shuffle=False)
    whole, first, second = (GeneralizationBoundMonitor(num_samples=7) for _ in range(3))
    fit(whole, data=data, max_epochs=4)
    fit(first, data=data, max_epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    fit(second, data=data, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert second.history == whole.history


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "hinge"}, r"loss: expected one of .* but got 'hinge'"),
        ({"num_samples": 0}, "num_samples: expected a positive integer, but got 0"),
        ({"sample_size": 0}, "sample_size: expected a positive integer, but got 0"),
        ({"confidence": 1.0}, r"confidence: expected a number between 0 and 1, both excluded, but got 1\.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def work(launched):
    monitor = make()
    data = DataLoader(points(), batch_size=6)
    fit(monitor, module=Descent, data=data, max_epochs=3, precision="64-true", **launched.trainer())
    launched.save(monitor.history)


@several_processes
def test_two_processes_give_the_values_of_one(tmp_path):
    found = launch(work, tmp_path)
    monitor = make()
    fit(monitor, module=Descent, data=DataLoader(points(), batch_size=12), max_epochs=3, precision="64-true")
    for history in found:
        for row, expected in zip(history, monitor.history, strict=True):
            assert row == pytest.approx(expected, rel=1e-9)
