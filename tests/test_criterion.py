"""The criterion of a run is the one that its training step minimises."""

import functools
import logging
import re
from types import SimpleNamespace
from typing import NamedTuple

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics import Accuracy, MeanMetric, MetricCollection

from lightning_tansens.metrics import EmpiricalSensitivity
from lightning_tansens.monitor import Options
from lightning_tansens.monitor.set_factory import is_shared_alike
from tests.boring import BoringModule, Points, fit, loader, make_monitor, make_trainer, mlp, unwrapped
from tests.tiers import cases

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=GENERATOR)
CLASS = torch.randint(3, (60,), generator=GENERATOR)
BIT = (X[:, 0] > 0).long()
REAL = X.sum(1, keepdim=True) + 1
WEIGHTS = torch.tensor([5.0, 1.0, 0.2])
bce, mse = F.binary_cross_entropy_with_logits, F.mse_loss


class Module(pl.LightningModule):
    """Whose loss is any function; BatchNorm and dropout differ between train and eval mode."""

    def __init__(self, loss, outputs=3, head=None):
        super().__init__()
        self.network = mlp(outputs, extra=[nn.BatchNorm1d(6), nn.Dropout(0.5)])
        self.head = head or nn.Identity()
        self.of_batch = loss

    def forward(self, inputs):
        return self.head(self.network(inputs))

    def training_step(self, batch, _):
        return self.of_batch(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(module, targets, caplog=None, epochs=1, **options):
    """The monitor after a fit, the loss by hand is of all samples in eval mode."""
    options = {"measures": [EmpiricalSensitivity()], "num_samples": 60, "num_loss_samples": 60, **options}
    monitor = make_monitor(test_dataloaders=TensorDataset(X), **options)
    fit(monitor, module=module, data=loader(TensorDataset(X, targets), batch_size=10), max_epochs=epochs)
    return monitor


def gaussian(outputs, targets):
    return F.gaussian_nll_loss(outputs[:, :1], targets, outputs[:, 1:].exp())


class Weighted(Module):
    def __init__(self):
        super().__init__(None)
        self.criterion = nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.3)
        self.of_batch = lambda outputs, targets: self.criterion(outputs, targets)


class Buffered(Module):
    def __init__(self):
        super().__init__(None)
        self.register_buffer("class_weights", WEIGHTS)
        self.of_batch = lambda outputs, targets: {"loss": F.cross_entropy(outputs, targets, self.class_weights)}


class Focal(nn.Module):
    def forward(self, outputs, targets):
        losses = F.cross_entropy(outputs, targets, reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()


class OwnLoss(Module):
    def __init__(self, loss, **options):
        super().__init__(None, **options)
        self.loss = loss
        self.of_batch = lambda outputs, targets: self.loss(outputs, targets)


def contrast(outputs, targets):
    """Small where samples of one class lie together: the outputs are an embedding."""
    near = (targets[:, None] == targets).float()
    return (torch.cdist(outputs, outputs).square() * near).mean() + 0.01 * (1 - near).mean()


# the module, the targets, what the note says, whether there is an accuracy
FOUND = {
    "cross-entropy": (lambda: Module(F.cross_entropy), CLASS, "cross-entropy,", True),
    "one logit, (N, 1) float": (lambda: Module(bce, 1), BIT[:, None].float(), "binary cross-entropy with logits,", True),
    "one logit, (N,) int": (
        lambda: Module(lambda y, t: bce(y[:, 0], t.float()), 1),
        BIT,
        "binary cross-entropy with logits,",
        True,
    ),
    "multi-label": (lambda: Module(bce), (X[:, :3] > 0).float(), "binary cross-entropy with logits,", False),
    "multi-label int": (
        lambda: Module(lambda y, t: bce(y, t.float())),
        (X[:, :3] > 0).long(),
        "binary cross-entropy with logits,",
        False,
    ),
    "squeezed": (lambda: Module(lambda y, t: mse(y[:, 0], t), 1), REAL[:, 0], "mean squared error,", False),
    "mean absolute error": (lambda: Module(F.l1_loss, 1), REAL, "mean absolute error,", False),
    "Huber": (lambda: Module(F.huber_loss, 1), REAL, "smooth L1 loss,", False),
    "bits as numbers": (lambda: Module(mse, 1), BIT[:, None].float(), "mean squared error,", False),
    "Gaussian": (lambda: Module(gaussian, 2), REAL, r"Gaussian likelihood of \(mean, log variance\),", False),
    "probabilities": (
        lambda: Module(F.binary_cross_entropy, 1, nn.Sigmoid()),
        BIT[:, None].float(),
        "binary cross-entropy of probabilities,",
        False,
    ),
    "log-probabilities": (lambda: Module(F.nll_loss, 3, nn.LogSoftmax(1)), CLASS, "cross-entropy,", True),
    "smoothing": (
        lambda: Module(functools.partial(F.cross_entropy, label_smoothing=0.1)),
        CLASS,
        "cross-entropy with label smoothing 0.1,",
        True,
    ),
    "a module with weights": (Weighted, CLASS, "self.criterion,", True),
    "weights in a buffer": (Buffered, CLASS, "cross-entropy with weight=self.class_weights,", True),
    "own module": (lambda: OwnLoss(Focal()), CLASS, "self.loss,", True),
    "an embedding with classes": (lambda: OwnLoss(contrast), CLASS, "self.loss,", False),
    "ignored labels": (
        lambda: Module(functools.partial(F.cross_entropy, ignore_index=255)),
        torch.where(BIT > 0, CLASS, 255),
        "cross-entropy with ignore_index=255,",
        True,
    ),
}


#: The other ones take the same way through the code with another loss or type.
BY_DEFAULT = (
    *("cross-entropy", "one logit, (N, 1) float", "multi-label", "squeezed", "Huber", "Gaussian", "probabilities"),
    *("a module with weights", "weights in a buffer", "own module", "an embedding with classes", "ignored labels"),
)


@pytest.mark.parametrize("case", cases({name: name for name in FOUND}, *BY_DEFAULT))
def test_the_loss_of_the_training_is_found(case, caplog):
    make, targets, said, classifies = FOUND[case]
    with caplog.at_level(logging.INFO):
        pl.seed_everything(0)
        module = make()
        monitor = fitted(module, targets)
    (note,) = [unwrapped(record.message) for record in caplog.records if "the criterion" in record.message]
    assert re.search(f"the criterion is {said} which gives the loss that {type(module).__name__}.training_step", note)
    module.eval()
    by_hand = module.of_batch(module(X), targets)
    by_hand = by_hand["loss"] if isinstance(by_hand, dict) else by_hand
    assert monitor.records[-1].reference.loss == pytest.approx(by_hand.item(), rel=1e-4)
    assert (monitor.records[-1].reference.accuracy is not None) == classifies
    if classifies and module(X).shape[1] == 1:
        assert monitor.records[-1].reference.accuracy == float(((module(X) > 0)[:, 0] == BIT).double().mean())


def regularised(outputs, targets):
    return F.cross_entropy(outputs, targets) + 0.1 * outputs.square().mean()


def one_constant_logit(outputs, targets):
    return F.cross_entropy(outputs, targets) + 0.3


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (regularised, 3, CLASS),
        (one_constant_logit, 1, torch.zeros_like(CLASS)),
        (lambda y, t: 3 * mse(y, t), 1, REAL),
    ],
    ids=["regularised", "0 by construction", "scaled"],
)
def test_without_a_criterion_an_unknown_loss_is_refused(loss, outputs, targets):
    message = r"criterion: expected a loss .* that gives what Module.training_step returns on a batch, .*pass the loss"
    with pytest.raises(MisconfigurationException, match=message):
        fitted(Module(loss, outputs), targets)


def test_a_given_criterion_is_taken_after_a_note(caplog):
    with caplog.at_level(logging.INFO):
        monitor = fitted(Module(regularised), CLASS, criterion=F.cross_entropy)
    (note,) = [unwrapped(record.message) for record in caplog.records if "the criterion" in record.message]
    assert "taken as it is given: on a batch it is 1." in note
    assert monitor.records[-1].reference.accuracy is not None

    caplog.clear()
    with caplog.at_level(logging.INFO):
        fitted(Module(F.cross_entropy), CLASS, criterion=nn.CrossEntropyLoss())
    assert not [record for record in caplog.records if "the criterion" in record.message]


def test_a_constant_criterion_is_refused():
    with pytest.raises(ValueError, match="cross_entropy of one output is 0 whatever it is"):
        fitted(Module(bce, 1), BIT[:, None].float(), criterion=F.cross_entropy)


class Manual(Module):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.steps = 0

    def training_step(self, batch, _):
        self.steps += 1
        loss = self.of_batch(self(batch[0]), batch[1])
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()


class Fails(Module):
    def training_step(self, batch, batch_idx):
        if self.trainer.fit_loop.epoch_loop._warning_cache is None or not hasattr(self, "begun"):
            raise RuntimeError("not begun")
        return super().training_step(batch, batch_idx)

    def on_train_batch_start(self, batch, batch_idx):
        self.begun = True


class Random(Module):
    """Its loss has a random factor that no criterion knows."""

    def training_step(self, batch, _):
        return super().training_step(batch, _) * (1 + torch.rand(()))


class NoisyInputs(Module):
    """Augments its inputs in the training step: the criterion is compared on what the network returned there."""

    def training_step(self, batch, _):
        return super().training_step([batch[0] + torch.randn_like(batch[0]), batch[1]], _)


def test_random_inputs_hide_no_loss(caplog):
    with caplog.at_level(logging.INFO):
        fitted(NoisyInputs(mse, 1), REAL)
    assert "the criterion is mean squared error, which gives the loss" in unwrapped(caplog.text)


@pytest.mark.parametrize("kind", [Manual, Fails, Random])
def test_without_a_loss_to_compare_with_only_classes_are_certain(kind, caplog):
    with caplog.at_level(logging.INFO):
        monitor = fitted(kind(F.cross_entropy), CLASS)
    assert "the criterion is cross-entropy, as the labels are classes; it is not compared" in unwrapped(caplog.text)
    assert monitor.records[-1].reference.accuracy is not None
    with caplog.at_level(logging.INFO):
        caplog.clear()
        fitted(kind(mse, 1), REAL, criterion=mse)
    assert "the criterion is taken as it is given" in unwrapped(caplog.text)
    assert ("not compared with the loss of the training" in unwrapped(caplog.text)) == (kind is not Random)
    with pytest.raises(MisconfigurationException, match=r"criterion: expected one, because .*pass the loss of the training"):
        fitted(kind(mse, 1), REAL)


class Zeros(Module):
    """A last layer of zeros makes cross-entropy with and without smoothing equal."""

    def __init__(self, smoothing):
        super().__init__(functools.partial(F.cross_entropy, label_smoothing=smoothing))
        nn.init.zeros_(self.network[-1].weight)
        nn.init.zeros_(self.network[-1].bias)


@pytest.mark.parametrize(("smoothing", "said"), [(0.0, "is cross-entropy,"), (0.1, "label smoothing 0.1,")])
def test_equal_losses_are_told_apart(smoothing, said, caplog):
    module = Zeros(smoothing)
    before = [parameter.clone() for parameter in module.parameters()]

    class Unchanged(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if not batch_idx:
                assert all(map(torch.equal, pl_module.parameters(), before))

    with caplog.at_level(logging.INFO):
        monitor = make_monitor(test_dataloaders=TensorDataset(X), measures=[EmpiricalSensitivity()])
        fit(monitor, Unchanged(), module=module, data=loader(TensorDataset(X, CLASS)), max_epochs=1)
    assert said in unwrapped(caplog.text)


class Busy(Module):
    """Does all that a training step may do besides returning a loss."""

    def __init__(self):
        super().__init__(F.cross_entropy)
        self.accuracy = Accuracy("multiclass", num_classes=3)
        self.several = MetricCollection([MeanMetric()])
        self.listed = []
        self.seen, self.written = 0, []

    def training_step(self, batch, batch_idx):
        outputs = self(batch[0])
        loss = F.cross_entropy(outputs, batch[1])
        self.accuracy(outputs, batch[1])
        self.several(loss.detach())
        self.listed.append(float(loss))
        self.seen += 1
        self.log("accuracy", self.accuracy)
        self.log_dict({"loss": loss, "rate": self.optimizers().param_groups[0]["lr"]})
        self.logger.log_metrics({"direct": float(loss)})
        self.logger.experiment.log_metrics({"raw": 1.0}, step=0)
        batch.clear()
        if len(self.written) == 0 and not self.trainer.global_step and not hasattr(self.trainer, "begun"):
            self.optimizers().step()
        return loss


def test_nothing_of_the_training_changes(tmp_path):
    state = {}

    class Records(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if not batch_idx and not trainer.current_epoch:
                trainer.begun = True
                state["metrics"] = [
                    (name, value.clone() if isinstance(value, torch.Tensor) else list(value))
                    for metric in (pl_module.accuracy, *pl_module.several.values())
                    for name, value in metric.metric_state.items()
                ]
                state["counts"] = pl_module.accuracy._update_count, list(pl_module.listed), pl_module.seen
                state["weights"] = [parameter.clone() for parameter in pl_module.parameters()]
                state["own"] = {name for name in ("log", "log_dict", "print", "optimizers") if name in vars(pl_module)}
                state["loggers"] = list(trainer.loggers)
                state["rows"] = list(trainer.logger.experiment.metrics)
                state["random"] = torch.get_rng_state()

    found = []
    for callbacks in ([], [make_monitor(test_dataloaders=TensorDataset(X), measures=[EmpiricalSensitivity()])]):
        logger = CSVLogger(tmp_path)
        fit(*callbacks, Records(), module=Busy, data=loader(TensorDataset(X, CLASS)), max_epochs=1, logger=logger)
        found.append(dict(state))
        assert state["loggers"] == [logger]
    plain, measured = found
    assert plain["counts"] == measured["counts"] == (0, [], 0)
    assert measured["own"] == set()
    assert plain["rows"] == measured["rows"]
    assert torch.equal(plain["random"], measured["random"])
    assert all(map(torch.equal, plain["weights"], measured["weights"]))
    for (name, before), (other, after) in zip(plain["metrics"], measured["metrics"], strict=True):
        assert name == other
        assert torch.equal(torch.as_tensor(before), torch.as_tensor(after))


@pytest.mark.parametrize(
    ("loss", "targets", "outputs", "stage"),
    cases(
        {
            f"{name}, {stage}": (*case, stage)
            for name, case in {"classes": (F.cross_entropy, CLASS, 3), "numbers": (mse, REAL, 1)}.items()
            for stage in ("validate", "test")
        },
        *("classes, test", "numbers, validate"),
    ),
)
def test_without_a_fit_the_reference_shows_the_loss(loss, targets, outputs, stage):
    class Tested(Module):
        def validation_step(self, batch, _):
            pass

        test_step = validation_step

    module = Tested(loss, outputs).eval()
    data = TensorDataset(X, targets)
    monitor = make_monitor(
        test_dataloaders=TensorDataset(X), reference=data, measures=[EmpiricalSensitivity()], num_samples=60
    )
    getattr(make_trainer(monitor), stage)(module, loader(data), verbose=False)
    assert monitor.records[-1].reference.loss == pytest.approx(float(loss(module(X), targets)), rel=1e-5)


class Dictionary(Module):
    def forward(self, inputs):
        return {"logits": self.network(inputs), "hidden": self.network[0](inputs)}


class Named(Module):
    def forward(self, inputs):
        return {"scores": self.network(inputs)}


@pytest.mark.parametrize(
    ("kind", "key", "output"),
    [(Dictionary, "logits", None), (Named, "scores", None), (Dictionary, "hidden", lambda out: out["hidden"][:, :3])],
)
def test_one_output_for_all(kind, key, output):
    """Measures, the criterion and the estimators look at one tensor."""

    def loss(outputs, targets):
        return F.cross_entropy(outputs[key][:, :3], targets)

    monitor = fitted(kind(loss), CLASS, output=output, estimators=None)
    record = monitor.records[-1]
    assert record.reference.accuracy is not None
    assert record.reference.measures["empirical"].values["empirical"] > 0
    assert "average_confidence" in record.targets["test"].estimates["accuracy"]


class Headless(BoringModule):
    """Without ``forward``, and with a metric, which has no weights."""

    forward = pl.LightningModule.forward

    def __init__(self):
        super().__init__()
        self.accuracy = Accuracy(task="multiclass", num_classes=3)

    def training_step(self, batch, _):
        return F.cross_entropy(self.network(batch[0]), batch[1])


def test_of_a_module_without_forward_the_one_part_with_weights_is_measured():
    monitors = [make_monitor(), make_monitor(network="network")]
    for monitor in monitors:
        fit(monitor, module=Headless)
    assert monitors[0].records[-1].reference.accuracy is not None
    assert monitors[0].records[-1].reference == monitors[1].records[-1].reference


def test_a_module_without_forward_and_of_several_parts_is_told_of_network():
    class Parts(Headless):
        def __init__(self):
            super().__init__()
            self.network, self.head = self.network[:-1], self.network[-1]

    expected = r"expected Parts to define forward.*one of \['network', 'accuracy', 'head'\]"
    with pytest.raises(MisconfigurationException, match=expected):
        fit(make_monitor(), module=Parts)


class TwoAnnotators(Module):
    """Whose loss is a method, on a list of two labels for each sample; it logs, and it counts its calls."""

    def __init__(self):
        super().__init__(self.get_loss)
        self.seen = MeanMetric()

    def get_loss(self, outputs, targets):
        self.log("loss", outputs.mean())
        self.seen.update(1.0)
        return (F.cross_entropy(outputs, targets[0]) + F.cross_entropy(outputs, targets[1])) / 2


class TwiceLabelled(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], [CLASS[index], 2 - CLASS[index]]


def test_a_loss_may_be_a_method_on_a_list_of_labels():
    module, data = TwoAnnotators(), TwiceLabelled()
    options = {"measures": [EmpiricalSensitivity()], "num_samples": 60, "num_loss_samples": 60, "reference": data}
    monitor = make_monitor(test_dataloaders=data, compare_with_labels=True, **options)
    trainer = make_trainer(monitor, max_epochs=1)
    trainer.fit(module, loader(data, batch_size=10))
    module.eval()
    with torch.no_grad():
        expected = sum(F.cross_entropy(module(X), labels) for labels in (CLASS, 2 - CLASS)) / 2
    assert monitor.records[-1].reference.loss == pytest.approx(float(expected), rel=1e-5)
    assert monitor.records[-1].targets["test"].loss == pytest.approx(float(expected), rel=1e-5)
    assert module.seen.weight == 6  # the steps of the training alone


@pytest.mark.parametrize("number", [None, 25])
def test_the_truth_is_that_of_the_whole_set(number):
    module = Module(F.cross_entropy)
    data = TensorDataset(X, CLASS)
    monitor = make_monitor(
        test_dataloaders=data,
        measures=[EmpiricalSensitivity()],
        compare_with_labels=True,
        num_samples=5,
        num_loss_samples=8,
        num_label_samples=number,
        batch_size=7,
        estimators=None,
    )
    fit(monitor, module=module, data=loader(TensorDataset(X[:20], CLASS[:20])), max_epochs=1)
    module.eval()
    truth = monitor.records[-1].targets["test"]
    whole = float(F.cross_entropy(module(X), CLASS))
    assert truth.samples == 5
    if number is None:
        assert truth.loss == pytest.approx(whole, rel=1e-5)
        assert truth.accuracy == pytest.approx(float((module(X).argmax(1) == CLASS).float().mean()))
        assert truth.loss_stderr is None
        assert truth.accuracy_stderr is None
    else:
        assert truth.loss != pytest.approx(whole, rel=1e-5)
        assert truth.loss_stderr > 0
        assert abs(truth.loss - whole) < 4 * truth.loss_stderr
    assert len(monitor._run.sets[1].of_outputs.outputs.arrays()["outputs"]) == 8
    assert Options().num_label_samples is None


IGNORED = torch.where(BIT > 0, CLASS, -100)


@pytest.mark.parametrize(
    ("kind", "targets"), [(Weighted, CLASS), (Buffered, CLASS), (lambda: Module(F.cross_entropy), IGNORED)]
)
@pytest.mark.parametrize("size", [7, 60])
def test_the_truth_of_weighted_and_masked_losses_is_that_of_the_whole_set(kind, targets, size):
    module, data = kind(), TensorDataset(X, targets)
    few = {"num_samples": 5, "num_loss_samples": 8, "batch_size": size, "measures": [EmpiricalSensitivity()]}
    monitor = make_monitor(test_dataloaders=data, compare_with_labels=True, **few)
    fit(monitor, module=module, data=loader(TensorDataset(X[:20], targets[:20])), max_epochs=1)
    module.eval()
    whole, truth = module.of_batch(module(X), targets), monitor.records[-1].targets["test"]
    assert truth.loss == pytest.approx(float(whole["loss"] if isinstance(whole, dict) else whole), rel=1e-5)
    counted = targets >= 0
    right = (module(X).argmax(1) == targets)[counted].float().mean()
    assert truth.accuracy == pytest.approx(float(right))
    assert truth.loss_stderr is None


class Pair(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor


class Pairs(Dataset):
    """Samples that collate into a named tuple of two."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return Pair(*Points()[index])


class TakesThePair(BoringModule):
    def forward(self, batch):
        return self.network(batch.image)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch), batch.label)


@pytest.mark.parametrize("whole", [False, True])
def test_a_forward_that_takes_the_batch_is_told_of_unpack(whole):
    unpack = (lambda batch: (batch, batch.label)) if whole else None
    monitor = make_monitor(test_dataloaders=Pairs(), unpack=unpack)
    if whole:
        fit(monitor, module=TakesThePair, data=loader(Pairs()))
        assert monitor.history[0]["tansens/train_loss"] > 0
    else:
        with pytest.raises(MisconfigurationException, match=r"unpack: expected inputs that TakesThePair\.forward takes"):
            fit(monitor, module=TakesThePair, data=loader(Pairs()))


class SelfSupervised(BoringModule):
    def training_step(self, batch, _):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass


def test_a_training_without_targets_is_told_to_name_the_loss():
    with pytest.raises(MisconfigurationException, match=r"batches of SelfSupervised\.training_step have no targets"):
        fit(make_monitor(test_dataloaders=Points()), module=SelfSupervised, data=loader(Points(labels=None)))


def test_a_loss_that_grows_with_its_set_is_told(monkeypatch):
    said = []
    monkeypatch.setattr("lightning_tansens.monitor.callback.tell", said.append)
    fit(make_monitor(criterion=nn.CrossEntropyLoss(reduction="sum")), max_epochs=1)
    assert any("sums over samples, so that losses grow with their sets" in note for note in said)


@pytest.mark.parametrize(("processes", "followed", "alike"), [(1, True, True), (2, False, True), (2, True, False)])
def test_processes_try_the_training_step_on_the_same_batches_alone(processes, followed, alike):
    assert is_shared_alike(SimpleNamespace(world_size=processes), SimpleNamespace(followed=followed)) == alike
