"""What the page "What is supported" promises, as far as no other test shows it: a tiny fit for each kind of project."""

import re
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.estimators import AverageConfidence, TemporalEnsemble
from lightning_tansens.functional import active_nodes
from lightning_tansens.metrics import ActiveNodeSensitivity
from tests.boring import BoringData, BoringModule, Points, fit, loader, make_monitor, mlp, points, unwrapped
from tests.cases import Lambda
from tests.tiers import cases

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/supported.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("test", sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", TEXT))))
def test_every_test_that_the_page_names_is_there(test):
    path, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_line_of_the_page_has_a_test():
    rows = [row for row in TEXT.splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 25
    for row in rows:
        assert "`tests/" in row, row


class MonteCarlo(nn.Module):
    """Dropout that stays on in eval mode."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, inputs):
        return self.net(F.dropout(inputs, 0.5, training=True))


class Squeezes(nn.Module):
    """Its outputs lose their dimensions of length 1."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs).squeeze()


class Binary(BoringModule):
    def training_step(self, batch, _):
        return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1])


def signs(samples=12):
    inputs, _ = points(samples)
    return TensorDataset(inputs, (inputs[:, 0] > 0).float())


class ManySteps(BoringModule):
    """Steps its optimiser itself."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, _):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.manual_backward(loss)
        optimizer.step()
        return loss


class Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return 2 * inputs

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class LowRank(nn.Module):
    """A frozen layer with a trained correction of rank 1 (LoRA)."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 6).requires_grad_(False)
        self.down, self.up = nn.Linear(4, 1, bias=False), nn.Linear(1, 6, bias=False)

    def forward(self, inputs):
        return self.base(inputs) + self.up(self.down(inputs))


class Mixture(nn.Module):
    """The expert with the highest gate alone sees a sample."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 2), nn.ModuleList(mlp() for _ in range(2))

    def forward(self, inputs):
        shares, chosen = self.gate(inputs).softmax(1).max(1)
        outputs = inputs.new_zeros(len(inputs), 3)
        for number, expert in enumerate(self.experts):
            (rows,) = torch.where(chosen == number)
            if len(rows):
                outputs = outputs.index_add(0, rows, expert(inputs[rows]) * shares[rows, None])
        return outputs


def after(layer):
    return lambda: BoringModule(nn.Sequential(layer(), nn.ReLU(), nn.Linear(6, 3)))


PROJECTS = {
    "squeezed outputs": (lambda: Binary(Squeezes(mlp(1))), lambda: loader(signs())),
    "squeezed outputs of two layers": (lambda: Binary(Squeezes(nn.Linear(4, 1))), lambda: loader(signs())),
    "manual optimisation": (ManySteps, None),
    "low-rank adapters": (after(LowRank), None),
    "weight norm": (after(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))), None),
    "spectral norm": (after(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))), None),
    "mixture of experts": (lambda: BoringModule(Mixture()), None),
    "own autograd.Function": (
        lambda: BoringModule(Lambda(lambda m, x: m.net(Doubles.apply(x)), net=mlp())),
        None,
    ),
    "random forward": (lambda: BoringModule(MonteCarlo()), None),
    "scripted": (after(lambda: torch.jit.trace(nn.Linear(4, 6), torch.zeros(2, 4))), None),
    "scripted as a whole": (lambda: BoringModule(torch.jit.script(mlp())), None),
    "softmax regression": (lambda: BoringModule(nn.Linear(4, 3)), None),
}


BY_DEFAULT = (
    *("squeezed outputs", "manual optimisation", "low-rank adapters", "weight norm", "spectral norm"),
    *("mixture of experts", "own autograd.Function", "random forward", "scripted as a whole"),
)


@pytest.mark.parametrize("name", cases({name: name for name in PROJECTS}, *BY_DEFAULT))
def test_projects(name):
    module, data = PROJECTS[name]
    quiet = {"measures": None, "test_dataloaders": Points(10, seed=2, labels=None), "on_failure": "raise"}
    monitor = make_monitor(**quiet)
    trained = fit(monitor, module=module, data=data and data()).lightning_module
    plain = fit(module=module, data=data and data()).lightning_module
    assert all("tansens/empirical/test" in row and "tansens/train_loss" in row for row in monitor.history)
    assert len(monitor.history) == 2
    for one, same in zip(trained.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, same)


class Reparametrised(nn.Module):
    """Draws a latent variable."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, inputs):
        return self.net(inputs + 0.5 * torch.randn_like(inputs))


class OwnGenerator(Reparametrised):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, inputs):
        return self.net(inputs + torch.rand(inputs.shape, generator=self.generator))


@pytest.mark.parametrize(("network", "random"), [(MonteCarlo, 1), (Reparametrised, 1), (OwnGenerator, 1), (mlp, 0)])
def test_a_network_that_is_random_in_eval_mode_is_told_of_once(network, random, caplog):
    with caplog.at_level("INFO"):
        fit(make_monitor(), module=lambda: BoringModule(network()), max_epochs=3)
    assert sum("the network is random in eval mode too" in message for message in map(unwrapped, caplog.messages)) == random


class OneBad(Points):
    """Its third sample is not finite."""

    def __init__(self, *args, bad=float("nan"), **kwargs):
        super().__init__(*args, **kwargs)
        self.inputs[3, 1] = bad


@pytest.mark.parametrize(
    ("where", "bad"),
    cases(
        {f"{where}, {bad}": (where, float(bad)) for where in ("test", "train", "both") for bad in ("nan", "inf")},
        *("test, nan", "train, inf", "both, nan"),
    ),
)
def test_one_bad_sample_costs_one_warning_with_the_count(where, bad):
    train = OneBad(40, bad=bad) if where != "test" else Points(40)
    test = OneBad(40, seed=2, bad=bad) if where != "train" else Points(40, seed=2)
    arguments = {"num_samples": 40, "num_loss_samples": 40, "estimators": [AverageConfidence(), TemporalEnsemble()]}
    monitor = make_monitor(reference=train, test_dataloaders=test, **arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(monitor)
    said = [str(one.message) for one in caught if "TangentSensitivityMonitor" in str(one.message)]
    names = {"test": "1 of test", "train": "1 of reference", "both": "1 of reference, 1 of test"}[where]
    assert said == [f"TangentSensitivityMonitor: samples whose numbers are not finite are left out: {names} (said once)"]
    keys = ("reference_loss", "empirical/test", "test_loss/empirical", "test_accuracy/average_confidence")
    for key in keys:
        assert f"tansens/{key}" in monitor.history[-1]
    if where == "train":
        good = [n for n in range(40) if n != 3]
        clean = make_monitor(
            reference=torch.utils.data.Subset(train, good), test_dataloaders=test, **{**arguments, "num_samples": 39}
        )
        fit(clean)
        assert monitor.history[-1]["tansens/reference_loss"] == pytest.approx(clean.history[-1]["tansens/reference_loss"])


def test_what_needs_earlier_outputs_does_not_warn_at_the_first_measurement(recwarn):
    monitor = make_monitor(estimators=None)
    fit(monitor, max_epochs=3)
    assert not any("earlier measurements" in str(one.message) for one in recwarn)


@pytest.mark.parametrize(("samples", "advice"), [(7, True), (10, True), (12, False)])
def test_a_set_that_is_measured_as_a_whole_gets_no_advice_to_take_more(samples, advice, caplog):
    with caplog.at_level("INFO"):
        fit(make_monitor(num_samples=samples, reference=Points(12), test_dataloaders=Points(10, seed=2)), max_epochs=3)
    said = [one for one in map(unwrapped, caplog.messages) if f"num_samples={4 * samples} would halve it" in one]
    assert len(said) == advice  # in one line, on the set that is known least
    assert samples == 7 or all("(10 samples of reference)" in message for message in said)


def test_without_a_validation_loop_a_validation_reference_says_where_it_is_read(caplog):
    monitor = make_monitor(reference="val", test_dataloaders=Points(10, seed=2))
    with caplog.at_level("INFO"):
        fit(monitor, data=BoringData(validation=True), limit_val_batches=0)
    assert "tansens/val_loss" in monitor.history[0]
    assert sum("limit_val_batches=0" in message for message in caplog.messages) == 1


def test_each_fold_of_a_cross_validation_says_its_own_failures():
    monitor, said = make_monitor(), []
    for fold in range(3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(Breaks(), monitor, seed=fold)
        said.append(sum("has infinite ones" in str(one.message) for one in caught))
    assert said == [1, 1, 1]


class Breaks(pl.Callback):
    """Lets the weights diverge after the first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        with torch.no_grad():
            next(pl_module.parameters()).fill_(float("nan"))


class TimeFirst(nn.Module):
    """Activations of shape (T, N, D), as recurrent networks and old transformers have them."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(1, 6), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.outer(torch.relu(self.inner(inputs.T[..., None]))[-1])


class NoActivation(nn.Module):
    """Low rank, without anything that could be active."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))

    def forward(self, inputs):
        return self.net(inputs)


class Sines(NoActivation):
    """An activation that nobody knows as one."""

    def forward(self, inputs):
        return self.net[1](torch.sin(self.net[0](inputs)))


def test_activations_with_the_time_first_are_measured():
    monitor = make_monitor(measures=None, on_failure="raise", num_samples=10)
    trainer = fit(monitor, module=lambda: BoringModule(TimeFirst()), max_epochs=3)
    assert all("tansens/active_nodes/test" in row for row in monitor.history)
    network, inputs = trainer.lightning_module.network, Points(10, seed=2).inputs
    counts = torch.cat([active_nodes(network, inputs[[n]]) for n in range(10)]).double()
    assert torch.equal(active_nodes(network, inputs).double(), counts)


@pytest.mark.parametrize("network", [NoActivation, Sines])
def test_a_default_measure_that_does_not_suit_is_left_out_before_the_first_step(network, caplog):
    monitor = make_monitor(measures=None, on_failure="raise")
    with caplog.at_level("INFO"):
        fit(monitor, module=lambda: BoringModule(network()), max_epochs=3)
    notes = [one for one in map(unwrapped, caplog.messages) if "is left out, because it does not suit this network" in one]
    assert len(notes) == 1
    assert "the measure 'active_nodes'" in notes[0]
    for row in monitor.history:
        assert {"tansens/empirical/test", "tansens/layer_norm", "tansens/test_loss/empirical"} <= row.keys()
        assert not any("active_nodes" in key for key in row)
    assert len(monitor.history) == 3
    with pytest.raises(UnsupportedNetworkError, match="active"):  # one that was asked for
        fit(make_monitor(measures=[ActiveNodeSensitivity()]), module=lambda: BoringModule(network()))


def test_what_lightning_prints_and_returns_of_a_test_is_the_user_s(capsys):
    monitor = make_monitor(measures=None, estimators=None, compare_with_labels=True, verbose=True)
    trainer = fit(monitor)
    capsys.readouterr()
    (results,) = trainer.test(trainer.lightning_module, datamodule=BoringData())
    assert results.keys() == {"test_loss"}
    printed = capsys.readouterr().out
    table = printed[printed.index("Test metric") :].partition("TangentSensitivityMonitor")[0]
    assert "test_loss" in table
    assert "tansens" not in table
    assert len(monitor.history) == 3
