"""Wrong YAML ends with code 2 and names the key; neither YAML nor a checkpoint runs code."""

import inspect
import pickle

import lightning.pytorch as pl
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.cli import LightningCLI

from tests.boring import OPTIONS, BoringData, BoringModule, fit, make_monitor, make_trainer
from tests.guarantees.bad_input import FEW as MORE
from tests.test_cli import MONITOR, run
from tests.tiers import cases

FEW = settings(MORE, max_examples=6)  # a command line takes a while
MEASURES = "lightning_tansens.metrics"
COUNTS = ("num_samples", "num_loss_samples", "num_label_samples", "batch_size", "every_n_epochs")
FLAGS = ("compare_with_labels", "by_class", "correlate_with_gap")
CHOICES = ("accuracy_form", "measure_at", "on_failure")
LETTERS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=5, max_size=12)


def nested(arguments):
    """Arguments of the monitor, the further options among them where they belong."""
    options = {name: value for name, value in arguments.items() if name in OPTIONS}
    return {name: value for name, value in arguments.items() if name not in options} | (
        {"options": options} if options else {}
    )


def refused(folder, capsys, arguments):
    """Ends with code 2, and returns what was said."""
    with pytest.raises(SystemExit) as ended:
        run(folder, nested(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err


def measure(name, **arguments):
    return {"measures": [{"class_path": name, "init_args": arguments}]}


WRONG = {
    "an unknown measure": (measure(f"{MEASURES}.EmpiricalSensitivty"), "EmpiricalSensitivty"),
    "an unknown module": (measure("lightning_tansen.metrics.EmpiricalSensitivity"), "lightning_tansen.metrics"),
    "a class that is no measure": (measure("torch.nn.Linear", in_features=1, out_features=1), "measures"),
    "a function for a measure": (measure("lightning_tansens.functional.entropy"), "measures"),
    "an unknown argument of a measure": (measure(f"{MEASURES}.EmpiricalSensitivity", num_probe=2), "num_probe"),
    "a wrong type in a measure": (measure(f"{MEASURES}.EmpiricalSensitivity", num_probes="many"), "num_probes"),
    "a wrong choice in a measure": (measure(f"{MEASURES}.EmpiricalSensitivity", method="fast"), "method"),
    "a measure without its argument": (measure(f"{MEASURES}.GradientDifference"), "perturbation"),
    "a measure that is a number": ({"measures": [3]}, "measures"),
    "measures that are no list": ({"measures": {"a": 3}}, "measures"),
    "a function that is none": ({"criterion": "tests.boring.CLASSES"}, "criterion"),
    "a function that is not there": ({"unpack": "tests.boring.split"}, "unpack"),
    "a test set that is none": ({"test_dataloaders": {"class_path": "torch.nn.ReLU"}}, "test_dataloaders"),
    "a test set of another name": ({"test_dataloaders": {"class_path": "tests.boring.Pints"}}, "tests.boring.Pints"),
    "a reference that is none": ({"reference": ["a"]}, "reference"),
    "a list for a name": ({"network": ["a"]}, "network"),
    "a dict for a seed": ({"seed": {"a": 1}}, "seed"),
    "a fraction for a seed": ({"seed": 1.5}, "seed"),
}


@pytest.mark.parametrize(("arguments", "key"), WRONG.values(), ids=WRONG)
def test_wrong_yaml_ends_with_code_2_and_names_the_key(arguments, key, tmp_path, capsys):
    assert key in refused(tmp_path, capsys, arguments)


def test_an_abstract_measure_is_refused(tmp_path, capsys):
    # older versions of jsonargparse let the error through instead of ending with code 2
    with pytest.raises((SystemExit, ValueError)) as ended:
        run(tmp_path, measure(f"{MEASURES}.Measure"))
    assert f"{MEASURES}.Measure'" in f"{ended.value} {capsys.readouterr().err}"


@FEW
@given(
    name=st.sampled_from(COUNTS), value=LETTERS | st.lists(st.integers(), max_size=2) | st.floats(1.1, 1.9) | st.booleans()
)
def test_a_count_of_another_type_is_named(name, value, tmp_path, capsys):
    assert name in refused(tmp_path, capsys, {name: value})


@FEW
@given(name=st.sampled_from(FLAGS), value=LETTERS.filter(lambda text: text not in ("false", "true")) | st.integers(2, 9))
def test_a_flag_of_another_type_is_named(name, value, tmp_path, capsys):
    assert name in refused(tmp_path, capsys, {name: value})


@FEW
@given(name=st.sampled_from([*COUNTS, *FLAGS, *CHOICES, "prefix"]), data=st.data())
def test_a_misspelt_argument_is_named(name, data, tmp_path, capsys):
    place = data.draw(st.integers(0, len(name) - 1))
    misspelt = name[:place] + data.draw(st.sampled_from("qxz")) + name[place:]
    arguments = {"options": {misspelt: 1}} if name in OPTIONS else {misspelt: 1}
    assert misspelt in refused(tmp_path, capsys, arguments)


@FEW
@given(
    name=st.sampled_from(CHOICES),
    value=LETTERS.filter(lambda text: text not in ("auto", "train", "ratio", "error", "raise", "ignore")),
)
def test_a_wrong_choice_is_named(name, value, tmp_path, capsys):
    assert name in refused(tmp_path, capsys, {name: value})


def test_a_reference_that_names_no_set_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"reference: expected one of .'train', 'val'. or a DataLoader or a Dataset, but got"
    ):
        run(tmp_path, {"reference": "validation"})


def test_a_share_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"reference: expected a number between 0 and 1, both excluded, but got 3"):
        run(tmp_path, {"reference": 3})


@FEW
@given(name=st.sampled_from(COUNTS), value=st.integers(max_value=0))
def test_a_count_below_one_is_named(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: expected a positive integer, but got {value}"):
        run(tmp_path, nested({name: value}))


RAN = []


class Runs:
    """Its unpickling leaves a trace."""

    def __reduce__(self):
        return RAN.append, ("unpickled",)


TAGS = [
    "!!python/object/apply:tests.guarantees.test_bad_input_yaml.RAN.append [yaml]",
    "!!python/object/apply:os.getcwd []",
    "!!python/object/new:tests.guarantees.test_bad_input_yaml.Runs []",
    "!!python/object:tests.guarantees.test_bad_input_yaml.Runs {}",
    "!!python/name:os.getcwd",
    "!!python/module:os",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("argument", ["options", "measures"])
def test_a_tag_of_python_in_yaml_is_refused(tag, argument, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"trainer:\n  callbacks:\n  - class_path: {MONITOR}\n    init_args:\n      {argument}: {tag}\n", encoding="utf-8"
    )
    with pytest.raises(SystemExit) as ended:
        LightningCLI(BoringModule, BoringData, args=["fit", "--config", str(path)], save_config_callback=None)
    assert ended.value.code == 2
    assert "could not determine a constructor for the tag" in capsys.readouterr().err
    assert not RAN


#: Code of Python and of a shell; an interpolation; a template.
TEXTS = ("__import__('os').getcwd()", "${oc.env:HOME}", "{{1 + 1}}", "$(echo 1)")


@pytest.mark.parametrize("text", cases({text: text for text in TEXTS}, *TEXTS[:2]))
def test_text_stays_text(text, tmp_path):
    assert run(tmp_path, {"options": {"prefix": text}}, "test").options.prefix == text


def checkpoint(folder):
    trainer = fit(make_monitor(measures=None), max_epochs=1)
    path = folder / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_a_checkpoint_holds_numbers_and_text_alone(tmp_path):
    path = checkpoint(tmp_path)
    state = torch.load(path, weights_only=True)["callbacks"]
    (key,) = [key for key in state if "TangentSensitivityMonitor" in key]
    assert yaml.safe_load(yaml.safe_dump(state[key]["records"])) == state[key]["records"]
    fit(make_monitor(), ckpt_path=path, max_epochs=2)


@pytest.mark.skipif("weights_only" not in inspect.signature(pl.Trainer.fit).parameters, reason="needs a newer Lightning")
def test_a_state_with_an_object_in_it_is_refused(tmp_path):
    path = checkpoint(tmp_path)
    loaded = torch.load(path, weights_only=True)
    (key,) = [key for key in loaded["callbacks"] if "TangentSensitivityMonitor" in key]
    loaded["callbacks"][key]["records"].append(Runs())
    torch.save(loaded, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        make_trainer(make_monitor(), max_epochs=2).fit(BoringModule(), BoringData(), ckpt_path=path, weights_only=True)
    assert not RAN
