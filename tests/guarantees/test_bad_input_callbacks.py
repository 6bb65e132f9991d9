"""Wrong arguments of the callbacks and of the regulariser: when they are made, and when a fit starts."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import lightning_tansens
from lightning_tansens import TangentSensitivityMonitor, TangentSensitivityRegulariser
from lightning_tansens.monitor import Options
from tests.boring import BoringModule, Points, make_trainer
from tests.guarantees.test_bad_input import (
    FEW,
    MANY,
    Call,
    annotations_of,
    batch,
    draw_wrong,
    net,
    works_or_is_refused,
)


def fit_with(*callbacks, network=None, **trainer):
    """Trains for one step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = make_trainer(*callbacks, max_epochs=1, **trainer)
        made.fit(BoringModule(network), DataLoader(Points(4), batch_size=4))


def with_monitor(name, **arguments):
    """A fit with a callback that watches a key of the monitor."""
    monitor = TangentSensitivityMonitor(Points(3), num_samples=2, options=Options(num_loss_samples=2))
    fit_with(monitor, getattr(lightning_tansens, name)(**arguments), enable_checkpointing=name == "FreshModelCheckpoint")


def regularised(**arguments):
    made = {name: arguments.pop(name) for name in list(arguments) if name not in ("model", "inputs")}
    return TangentSensitivityRegulariser(**made)(**arguments)


def regulariser(**others):
    return lambda: {"model": net(), "inputs": batch(), "strength": 0.1, **others}


def monitored(**arguments):
    fit_with(TangentSensitivityMonitor(**arguments))


def monitor():
    return {"test_dataloaders": Points(3), "num_samples": 2, "options": Options(num_loss_samples=2, on_failure="raise")}


def bounded(**arguments):
    scalar = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False), torch.nn.ReLU(), torch.nn.Linear(6, 3, bias=False))
    fit_with(lightning_tansens.GeneralizationBoundMonitor(**arguments), network=scalar)


KEY = "tansens/test_loss/empirical"
CALLBACKS = {
    "Display": Call(lightning_tansens.Display, dict, annotations_of(lightning_tansens.Display)),
    "FreshEarlyStopping": Call(
        lambda **arguments: with_monitor("FreshEarlyStopping", **arguments), lambda: {"monitor": KEY}, {"monitor": "str"}
    ),
    "FreshModelCheckpoint": Call(
        lambda **arguments: with_monitor("FreshModelCheckpoint", **arguments),
        lambda: {"monitor": KEY, "save_top_k": 0},
        {"monitor": "str | None"},
    ),
    "Options": Call(Options, dict, annotations_of(Options)),
    "GeneralizationBoundMonitor": Call(bounded, lambda: {}, annotations_of(lightning_tansens.GeneralizationBoundMonitor)),
    "TangentSensitivityMonitor": Call(monitored, monitor, annotations_of(TangentSensitivityMonitor)),
    "TangentSensitivityRegulariser": Call(
        regularised, regulariser(), annotations_of(TangentSensitivityRegulariser, TangentSensitivityRegulariser.forward)
    ),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_the_valid_call_works(name):
    CALLBACKS[name]()


@pytest.mark.parametrize("name", CALLBACKS)
@FEW
@given(data=st.data())
def test_a_wrong_argument_works_or_is_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, CALLBACKS, name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", CALLBACKS)
@MANY
@given(data=st.data())
def test_many_wrong_arguments_work_or_are_refused_by_name(name, data):
    works_or_is_refused(*draw_wrong(data, CALLBACKS, name))


@pytest.mark.parametrize("name", CALLBACKS)
def test_an_unknown_argument_is_named(name):
    with pytest.raises(TypeError, match="num_prob"):
        CALLBACKS[name](num_prob=3)
