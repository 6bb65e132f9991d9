"""The measures over batches, processes and time."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MetricCollection

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional import (
    active_nodes,
    log_max_weights,
    log_psi,
    tangent_sensitivity,
    tangent_sensitivity_blocks,
)
from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    InputOutputSensitivity,
    LabelledLoss,
    LayerwiseNormSensitivity,
    RegionSensitivity,
    SpectralNormSensitivity,
)
from tests.cases import CHAINS, Case, frozen, mlp

NET, INPUTS = Case(lambda: mlp(4, 6, 5, 3), outputs=3).make(samples=12)
TARGETS = torch.arange(12) % 3
SPLITS = [[12], [5, 7], [1, 10, 1], [4, 4, 4]]

MEASURES = {
    "empirical": EmpiricalSensitivity,
    "empirical per layer": lambda **kwargs: EmpiricalSensitivity(per_layer=True, **kwargs),
    "active nodes": ActiveNodeSensitivity,
    "layer norm": LayerwiseNormSensitivity,
    "input output": InputOutputSensitivity,
    "Fisher-Rao": FisherRaoSensitivity,
    "region": RegionSensitivity,
    "spectral norm": SpectralNormSensitivity,
}


def fed(measure, split=(12,), inputs=INPUTS, model=NET):
    for part in inputs.split(list(split)):
        measure.update(model, part)
    return measure


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-12, check_dtype=False)


def gathered(*measures):
    """torchmetrics' dist_sync_fn for the states of several processes; each asks in the order of its states."""
    states = [[value for name in m._defaults for value in _as_tensors(getattr(m, name))] for m in measures]
    position = iter(range(1000))

    def sync(tensor, group=None):
        i = next(position)
        return [state[i] for state in states]

    return sync


def _as_tensors(state):
    return ([torch.cat(state)] if state else [torch.zeros(0)]) if isinstance(state, list) else [state]


def synced(make, splits):
    """The measure of the first process, and what syncs it with the others."""
    measures = []
    for part in INPUTS.split(splits):
        measure = make()
        measure.prepare(NET, INPUTS[:1])
        if len(part):
            measure.update(NET, part)
        measures.append(measure)
    return measures[0], {"dist_sync_fn": gathered(*measures), "distributed_available": lambda: True}


def test_hoeffding():
    measure = fed(EmpiricalSensitivity(confidence=0.9))
    largest = float(tangent_sensitivity(NET, INPUTS).max())
    assert float(measure.values()["empirical_hoeffding"]) == pytest.approx(
        largest * (2 * math.log(10) / 12) ** 0.5, rel=1e-6
    )
    assert "empirical_hoeffding" not in fed(EmpiricalSensitivity()).values()
    with pytest.raises(ValueError, match=r"confidence: expected a number between 0 and 1, both excluded, but got 1\.5"):
        EmpiricalSensitivity(confidence=1.5)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("outputs", ["sum", "each", torch.tensor([1.0, -2.0, 0.5])], ids=["sum", "each", "weighting"])
def test_empirical(split, outputs):
    squares = tangent_sensitivity(NET, INPUTS, outputs=outputs)
    squares = squares.sum(1) if squares.dim() == 2 else squares
    measure = fed(EmpiricalSensitivity(outputs=outputs, quantiles=(0.1, 0.5, 0.999)), split)
    values = measure.values()
    assert list(values) == [
        "empirical",
        "empirical_norm",
        "empirical_max",
        "empirical_q10",
        "empirical_q50",
        "empirical_q99.9",
    ]
    assert_equal(values["empirical"], squares.mean())
    torch.testing.assert_close(values["empirical"], squares.mean(), rtol=1e-12, atol=0)
    assert_equal(values["empirical_norm"], squares.sqrt().mean())
    assert_equal(values["empirical_max"], squares.max())
    for q, name in [(0.1, "q10"), (0.5, "q50"), (0.999, "q99.9")]:
        assert_equal(values[f"empirical_{name}"], torch.quantile(squares, q))
    assert_equal(measure.compute(), squares.mean())
    assert measure.distributions() == {}
    assert measure.part_values() == {}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("outputs", ["sum", "each"])
def test_shares_of_the_layers_add_up(split, outputs):
    measure = fed(EmpiricalSensitivity(outputs=outputs, per_layer=True), split)
    layers = measure.part_values()
    blocks = tangent_sensitivity_blocks(NET, INPUTS, outputs=outputs)
    assert list(layers) == ["0", "2", "4"]
    for (name, share), block in zip(layers.items(), blocks.values()):
        assert_equal(share, block.sum() / 12)
        assert share > 0, name
    torch.testing.assert_close(sum(layers.values()), measure.compute(), rtol=1e-12, atol=0)


def test_layers_may_be_unfrozen_between_measurements():
    model = frozen(copy.deepcopy(NET), "0.weight")
    measure = fed(EmpiricalSensitivity(per_layer=True), model=model)
    assert list(measure.part_values()) == ["2", "4"]
    measure.reset()
    model.requires_grad_(True)
    fed(measure, model=model)
    assert_equal(sum(measure.part_values().values()), tangent_sensitivity(NET, INPUTS).mean())
    assert list(measure.part_values()) == ["0", "2", "4"]


@pytest.mark.parametrize("split", SPLITS)
def test_active_nodes(split):
    counts = active_nodes(NET, INPUTS).sum(1).double()
    measure = fed(ActiveNodeSensitivity(), split)
    values = measure.values()
    assert_equal(values["active_nodes_mean"], counts.mean())
    assert_equal(values["active_nodes_std"], counts.std(unbiased=False))
    assert_equal(values["active_nodes"], torch.tensor(log_psi(3, float(counts.mean()), float(counts.std(unbiased=False)))))
    assert_equal(measure.distributions()[""], counts)
    assert measure.part_values() == {}
    deeper = fed(ActiveNodeSensitivity(depth=5), split).compute()
    assert_equal(deeper, torch.tensor(log_psi(5, float(counts.mean()), float(counts.std(unbiased=False)))))


def test_a_small_deviation_of_many_active_nodes_is_kept():
    measure = ActiveNodeSensitivity()
    measure._append("samples", 1e5 + torch.arange(1000) % 2)
    measure._append("positions", torch.arange(1000))
    measure.depths += 2
    assert_equal(measure.values()["active_nodes_std"], torch.tensor(0.5))


@pytest.mark.parametrize("updates", [1, 3])
def test_layer_norm(updates):
    measure = LayerwiseNormSensitivity()
    for _ in range(updates):
        measure.update(NET)
    assert_equal(measure.compute(), log_max_weights(NET).sum())
    assert measure.values().keys() == {"layer_norm"}
    assert measure.distributions() == {}
    assert not measure.needs_data


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("criterion", [None, F.cross_entropy, nn.CrossEntropyLoss(reduction="none")])
def test_labelled_loss(split, criterion):
    loss = LabelledLoss(criterion)
    outputs = NET.eval()(INPUTS).detach()
    for part, targets in zip(outputs.split(split), TARGETS.split(split)):
        if len(targets):
            loss.update(part, targets)
    assert_equal(loss.compute(), F.cross_entropy(outputs, TARGETS))
    assert_equal(loss.accuracy(), (outputs.argmax(1) == TARGETS).double().mean())
    assert not list(loss.parameters())
    assert not list(loss.modules())[1:]


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 1), torch.zeros(4, 1)),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(4), torch.zeros(4)),
    ],
    ids=["regression", "one logit", "vector"],
)
def test_accuracy_is_a_classifier_s(outputs, targets):
    loss = LabelledLoss(lambda y, t: (y.reshape(-1) - t.reshape(-1) + 2).square())
    loss.update(outputs, targets)
    assert loss.accuracy() is None
    assert loss.compute() == 4


def test_a_loss_of_several_positions_is_averaged():
    loss = LabelledLoss(lambda y, t: (y - t).square())
    loss.update(torch.full((2, 3), 2.0), torch.zeros(2, 3))
    loss.update(torch.full((1, 3), 1.0), torch.zeros(1, 3))
    assert_equal(loss.compute(), torch.tensor(3.0))


def test_a_criterion_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"criterion: expected one loss for each of the 4 samples.*got shape \(2,\)"):
        LabelledLoss(lambda y, t: torch.zeros(2)).update(torch.zeros(4, 2), torch.zeros(4))


@pytest.mark.parametrize("name", MEASURES)
def test_reset_clone_pickle_to_and_forward(name):
    measure = fed(MEASURES[name]())
    expected = measure.compute()
    for other in (measure.clone(), pickle.loads(pickle.dumps(measure)), copy.deepcopy(measure), measure.to("cpu")):
        assert torch.equal(other.compute(), expected)
        assert other.part_values() == measure.part_values()
    measure.reset()
    assert measure.distributions() == {}
    assert torch.equal(fed(measure).compute(), expected)
    assert not measure.compute().requires_grad

    first = MEASURES[name]()
    assert_equal(first(NET, INPUTS[:5]), fed(MEASURES[name](), [5], INPUTS[:5]).compute())
    assert_equal(first(NET, INPUTS[5:]), fed(MEASURES[name](), [7], INPUTS[5:]).compute())
    assert_equal(first.compute(), expected)
    assert_equal(sum(first.part_values().values()), sum(fed(MEASURES[name]()).part_values().values()))


def test_states_are_moved_with_the_measure():
    measure = EmpiricalSensitivity(per_layer=True).to("meta")
    assert {state.device.type for state in (*measure.samples, *measure.positions, measure.unusable)} == {"meta"}
    assert EmpiricalSensitivity().rows().dtype == torch.float64


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_samples_there_is_no_value(name):
    assert torch.isnan(MEASURES[name]().compute())


def test_collection():
    collection = MetricCollection([EmpiricalSensitivity(), LayerwiseNormSensitivity(), ActiveNodeSensitivity()])
    for part in INPUTS.split([5, 7]):
        collection.update(NET, part)
    values = collection.compute()
    assert_equal(values["EmpiricalSensitivity"], tangent_sensitivity(NET, INPUTS).mean())
    assert_equal(values["ActiveNodeSensitivity"], fed(ActiveNodeSensitivity()).compute())
    assert_equal(values["LayerwiseNormSensitivity"], log_max_weights(NET).sum())


@pytest.mark.parametrize("name", MEASURES)
def test_plot(name):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    measure = fed(MEASURES[name]())
    for values in (None, measure.compute(), [measure.compute(), measure.compute()]):
        figure, axis = measure.plot(values)
        assert axis.has_data()
        matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("name", ["empirical", "empirical per layer", "active nodes"])
@pytest.mark.parametrize("split", [[6, 6], [3, 4, 5], [11, 0, 1], [0, 12]])
def test_sync(name, split):
    measure, others = synced(MEASURES[name], split)
    own = {key: state for key, state in measure.metric_state.items() if isinstance(state, torch.Tensor)}
    whole = fed(MEASURES[name]())
    with measure.sync_context(**others):
        assert measure.count == 12
        values, layers, distributions = measure.values(), measure.part_values(), measure.distributions()
    for key, expected in whole.values().items():
        assert_equal(values[key], expected)
    assert layers.keys() == whole.part_values().keys()
    for key, expected in whole.part_values().items():
        assert_equal(layers[key], expected)
    assert distributions.keys() == whole.distributions().keys()
    for part, expected in whole.distributions().items():
        assert_equal(distributions[part], expected)
    # the measure's own share is back
    assert measure.count == split[0]
    assert all(torch.equal(getattr(measure, key), state) for key, state in own.items())


def test_sync_in_compute():
    measure, others = synced(EmpiricalSensitivity, [5, 7])
    measure.dist_sync_fn, measure.distributed_available_fn = others["dist_sync_fn"], others["distributed_available"]
    assert_equal(measure.compute(), tangent_sensitivity(NET, INPUTS).mean())


def test_sync_of_the_layer_norm_and_of_the_loss():
    measure = LayerwiseNormSensitivity()
    measure.update(NET)
    measure.dist_sync_fn, measure.distributed_available_fn = gathered(measure, measure.clone()), lambda: True
    assert_equal(measure.compute(), log_max_weights(NET).sum())

    outputs = NET.eval()(INPUTS).detach()
    losses = [LabelledLoss(), LabelledLoss(), LabelledLoss()]
    losses[0].update(outputs[:5], TARGETS[:5])
    losses[1].update(outputs[5:], TARGETS[5:])
    with losses[0].sync_context(dist_sync_fn=gathered(*losses), distributed_available=lambda: True):
        assert_equal(losses[0].total / losses[0].count, F.cross_entropy(outputs, TARGETS))
        assert_equal(losses[0].accuracy(), (outputs.argmax(1) == TARGETS).double().mean())


def test_equation_6():
    now, before = {"layer_norm": -3.0}, {"layer_norm": -2.0}
    assert LayerwiseNormSensitivity("linear").log_ratio(now, before) == pytest.approx(2 * (-2 + 3))
    assert LayerwiseNormSensitivity("log").log_ratio(now, before) == pytest.approx(math.log(2 / 3))
    both = {"layer_norm": 3.0}, {"layer_norm": 2.0}
    assert LayerwiseNormSensitivity().log_ratio(*both) == pytest.approx(math.log(2 / 3))
    assert LayerwiseNormSensitivity("linear").log_ratio({"layer_norm": 1.0}, {"layer_norm": -1.0}) == -4

    measure = LayerwiseNormSensitivity("linear")
    model = copy.deepcopy(NET)
    measure.update(model)
    first = {"layer_norm": float(measure.compute())}
    with torch.no_grad():
        model[0].weight *= 2
    measure.reset()
    measure.update(model)
    second = {"layer_norm": float(measure.compute())}
    assert math.exp(measure.log_ratio(second, first)) == pytest.approx(1 / 4)


@pytest.mark.parametrize(("now", "before"), [(1.0, -1.0), (-1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1e-4, 1.0), (-1.0, -1e-4)])
def test_equation_6_by_logarithms_is_refused_next_to_its_pole(now, before):
    with pytest.raises(UndefinedEstimateError, match=f"log Π w_max was {before:.3g} and is {now:.3g}; the ratio of the"):
        LayerwiseNormSensitivity("log").log_ratio({"layer_norm": now}, {"layer_norm": before})


def test_equation_6_of_a_layer_of_zeros():
    for form in ("log", "linear"):
        with pytest.raises(UndefinedEstimateError, match="was -1 and is -inf; their ratio is"):
            LayerwiseNormSensitivity(form).log_ratio({"layer_norm": -math.inf}, {"layer_norm": -1.0})


def test_equation_7():
    model, inputs = CHAINS["with biases"].make(samples=40)
    target, reference = (
        fed(ActiveNodeSensitivity(), [20], inputs[:20], model),
        fed(ActiveNodeSensitivity(), [20], inputs[20:], model),
    )
    values = [{key: float(value) for key, value in m.values().items()} for m in (target, reference)]
    psi = [log_psi(4, v["active_nodes_mean"], v["active_nodes_std"]) for v in values]
    assert target.log_ratio(*values) == pytest.approx(psi[0] - psi[1])
    assert psi[0] != psi[1]
    with pytest.raises(UndefinedEstimateError, match=r"log ψ. is -inf and 1.0: no hidden unit is active on one of the sets"):
        target.log_ratio({"active_nodes": -math.inf}, {"active_nodes": 1.0})
    with pytest.raises(UndefinedEstimateError, match="no hidden unit is active"):
        target.log_ratio({"active_nodes": 1.0}, {"active_nodes": -math.inf})


def test_equation_8():
    assert EmpiricalSensitivity().log_ratio({"empirical": 6.0}, {"empirical": 2.0}) == pytest.approx(math.log(3))
    for target, reference in [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0)]:
        with pytest.raises(UndefinedEstimateError, match=r"the mean squared sensitivities are .*only if both are positive"):
            EmpiricalSensitivity().log_ratio({"empirical": target}, {"empirical": reference})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmpiricalSensitivity(outputs="all"), "outputs: expected 'sum', 'each'"),
        (lambda: EmpiricalSensitivity(outputs=torch.ones(1, 1)), "outputs: expected a weighting of shape"),
        (
            lambda: EmpiricalSensitivity(quantiles=(0.5, 1.5)),
            r"quantiles: expected numbers between 0 and 1, but got \(0.5, 1.5\)",
        ),
        (
            lambda: ActiveNodeSensitivity(depth=0),
            "depth: expected a positive integer, but got 0",
        ),
        (lambda: ActiveNodeSensitivity(depth=2.5), "depth: expected a positive integer.*2.5"),
        (lambda: LayerwiseNormSensitivity(form="ratio"), r"form: expected one of \['log', 'linear'\], but got 'ratio'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
