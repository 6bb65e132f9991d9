"""Training with the monitor is bitwise the training without it."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from lightning_tansens.metrics import EmpiricalSensitivity
from tests.boring import BoringData, BoringModule, Points, Recorder, WithTestLoader, fit, make_monitor, mlp
from tests.tiers import cases


def assert_same(a, b, path=""):
    """Bitwise equality of nested states; NaN equals NaN."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{path}/{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, path
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), path
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), path
    else:
        assert a == b or (a != a and b != b), path


class Noisy(BoringModule):
    """Dropout and BatchNorm, and randomness from each generator in the training step."""

    def __init__(self):
        super().__init__(mlp(extra=[nn.BatchNorm1d(6), nn.Dropout(0.4)]))

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        return loss * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand()) + 0.1 * torch.rand(()))


class FrozenBatchNorm(Noisy):
    """Keeps its BatchNorm in eval mode, and one layer's bias fixed."""

    def __init__(self):
        super().__init__()
        self.network[0].bias.requires_grad_(False)

    def on_train_epoch_start(self):
        self.network[1].eval()


class TwoOptimizers(Noisy):
    """Manual optimization."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self):
        return [torch.optim.SGD(self.network[0].parameters(), 0.1), torch.optim.Adam(self.network[4].parameters())]


class Stream(IterableDataset):
    """Draws its points when it is read."""

    def __iter__(self):
        for _ in range(12):
            inputs = torch.randn(4)
            yield inputs, inputs[:3].argmax()


class WithLoader(BoringData):
    def __init__(self, make_loader):
        super().__init__()
        self.make_loader = make_loader

    def train_dataloader(self):
        return self.make_loader()


def weighted():
    sampler = WeightedRandomSampler(torch.arange(1.0, 13), 12)
    return DataLoader(Points(noise=True), batch_size=4, sampler=sampler)


def with_generator():
    return DataLoader(Points(noise=True), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))


NOISE = {"noise": True}
RUNS = {
    "dropout, BatchNorm, shuffling, augmentation": (Noisy, lambda: BoringData(**NOISE), {}),
    "accumulated gradients": (Noisy, lambda: BoringData(**NOISE), {"accumulate_grad_batches": 2}),
    "BatchNorm in eval mode": (FrozenBatchNorm, lambda: BoringData(**NOISE), {}),
    "validation": (Noisy, lambda: BoringData(**NOISE, validation=True), {}),
    "validation within the epoch": (Noisy, lambda: BoringData(**NOISE, validation=True), {"val_check_interval": 2}),
    "validation within accumulation": (
        Noisy,
        lambda: BoringData(**NOISE, validation=True),
        {"val_check_interval": 1, "accumulate_grad_batches": 3},
    ),
    "two optimizers": (TwoOptimizers, lambda: BoringData(**NOISE), {}),
    "weighted sampler": (Noisy, lambda: WithLoader(weighted), {}),
    "loader with a generator": (Noisy, lambda: WithLoader(with_generator), {}),
    "stream": (Noisy, lambda: WithLoader(lambda: DataLoader(Stream(), batch_size=4)), {}),
    "workers": (Noisy, lambda: BoringData(**NOISE, workers=2), {"max_epochs": 1}),
    "double precision": (Noisy, lambda: BoringData(**NOISE), {"precision": "64-true"}),
    "bfloat16 autocast": (Noisy, lambda: BoringData(**NOISE), {"precision": "bf16-mixed"}),
    "clipped gradients": (Noisy, lambda: BoringData(**NOISE), {"gradient_clip_val": 0.1}),
}


#: The other ones differ from these in one option of the Trainer.
BY_DEFAULT = (
    *("dropout, BatchNorm, shuffling, augmentation", "accumulated gradients", "BatchNorm in eval mode"),
    "validation within accumulation",
    *("two optimizers", "weighted sampler", "loader with a generator", "stream", "workers", "bfloat16 autocast"),
)


@pytest.mark.parametrize(("module", "data", "options"), cases(RUNS, *BY_DEFAULT))
def test_training_is_bitwise_the_same(module, data, options):
    runs = []
    for monitors in ([], [make_monitor(compare_with_labels=True, measures=None)]):
        recorder = Recorder()
        fit(*monitors, recorder, module=module, data=data(), **{"max_epochs": 3, **options})
        runs.append(recorder)
    assert monitors[0].history
    assert_same(runs[0].losses, runs[1].losses)
    assert_same(runs[0].epochs, runs[1].epochs)
    for epoch, metrics in zip(runs[0].metrics, runs[1].metrics, strict=True):
        assert_same(epoch, {key: value for key, value in metrics.items() if not key.startswith("tansens/")})


def test_the_comparison_sees_gradients_and_modes():
    # the gradients and modes above are not trivially absent
    recorder = Recorder()
    within = {"val_check_interval": 1, "accumulate_grad_batches": 3}
    fit(recorder, module=FrozenBatchNorm, data=BoringData(noise=True, validation=True), **within)
    gradients = [state["gradients"]["network.0.weight"] for state in recorder.epochs]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    last = recorder.epochs[-1]
    assert last["modes"]["network.1"] is False
    assert last["modes"]["network.0"] is True
    with pytest.raises(AssertionError):
        assert_same(recorder.epochs[1], last)


def test_autocast_does_not_reach_the_measurement():
    rows = []
    for precision in ("32-true", "bf16-mixed"):
        monitor = make_monitor(compare_with_labels=True)
        fit(monitor, module=lambda: BoringModule(lr=0.0), precision=precision, max_epochs=1)
        rows.append({key: value for key, value in monitor.history[0].items() if not key.endswith("seconds")})
    assert rows[0] == rows[1]


def test_the_measures_that_were_passed_are_not_filled():
    measure = EmpiricalSensitivity()
    monitor = make_monitor(measures=[measure])
    fit(monitor)
    assert measure.update_count == 0
    assert measure.count == 0


def test_the_networks_own_hooks_and_train_method_are_not_called():
    class Watched(nn.Sequential):
        calls = 0

        def train(self, mode=True):
            Watched.calls += 1
            return super().train(mode)

    counts = []
    for monitors in ([], [make_monitor()]):
        Watched.calls = 0
        fit(*monitors, module=BoringModule(Watched(*mlp())))
        counts.append(Watched.calls)
    assert counts[0] == counts[1]


def test_the_modules_own_test_loader_does_not_change_the_training():
    class Drawing(WithTestLoader, Noisy):
        def __init__(self):
            Noisy.__init__(self)

        def test_dataloader(self):
            torch.rand(3)  # a loader that splits at random, say
            return super().test_dataloader()

    runs = []
    for monitors in ([], [make_monitor()]):
        recorder = Recorder()
        fit(*monitors, recorder, module=Drawing, data=DataLoader(Points(noise=True), batch_size=4, shuffle=True))
        runs.append(recorder)
    assert_same(runs[0].epochs, runs[1].epochs)


def test_two_fits_with_one_monitor_are_independent():
    monitor = make_monitor()
    fit(monitor)
    first = monitor.history
    fit(monitor)
    assert len(monitor.history) == len(first) == 2
    assert_same(
        [{k: v for k, v in row.items() if k != "tansens/seconds"} for row in first],
        [{k: v for k, v in row.items() if k != "tansens/seconds"} for row in monitor.history],
    )


def test_a_criterion_with_weights_is_not_trained():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, outputs, targets):
            return F.cross_entropy(outputs, targets, self.weight)

    criterion = Weighted()
    fit(make_monitor(criterion=criterion))
    assert criterion.weight.grad is None


def test_the_monitor_adds_nothing_to_the_module():
    module = BoringModule()
    before = set(vars(module)), list(module.state_dict()), [name for name, _ in module.named_modules()]
    pl.seed_everything(0, verbose=False)
    fit(make_monitor(), module=module)
    after = set(vars(module)), list(module.state_dict()), [name for name, _ in module.named_modules()]
    assert after[1:] == before[1:]
    assert not any("tansens" in name or "measure" in name for name in after[0])
