"""A valid call of every public function, measure, callback and of the regulariser, whose arguments tests replace."""

import inspect
import warnings

import torch
from torch.utils.data import DataLoader

import lightning_tansens
from lightning_tansens import TangentSensitivityMonitor, TangentSensitivityRegulariser, functional, metrics
from lightning_tansens.monitor import Options
from tests.boring import BoringModule, Points, make_trainer
from tests.guarantees.bad_input import Call, annotations_of, batch, net

# ---------------------------------------------------------------------------------------------- functions


def of_network(**others):
    return lambda: {"model": net(), "inputs": batch(), **others}


def of_chain():
    return {"chain": functional.relu_chain(net(), batch())}


def of_numbers(**numbers):
    return lambda: numbers


def perturb(perturbation, **fields):
    """Constructs a perturbation and applies it."""
    made = perturbation(**fields)
    return functional.gradient_differences(net(), batch(), made)


PATTERNS = [[True, False], [False, True]]
MADE_OF = {
    **dict.fromkeys(functional.__all__, of_network()),
    **dict.fromkeys(
        [name for name in functional.__all__ if name.startswith("log_") and name.endswith(("bound", "bounds"))], of_chain
    ),
    "log_active_node_bound_of": of_chain,
    "AdversarialSign": of_numbers(scale=0.1),
    "Gaussian": of_numbers(scale=0.1),
    "count_patterns": lambda: {"patterns": torch.tensor(PATTERNS)},
    "pattern_hashes": lambda: {"patterns": torch.tensor(PATTERNS)},
    "entropy": lambda: {"series": torch.tensor([0, 1, 1])},
    "mutual_information": lambda: {"first": torch.tensor([0, 1, 1]), "second": torch.tensor([0, 1, 0])},
    "gradient_differences": of_network(perturbation=functional.Gaussian(0.1)),
    "hoeffding_half_width": of_numbers(maximum=2.0, num_samples=5),
    "log_absolute_moment": of_numbers(order=3, mean=1.0, std=2.0),
    "log_active_node_bound": of_numbers(num_parameters=9, input_dim=2, depth=3, mean=4.0, std=1.0, max_weight=2.0),
    "log_max_weights": lambda: {"model": net()},
    "log_mean_exp": lambda: {"values": batch(5)},
    "log_psi": of_numbers(depth=3, mean=4.0, std=1.0),
    "lipschitz_constant": of_numbers(loss="cross_entropy"),
    "theorem5_bound": of_numbers(
        k_loss=1.0, k_gradient=2.0, k_initial=3.0, radius=0.5, loss_bound=4.0, num_samples=100, confidence=0.95
    ),
    "weight_layers": lambda: {"model": net()},
}


def call_of_function(name):
    function = getattr(functional, name)
    run = (lambda **fields: perturb(function, **fields)) if isinstance(function, type) else function
    return Call(run, MADE_OF[name], annotations_of(function))


RESULTS = {"Theorem5Bound"}  # what a function returns
FUNCTIONS = {name: call_of_function(name) for name in functional.__all__ if name not in RESULTS}


# ----------------------------------------------------------------------------------------------- measures

ABSTRACT = (
    "FunctionMeasure",
    "LabelledMeasure",
    "MeanSensitivity",
    "Measure",
    "SampleMeasure",
    "SensitivityMeasure",
    "TangentMeasure",
)


def constructors(made):
    """The constructors that share the arguments, each passing its kwargs on."""
    return [
        cls.__init__ for cls in made.__mro__ if cls.__module__.startswith("lightning_tansens") and "__init__" in vars(cls)
    ]


def measure(made, **arguments):
    """Constructs a measure, adds a batch and reads everything."""
    own = annotations_of(*constructors(made))
    constructed = {name: arguments.pop(name) for name in list(arguments) if name in own}
    metric = made(**constructed)
    if isinstance(metric, metrics.LabelledLoss):
        metric.update(**arguments)
        return metric.compute(), metric.accuracy()
    metric.prepare(arguments["model"], arguments.get("inputs"))
    metric.update(**arguments)
    return metric.values(), metric.part_values(), metric.distributions(), metric.standard_error(), metric.compute()


def valid(name):
    labels = {"targets": torch.tensor([0, 1, 0, 1, 1])}
    if name == "LabelledLoss":
        return {"outputs": batch(5, 2), **labels}
    others = {"perturbation": functional.Gaussian(0.1)} if name == "GradientDifference" else {}
    return {
        "model": net(),
        "inputs": batch(),
        **others,
        **(labels if issubclass(getattr(metrics, name), metrics.LabelledMeasure) else {}),
    }


def call_of_measure(name):
    made = getattr(metrics, name)
    if name == "TangentOptions":
        return Call(made, dict, annotations_of(made))
    annotations = annotations_of(*constructors(made), inspect.unwrap(made.update))
    if name in ("OutputSensitivity", "ClassSensitivity"):
        del annotations["outputs"]  # always each
    return Call(lambda **arguments: measure(made, **arguments), lambda: valid(name), annotations)


METRICS = {name: call_of_measure(name) for name in metrics.__all__ if name not in ABSTRACT}


# ----------------------------------------------------------------------------------------------- callbacks


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

CALLS = CALLBACKS | FUNCTIONS | METRICS
