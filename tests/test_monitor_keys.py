"""Which keys are logged: those that the monitor's docstring lists, and no others."""

import warnings

import pytest
import torch
from torch import nn

from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    InputOutputSensitivity,
    LayerwiseNormSensitivity,
    RegionSensitivity,
    SpectralNormSensitivity,
)
from tests.boring import (
    BoringData,
    BoringModule,
    Points,
    Recorder,
    WithTestLoader,
    fit,
    loader,
    make_monitor,
    measured,
    mlp,
    squared_error,
)
from tests.tiers import cases

STATISTICS = (
    *("empirical", "empirical_norm", "empirical_max", "empirical_q50", "empirical_q95"),
    *("active_nodes", "active_nodes_mean", "active_nodes_std"),
)


def expected_keys(reference="train", tests=("test",), accuracy=True, actual=False):
    quantities = ("loss", "accuracy") if accuracy else ("loss",)
    estimates = ("empirical", "layer_norm", "active_nodes", "trivial")
    names = (*estimates, *(("actual",) if actual else ()))
    return {
        "layer_norm",
        "seconds",
        *(f"{statistic}/{name}" for statistic in STATISTICS for name in (reference, *tests)),
        *(f"{measure}/{name}_stderr" for measure in ("empirical", "active_nodes") for name in (reference, *tests)),
        # how far the weights move has no error that samples tell
        *(
            f"{test}_{quantity}/{name}_stderr"
            for test in tests
            for quantity in quantities
            for name in estimates
            if name != "layer_norm"
        ),
        *(f"{reference}_{quantity}{end}" for quantity in quantities for end in ("", "_stderr")),
        *(f"{test}_{quantity}/{name}" for test in tests for quantity in quantities for name in names),
    }


def check(expected, monitor, **kwargs):
    recorder = Recorder()
    trainer = fit(monitor, recorder, **kwargs)
    keys = {f"{monitor.options.prefix}/{key}" for key in expected}
    assert {f"{monitor.options.prefix}/{key}" for key in measured(trainer, monitor.options.prefix)} == keys
    assert len(monitor.history) == 2
    for row in monitor.history:  # from the first epoch on, also layer_norm's estimate
        assert set(row) == {"epoch", "step", *keys}
    for logged in recorder.metrics:
        assert keys <= set(logged)
    return trainer


VALIDATED = BoringData(validation=True)
REFERENCES = {
    "train": ("train", "train", BoringData()),
    "train beside val": ("train", "train", VALIDATED),
    "val": ("val", "val", VALIDATED),
    "Dataset": (Points(9, seed=5), "reference", BoringData()),
    "DataLoader": (loader(Points(9, seed=5)), "reference", BoringData()),
}


@pytest.mark.parametrize(("reference", "name", "data"), REFERENCES.values(), ids=REFERENCES)
def test_the_reference_names_its_keys(reference, name, data):
    check(expected_keys(name), make_monitor(reference=reference), data=data)


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_validation_set_that_is_not_visited_in_the_first_epoch_can_be_the_reference(sanity):
    monitor = make_monitor(reference="val")
    fit(monitor, data=VALIDATED, check_val_every_n_epoch=2, num_sanity_val_steps=sanity)
    assert [row["epoch"] for row in monitor.history] == [0, 1]


class SeveralTests(WithTestLoader):
    tests = 3


TESTS = {
    "the datamodule's": (None, ["test"], BoringModule, None),
    "the module's": (None, ["test"], WithTestLoader, loader()),
    "several of the module's": (None, ["test_0", "test_1", "test_2"], SeveralTests, loader()),
    "Dataset": (Points(10, seed=2), ["test"], BoringModule, loader()),
    "DataLoader": (loader(Points(10, seed=2)), ["test"], BoringModule, loader()),
    "a dict": ({"near": Points(10, seed=2), "far": loader(Points(8))}, ["near", "far"], BoringModule, loader()),
    "passed beside the datamodule's": ({"far": Points(8)}, ["far"], BoringModule, None),
}


LABELLED = {
    f"{name}, {'labels' if labels else 'no labels'}": (*case, labels)
    for name, case in TESTS.items()
    for labels in (False, True)
}


@pytest.mark.parametrize(
    ("tests", "names", "module", "data", "labels"),
    cases(LABELLED, "the datamodule's, no labels", "a dict, no labels", *(f"{name}, labels" for name in TESTS)),
)
def test_the_test_sets_name_their_keys(tests, names, module, data, labels):
    monitor = make_monitor(test_dataloaders=tests, compare_with_labels=labels)
    check(expected_keys(tests=names, actual=labels), monitor, module=module, data=data)


@pytest.mark.parametrize("labels", [False, True])
def test_a_regression_has_no_accuracy(labels):
    monitor = make_monitor(
        test_dataloaders=Points(labels="value", seed=3), criterion=squared_error, compare_with_labels=labels
    )
    data = loader(Points(labels="value"))
    check(
        expected_keys(accuracy=False, actual=labels),
        monitor,
        module=lambda: BoringModule(mlp(1), 0.01, "mse_loss"),
        data=data,
    )


def test_the_shares_of_the_layers_have_keys_and_add_up():
    monitor = make_monitor(measures=[EmpiricalSensitivity(per_layer=True, quantiles=())])
    trainer = fit(monitor)
    layers = ["network.0", "network.2"]
    shares = {f"empirical/{name}/{layer}" for name in ("train", "test") for layer in layers}
    assert shares == {key for key in measured(trainer) if key.count("/") == 2}
    for row in monitor.history:
        for name in ("train", "test"):
            total = sum(row[f"tansens/empirical/{name}/{layer}"] for layer in layers)
            assert total == pytest.approx(row[f"tansens/empirical/{name}"], rel=1e-6)


def test_the_prefix_and_the_measures_name_the_keys():
    monitor = make_monitor(measures=[ActiveNodeSensitivity()], prefix="mine")
    expected = {key for key in expected_keys() if "empirical" not in key and "layer_norm" not in key}
    trainer = check(expected, monitor)
    assert not measured(trainer)


def test_no_measure_leaves_the_baseline():
    expected = {
        *("seconds", "train_loss", "train_accuracy", "train_loss_stderr", "train_accuracy_stderr"),
        *(f"test_{quantity}/trivial{end}" for quantity in ("loss", "accuracy") for end in ("", "_stderr")),
    }
    check(expected, make_monitor(measures=[]))


def test_the_name_of_a_submodule_shortens_the_layers_names():
    trainer = fit(make_monitor(network="network", measures=[EmpiricalSensitivity(per_layer=True)]))
    assert {"empirical/train/0", "empirical/train/2"} <= measured(trainer)


def scaled_to(log_norms):
    """A callback that gives the network the layer-wise norm wanted for each epoch."""

    class Scale(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *_):
            log_norm = log_norms[trainer.current_epoch]
            with torch.no_grad():
                for layer in (module for module in pl_module.modules() if isinstance(module, nn.Linear)):
                    layer.weight.div_(layer.weight.abs().max()).mul_(torch.tensor(log_norm / 2).exp())

    return Scale()


UNDEFINED = {"near zero": ([0.0, 0.0, 0.0], 3), "of both signs": ([-1.0, 1.0, -1.0], 2)}


@pytest.mark.parametrize(("log_norms", "missing"), UNDEFINED.values(), ids=UNDEFINED)
def test_an_undefined_estimate_is_left_out_and_said_once(log_norms, missing):
    monitor = make_monitor()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(scaled_to(log_norms), monitor, max_epochs=3)
    said = [str(warning.message) for warning in caught if "layer_norm is left out" in str(warning.message)]
    assert len(said) == 1
    assert "form='linear'" in said[0]
    estimates = {f"tansens/test_{quantity}/layer_norm" for quantity in ("loss", "accuracy")}
    assert [row["tansens/layer_norm"] for row in monitor.history] == pytest.approx(log_norms, abs=1e-6)
    assert [estimates.isdisjoint(row) for row in monitor.history].count(True) == missing
    for row in monitor.history:
        assert {f"tansens/{key}" for key in expected_keys()} - set(row) in (set(), estimates)


def test_the_linear_form_has_no_undefined_estimate():
    monitor = make_monitor(measures=[LayerwiseNormSensitivity(form="linear")])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(scaled_to([1.0, 0.0, -1.0]), monitor, max_epochs=3)
    assert not [warning for warning in caught if "TangentSensitivityMonitor" in str(warning.message)]
    ratios = [row["tansens/test_loss/layer_norm"] / row["tansens/train_loss"] for row in monitor.history]
    assert ratios[1:] == pytest.approx([torch.e**2] * 2, rel=1e-5)


def test_all_measures_of_a_convolutional_network():
    def module():
        image = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 9, 2, padding=1), nn.ReLU(), nn.Flatten())
        return BoringModule(nn.Sequential(*image, nn.Linear(81, 3)))

    measures = [InputOutputSensitivity(), FisherRaoSensitivity(), RegionSensitivity(), SpectralNormSensitivity()]
    statistics = ("input_output", "fisher_rao", "region", "region_log_paths", "region_log_probability", "region_dead")
    names = ("input_output", "fisher_rao", "region", "spectral_norm", "trivial")
    expected = {
        *("spectral_norm", "seconds", "train_loss", "train_accuracy", "train_loss_stderr", "train_accuracy_stderr"),
        *(f"{statistic}/{name}" for statistic in statistics for name in ("train", "test")),
        *(f"{measure}/{name}_stderr" for measure in names[:3] for name in ("train", "test")),
        *(
            f"test_{quantity}/{name}{end}"
            for quantity in ("loss", "accuracy")
            for name in names
            for end in ("", "_stderr")
            if (name, end) != ("spectral_norm", "_stderr")
        ),
    }
    monitor = make_monitor(measures=measures)
    check(expected, monitor, module=module)
    first, second = monitor.history
    factor = torch.tensor(first["tansens/spectral_norm"] - second["tansens/spectral_norm"]).exp()
    assert second["tansens/test_loss/spectral_norm"] == pytest.approx(float(factor) * second["tansens/train_loss"], rel=1e-5)
