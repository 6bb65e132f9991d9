"""The headline in the monitor: what is logged and said, which copies are drawn and how often."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from lightning_tansens.estimators import Calibrated, EntropyRatio, Headline
from lightning_tansens.estimators.calibrated import Masked, Noise, Perturbed
from lightning_tansens.monitor.data.batches import unpack_batch
from lightning_tansens.monitor.data.reading import Reading
from lightning_tansens.monitor.data.set_batches import SetBatches
from lightning_tansens.monitor.data.subsets import CACHE_BYTES, CacheBudget, Subset
from lightning_tansens.show import Display
from lightning_tansens.show.console import measurement_text
from tests.boring import BoringData, BoringModule, Points, Recorder, fit, loader, make_monitor, mlp, state_of

SIZES = {"num_samples": 9, "num_loss_samples": 60}


def test_it_is_logged_and_said_by_default():
    monitor = make_monitor(test_dataloaders=Points(80, seed=2), estimators=None, display=Display(), **SIZES)
    assert monitor.estimates == {}
    run = fit(monitor, max_epochs=4, data=loader(Points(80)))
    logged = {key.removeprefix("tansens/"): float(value) for key, value in run.callback_metrics.items()}
    for quantity in ("loss", "accuracy"):
        found, key = getattr(monitor.estimates["test"], quantity), f"test_{quantity}/estimate"
        assert logged[key] == pytest.approx(found.value)
        assert logged[f"{key}_low"] == pytest.approx(found.low)
        assert logged[f"{key}_high"] == pytest.approx(found.high)
        assert logged[f"{key}_reliable"] == found.reliable
        assert found.low < found.value < found.high
        assert str(found).startswith(f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]")
    assert f"[{monitor.estimates['test'].accuracy.low:.2f}, " in measurement_text(monitor.records[-1])
    assert str(monitor.estimates["test"]).startswith("test: accuracy 0.")
    assert "fewer than 3 earlier measurements" in monitor.records[2].targets["test"].estimates["loss"]["estimate"].doubts
    assert "fewer than 3 earlier measurements" not in monitor.estimates["test"].loss.doubts


def test_a_table_has_seven_copies_and_each_is_perturbed_once(monkeypatch):
    seen = []
    called = Perturbed.__call__

    def counted(self, inputs, positions):
        seen.append(len(positions))
        return called(self, inputs, positions)

    monkeypatch.setattr(Perturbed, "__call__", counted)
    monitor = make_monitor(test_dataloaders=Points(70, seed=2), estimators=[Headline()], batch_size=60, **SIZES)
    fit(monitor, max_epochs=3, data=loader(Points(70)))
    assert [copy.strong for copy in monitor._run.copies] == [False] * 4 + [True] * 3
    tried = sum(seen[:7])  # a first batch, on which everything is tried
    assert tried <= 7 * 5
    assert sum(seen) - tried == 7 * 60


def test_copies_are_as_the_first_time_and_end_with_the_budget():
    made = []

    def perturb(inputs, positions):
        made.append(positions)
        return inputs + len(made)

    def read(budget):
        subset = Subset(TensorDataset(torch.zeros(4, 2), torch.arange(4)), 4, batch_size=4)
        subset.divide(2)
        reading = Reading(unpack_batch, perturb=perturb, budget=budget, num_read=2)
        batches = SetBatches("copy", subset, lambda batch: batch, reading)
        return subset.indices[:2], [list(batches) for _ in range(3)]

    labels, measurements = read(CacheBudget())
    for ((inputs, targets, positions),) in measurements:
        assert (inputs[0].tolist(), targets.tolist(), positions) == ([1, 1], labels, [0, 1])
        inputs += 5  # in place, as a network may
    assert made == [[0, 1]]
    full = CacheBudget()
    full.take(CACHE_BYTES)
    assert [inputs[0, 0].item() for ((inputs, _, _),) in read(full)[1]] == [2, 3, 4]


def test_estimators_get_their_own_copies_alone():
    calibrated = Calibrated([Noise(0.2), Noise(0.5), Masked(0.3)])
    options = {"batch_size": 60, **SIZES}
    rows = {}
    for name, estimators in {"calibrated": [calibrated], "estimate": [Headline()], "both": [calibrated, Headline()]}.items():
        monitor = make_monitor(test_dataloaders=Points(80, seed=2), estimators=estimators, **options)
        fit(monitor, max_epochs=2, data=loader(Points(80)))
        rows[name] = monitor.history[-1]
    for name in ("calibrated", "estimate"):
        key = f"tansens/test_loss/{name}"
        assert rows["both"][key] == rows[name][key]


def test_copies_that_two_estimators_want_are_drawn_once():
    shared = [Noise(0.2), Noise(0.5), Masked(0.3)]
    monitor = make_monitor(estimators=[Calibrated(shared), Headline(copies=[Noise(0.5), Masked(0.7)])], **SIZES)
    fit(monitor, max_epochs=1)
    made = [copy.made_for for copy in monitor._run.copies]
    assert made == [("calibrated",), ("calibrated", "estimate"), ("calibrated",), ("estimate",)]


class Embedded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(5, 4), mlp()

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(1))


def test_tokens_have_no_copies_and_an_estimate_in_doubt():
    generator = torch.Generator().manual_seed(0)
    tokens = TensorDataset(torch.randint(5, (60, 3), generator=generator), torch.randint(3, (60,), generator=generator))
    monitor = make_monitor(test_dataloaders=tokens, measures=[], estimators=[Headline()], **SIZES)
    fit(monitor, module=lambda: BoringModule(Embedded()), data=loader(tokens), max_epochs=4)
    assert monitor._run.copies == []
    found = monitor.estimates["test"].accuracy
    assert "too few corrupted copies of the reference to be fitted on" in found.doubts
    assert found.low <= found.value <= found.high


def test_a_regression_has_a_loss_that_is_fitted_on_copies():
    options = {"criterion": F.l1_loss, "estimators": [Headline(), EntropyRatio()], **SIZES}
    monitor = make_monitor(test_dataloaders=Points(60, seed=3, labels="value"), **options)
    fit(
        monitor,
        module=lambda: BoringModule(mlp(1), lr=0.01, loss="l1_loss"),
        data=loader(Points(60, labels="value")),
        max_epochs=5,
    )
    assert len(monitor._run.copies) == 7
    found = monitor.estimates["test"]
    assert found.accuracy is None
    assert found.loss.low < found.loss.value < found.loss.high
    assert "outputs that are no classes" not in str(found)
    assert "estimate" not in monitor.records[0].targets["test"].estimates.get("loss", {})


class Segmenter(torch.nn.Module):
    """Scores of two classes for each pixel."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))

    def forward(self, images):
        return self.network(images)


def test_a_segmentation_has_a_loss_that_is_fitted_on_copies():
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = (images[:, 0] > 0.5).long()
    masks[:, 0] = 255  # void
    data = TensorDataset(images, masks)
    criterion = torch.nn.CrossEntropyLoss(ignore_index=255)
    monitor = make_monitor(
        test_dataloaders=TensorDataset(images * 0.6), criterion=criterion, measures=[], estimators=[Headline()], **SIZES
    )
    fit(monitor, module=lambda: SegmentationModule(Segmenter(), criterion), data=loader(data), max_epochs=5)
    assert len(monitor._run.copies) == 8  # not the translations, which would part the masks from their pixels
    found = monitor.estimates["test"]
    assert found.accuracy is None
    assert found.loss.low < found.loss.value < found.loss.high
    assert "outputs that are no classes" not in str(found)


class SegmentationModule(BoringModule):
    def __init__(self, network, criterion):
        super().__init__(network)
        self.criterion = criterion

    def training_step(self, batch, _):
        return self.criterion(self(batch[0]), batch[1])


def test_training_is_bitwise_the_same():
    ends = []
    for monitors in ([], [make_monitor(estimators=[Headline()], **SIZES)]):
        recorder = Recorder()
        trainer = fit(*monitors, recorder, data=BoringData(noise=True))
        ends.append((state_of(trainer), recorder.losses))
    assert str(ends[0]) == str(ends[1])
