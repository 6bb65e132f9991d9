"""The base of all measures: types under gather, samples that are not finite, options, and a new measure in a few lines."""

import pickle

import pytest
import torch
from torch import nn

from lightning_tansens import metrics
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import Gaussian, active_nodes, preactivations
from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    ClassSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    GradientDifference,
    InputOutputSensitivity,
    LabelledMeasure,
    LayerwiseNormSensitivity,
    MeanSensitivity,
    MeanTangentSensitivity,
    OutputSensitivity,
    SensitivityMovement,
    TangentOptions,
)
from tests.cases import Case, Lambda, mlp
from tests.metrics.test_metrics import assert_equal
from tests.processes import launch, several_processes

NET, INPUTS = Case(lambda: mlp(4, 6, 5, 3), outputs=3).make(samples=12)
TARGETS = torch.arange(12) % 3
BAD = [2, 7, 8]
GOOD = [n for n in range(12) if n not in BAD]

ALL = {
    name: made
    for name in metrics.__all__
    if isinstance(made := getattr(metrics, name), type)
    and issubclass(made, metrics.Measure)
    and not made.__abstractmethods__
}
ALL["GradientDifference"] = lambda: GradientDifference(Gaussian(0.1))
WITH_DATA = [name for name in ALL if name not in ("LayerwiseNormSensitivity", "SpectralNormSensitivity")]
METHODS = ["exact", "input_space", "parameter_space"]
VARIANTS = {name: ALL[name] for name in WITH_DATA}
VARIANTS |= {f"empirical, {way}": lambda way=way: EmpiricalSensitivity(method=way, per_layer=True) for way in METHODS}
VARIANTS["active nodes, layers"] = lambda: ActiveNodeSensitivity(per_layer=True)
VARIANTS["classes and outputs"] = lambda: ClassSensitivity(matrix=True)


def add(measure, inputs=INPUTS, places=range(12), model=NET):
    places = list(places)
    labels = [TARGETS[places]] if isinstance(measure, LabelledMeasure) else []
    measure.update(model, inputs[places], *labels, places)
    return measure


def found(measure):
    if isinstance(measure, SensitivityMovement):
        measure.remember()
        return {"sketches": measure.memory()["last"]}
    return {**measure.values(), **measure.part_values(), **{f"#{k}": v for k, v in measure.distributions().items()}}


def spoilt(value):
    inputs = INPUTS.clone()
    inputs[BAD, 1] = value
    return inputs


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", VARIANTS)
def test_samples_that_are_not_finite_are_left_out_and_counted(name, value):
    measure, expected = add(VARIANTS[name](), spoilt(value)), add(VARIANTS[name](), places=GOOD)
    assert (measure.unusable, expected.unusable) == (3, 0)
    assert found(measure).keys() == found(expected).keys()
    for key, number in found(expected).items():
        assert_equal(found(measure)[key], number)
    assert (measure.standard_error() is None) == (expected.standard_error() is None)
    if measure.standard_error() is not None:
        assert measure.standard_error() == pytest.approx(expected.standard_error(), rel=1e-6, nan_ok=True)
    measure.reset()
    assert measure.unusable == 0


@pytest.mark.parametrize("name", WITH_DATA)
def test_a_set_without_a_usable_sample_has_no_value(name):
    measure = add(ALL[name](), torch.full_like(INPUTS, torch.nan))
    assert measure.unusable == 12
    assert torch.isnan(measure.compute())
    assert all(torch.isnan(number).all() for number in measure.values().values())


def test_positions_go_on_after_unusable_samples():
    measure = EmpiricalSensitivity()
    measure.update(NET, spoilt(torch.nan)[:5])
    measure.update(NET, INPUTS[5:])
    assert torch.cat(measure.positions).tolist() == [0, 1, 3, 4, *range(5, 12)]


@pytest.mark.parametrize("name", ALL)
def test_types_outlive_moves_resets_and_copies(name):
    measure = ALL[name]()
    before = {key: [s.dtype for s in state] for key, state in measure.metric_state.items() if isinstance(state, list)}
    assert all(len(types) == 1 for types in before.values())
    assert {types[0] for types in before.values()} <= {torch.float64, torch.int64}
    for move in (lambda m: m.to("cpu"), lambda m: m.half(), lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))):
        measure = move(measure)
        if name in WITH_DATA:
            add(measure)
        measure.reset()
        assert {key: [s.dtype for s in measure.metric_state[key]] for key in before} == before


def test_integers_outlive_another_type():
    measure = add(EmpiricalSensitivity()).set_dtype(torch.float16)
    assert measure.rows().dtype == torch.float16
    assert measure._joined("positions").dtype == torch.int64
    add(measure)
    assert measure.count == 24


def gather(launched):
    """One of two processes, of which the second has no sample."""
    with launched.group() as rank:
        values = {}
        for name in ALL:
            measure = ALL[name]().to("cpu")  # a move resets torchmetrics' own type
            measure.prepare(NET, INPUTS[:1])
            if name not in WITH_DATA:
                measure.update(NET)
            elif rank == 0:
                add(measure, places=[3])
            measure.sync()
            values[name] = measure.values()
            measure.unsync()
    launched.save(values)


@several_processes
def test_a_set_of_one_sample_on_two_processes(tmp_path):
    first, second = launch(gather, tmp_path)
    assert str(first) == str(second)
    for name, values in first.items():
        alone = ALL[name]()
        expected = add(alone, places=[3]) if name in WITH_DATA else (alone.update(NET), alone)[1]
        assert str({k: round(float(v), 9) for k, v in values.items()}) == str(
            {k: round(float(v), 9) for k, v in expected.values().items()}
        ), name


class SquaredOutput(MeanSensitivity):
    """The whole code of a measure."""

    key = "squared_output"

    def of_samples(self, model, inputs, positions):
        return model(inputs).square().sum(1)


def test_a_measure_in_three_lines():
    measure = SquaredOutput()
    for part in INPUTS.split([5, 7]):
        measure.update(NET, part)
    squares = NET(INPUTS).square().sum(1).detach()
    assert_equal(measure.compute(), squares.mean())
    assert measure.standard_error() == pytest.approx(float(squares.std()) / 12**0.5)
    assert measure.log_ratio({"squared_output": 6.0}, {"squared_output": 2.0}) == pytest.approx(1.0986123)
    with pytest.raises(
        metrics.base.UndefinedEstimateError, match="the values are nan and 2; their ratio is an estimate only"
    ):
        measure.log_ratio({"squared_output": torch.nan}, {"squared_output": 2.0})
    assert measure.unusable == 0


def test_rows_of_another_length_are_refused():
    measure = OutputSensitivity()
    measure.update(NET, INPUTS)
    with pytest.raises(
        ValueError, match=r"inputs: expected 3 numbers per sample as before, but Sequential has 2; resize the"
    ):
        measure.update(mlp(4, 2).double(), INPUTS)


OF_OUTPUTS = {
    "empirical": EmpiricalSensitivity,
    "outputs": OutputSensitivity,
    "input-output": InputOutputSensitivity,
    "Fisher-Rao": FisherRaoSensitivity,
    "movement": SensitivityMovement,
    "mean tangent": MeanTangentSensitivity,
    "gradients": lambda **kwargs: GradientDifference(Gaussian(0.1), **kwargs),
}


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_the_picker_of_outputs_is_given_later(name):
    model = Lambda(lambda m, x: {"logits": m.net(x), "wrong": 2 * m.net(x)}, net=NET)
    plain = OF_OUTPUTS[name]()
    picked = plain.with_output(lambda out: out["logits"])
    assert plain.tangent.output is None
    own = OF_OUTPUTS[name](output=lambda out: out["wrong"])
    assert own.with_output(lambda out: out["logits"]) is own
    assert plain.with_output(None) is plain
    for key, number in found(add(picked, model=model)).items():
        assert_equal(number, found(add(OF_OUTPUTS[name]()))[key])
    with pytest.raises(TypeError, match="output: expected a callable or None, but got 'logits'"):
        plain.with_output("logits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "all"}, "outputs: expected 'sum', 'each'"),
        ({"method": "fast"}, "method: expected one of"),
        ({"num_probes": 0}, "num_probes: expected a positive integer"),
        ({"seed": 0.5}, "seed: expected an integer"),
    ],
)
def test_options_check_themselves(options, message):
    with pytest.raises(ValueError, match=message):
        TangentOptions(**options)


class Sequences(nn.Module):
    """(N, T, D), handed on as (T, N, D) to the hidden layer."""

    def __init__(self, time_first):
        super().__init__()
        self.hidden, self.head, self.time_first = nn.Linear(4, 8), nn.Linear(8, 3), time_first

    def forward(self, x):
        hidden = torch.relu(self.hidden(x.transpose(0, 1) if self.time_first else x))
        return self.head(hidden.mean(0 if self.time_first else 1))


@pytest.mark.parametrize("samples", [1, 2, 4, 5, 6, 10])
def test_activations_with_time_first(samples):
    """Batches of every size, also of as many samples as there are steps, or where their number divides that of the steps."""
    ours = Sequences(True)
    theirs = Sequences(False)
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(samples, 6, 4)
    assert torch.equal(active_nodes(ours, inputs), active_nodes(theirs, inputs))
    assert_equal(preactivations(ours, inputs)[0], preactivations(theirs, inputs)[0])
    values = []
    for model in (ours, theirs):
        measure = ActiveNodeSensitivity(per_layer=True)
        measure.prepare(model, inputs[:1])
        measure.update(model, inputs)
        values.append({**measure.values(), **measure.part_values()})
    assert list(values[0]) == list(values[1])
    for ours, theirs in zip(values[0].values(), values[1].values()):
        assert_equal(ours, theirs)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(nn.Linear(4, 3), torch.randn(6, 4)), (Recurrent(), torch.randn(6, 5, 4))],
    ids=["softmax regression", "LSTM"],
)
def test_networks_without_relu_like_activations(model, inputs):
    """The measures of active units say so before the first step; the other default measures work."""
    for measure in metrics.default_measures():
        if isinstance(measure, ActiveNodeSensitivity):
            with pytest.raises(UnsupportedNetworkError, match=r"but .* calls none that is known .ReLU, GELU, tanh"):
                measure.prepare(model, inputs[:1])
            continue
        measure.prepare(model, inputs[:1])
        measure.update(model, inputs)
        assert torch.isfinite(measure.compute())
    for measure in (metrics.RegionSensitivity(), metrics.ActivationPatterns(), metrics.NeuronMargins()):
        with pytest.raises(UnsupportedNetworkError, match="leave the measures of active units out for this network"):
            measure.prepare(model, inputs[:1])
    with pytest.raises(UnsupportedNetworkError, match="leave the measures of active units out for this network"):
        metrics.PatternInformation().prepare(model, inputs[:1])


def test_weights_alone_have_nothing_to_leave_out():
    measure = LayerwiseNormSensitivity()
    measure.update(NET)
    assert measure.unusable == 0
