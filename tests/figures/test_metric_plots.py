"""``plot`` of every measure: the values, with a label that names them and their unit."""

import inspect
import sys

import pytest
import torch
from matplotlib import pyplot
from torch import nn
from torchmetrics import Metric, MetricCollection

from lightning_tansens import metrics
from lightning_tansens.metrics import (
    ActivationPatterns,
    ActiveNodeSensitivity,
    ClassSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    GradientDifference,
    InputOutputSensitivity,
    LabelledLoss,
    LayerwiseNormSensitivity,
    MeanTangentSensitivity,
    NeuronMargins,
    OutputSensitivity,
    PatternInformation,
    RegionSensitivity,
    SensitivityMovement,
    SpectralNormSensitivity,
)
from lightning_tansens.show.figures.labels import VALUES
from tests.cases import Case, mlp

CASE = Case(lambda: mlp(4, 6, 5, 3), outputs=3)
NET, INPUTS = CASE.make(samples=9)
MOVED, _ = CASE.make(seed=1)
TARGETS = torch.arange(9) % 3

#: Every class, with how it is made; a new one must be added here.
MEASURES = {
    ActivationPatterns: ActivationPatterns,
    ActiveNodeSensitivity: ActiveNodeSensitivity,
    ClassSensitivity: ClassSensitivity,
    EmpiricalSensitivity: EmpiricalSensitivity,
    FisherRaoSensitivity: FisherRaoSensitivity,
    GradientDifference: lambda: GradientDifference(lambda x: x + 1),
    InputOutputSensitivity: InputOutputSensitivity,
    LabelledLoss: LabelledLoss,
    LayerwiseNormSensitivity: LayerwiseNormSensitivity,
    MeanTangentSensitivity: MeanTangentSensitivity,
    NeuronMargins: NeuronMargins,
    OutputSensitivity: OutputSensitivity,
    PatternInformation: PatternInformation,
    RegionSensitivity: RegionSensitivity,
    SensitivityMovement: SensitivityMovement,
    SpectralNormSensitivity: SpectralNormSensitivity,
}

#: Those that draw their parts rather than one point.
WITH_PARTS = (ClassSensitivity, OutputSensitivity)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    pyplot.close("all")


def fed(measure):
    if isinstance(measure, LabelledLoss):
        measure.update(NET.eval()(INPUTS).detach(), TARGETS)
    elif isinstance(measure, metrics.LabelledMeasure):
        measure.update(NET, INPUTS, TARGETS)
    else:
        measure.update(NET, INPUTS)
    if isinstance(measure, SensitivityMovement):
        measure.remember()
        measure.reset()
        measure.update(MOVED, INPUTS)
    return measure


def heights(ax):
    return [float(y) for line in ax.lines for y in line.get_ydata()]


def test_every_class_is_here():
    public = {getattr(metrics, name) for name in metrics.__all__}
    assert {cls for cls in public if issubclass(cls, Metric) and not inspect.isabstract(cls)} == set(MEASURES)
    assert {cls.key for cls in MEASURES if cls is not LabelledLoss} <= set(VALUES)


@pytest.mark.parametrize("cls", [cls for cls in MEASURES if cls not in WITH_PARTS])
def test_a_point(cls):
    measure = fed(MEASURES[cls]())
    figure, ax = measure.plot()
    assert ax.figure is figure
    value = float(measure.compute())
    assert value != 0  # a number that is worth drawing
    assert heights(ax) == [pytest.approx(value)]
    name, unit = ax.get_ylabel().removesuffix("]").split(" [")
    assert name
    assert unit


@pytest.mark.parametrize("cls", MEASURES)
def test_a_curve_on_a_given_axis(cls):
    measure = fed(MEASURES[cls]())
    value = measure.compute()
    figure, (given, other) = pyplot.subplots(1, 2)
    same, ax = measure.plot([value, 2 * value, float(value)], ax=given)
    assert same is figure
    assert ax is given
    assert heights(ax) == pytest.approx([float(value), 2 * float(value), float(value)])
    assert ax.get_xlabel() == "measurement"
    assert " [" in ax.get_ylabel()
    assert not other.has_data()


def test_every_class_of_parts_draws_them():
    """The others are covered by test_a_point."""
    for cls in WITH_PARTS:
        _, ax = fed(MEASURES[cls]()).plot()
        assert len(ax.patches) == 3


def test_bars_of_outputs():
    measure = fed(OutputSensitivity())
    figure, ax = measure.plot()
    assert ax.figure is figure
    parts = measure.part_values()
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([float(value) for value in parts.values()])
    assert [label.get_text() for label in ax.get_xticklabels()] == list(parts) == ["0", "1", "2"]
    assert ax.get_xlabel() == "output"
    assert ax.get_ylabel() == r"mean $\|S_{e_c}\|_F$ [output / (parameter · input)]"
    given = pyplot.subplots()[1]
    assert measure.plot(ax=given) == (given.figure, given)


def test_bars_of_classes():
    measure = fed(ClassSensitivity())
    _, ax = measure.plot()
    expected = [float(measure.part_values()[name]) for name in ("0", "1", "2")]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(expected)
    assert ax.get_xlabel() == "class"


def test_matrix_of_classes_and_outputs():
    measure = ClassSensitivity(matrix=True)
    measure.update(NET, INPUTS[:2], torch.tensor([0, 2]))  # none of class 1
    figure, ax = measure.plot()
    parts = measure.part_values()
    expected = [[float(parts[f"{k}/{c}"]) for c in range(3)] for k in (0, 2)]
    assert ax.images[0].get_array().tolist() == [pytest.approx(row) for row in expected]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2"]
    assert [text.get_text() for text in ax.texts] == [f"{value:.3g}" for row in expected for value in row]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("output", "class")
    assert figure.axes[1].get_ylabel() == r"mean $\|S_{e_c}\|_F$ [output / (parameter · input)]"


@pytest.mark.parametrize(("cls", "names"), [(EmpiricalSensitivity, ["0", "2", "4"]), (ActiveNodeSensitivity, ["1", "3"])])
def test_layers(cls, names):
    """One point a layer with its name in the legend, as torchmetrics does for values by name; a curve each over time."""
    measure = fed(cls(per_layer=True))
    parts = measure.part_values()
    _, ax = measure.plot()
    assert {line.get_label(): float(line.get_ydata()[0]) for line in ax.lines} == pytest.approx(
        {name: float(value) for name, value in parts.items()}
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    assert ax.get_ylabel() != VALUES["active_nodes"].name
    _, ax = measure.plot([parts, {name: 2 * value for name, value in parts.items()}])
    first = ax.lines[0]
    assert first.get_label() == names[0]
    assert first.get_ydata().tolist() == pytest.approx([float(parts[names[0]]), 2 * float(parts[names[0]])])


def test_labels_of_active_nodes():
    """The parts are numbers of units, the whole is a logarithm."""
    assert fed(ActiveNodeSensitivity(per_layer=True)).plot()[1].get_ylabel() == "mean number of active hidden units [units]"
    assert fed(ActiveNodeSensitivity()).plot()[1].get_ylabel() == r"active nodes, $\log\,\psi^*$ [natural logarithm]"


def test_parts_of_all_processes_are_drawn():
    """The other process has as many samples, all of them without any sensitivity, which halves the means."""
    measure = fed(
        OutputSensitivity(
            dist_sync_fn=lambda own, group=None: [own, torch.zeros_like(own) if own.dim() else own],
            distributed_available_fn=lambda: True,
        )
    )
    own = [float(value) for value in measure.part_values().values()]
    _, ax = measure.plot()
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([value / 2 for value in own])
    assert [float(value) for value in measure.part_values().values()] == own  # its own share is back


def test_units_of_a_loss():
    assert fed(LabelledLoss()).plot()[1].get_ylabel() == "mean loss [nats]"
    other = LabelledLoss(nn.MultiMarginLoss())
    assert fed(other).plot()[1].get_ylabel() == "mean loss [units of the criterion]"


def test_a_collection():
    collection = MetricCollection([EmpiricalSensitivity(), InputOutputSensitivity()])
    collection.update(NET, INPUTS)
    labels = [ax.get_ylabel() for _, ax in collection.plot()]
    assert labels == [str(VALUES["empirical"]), str(VALUES["input_output"])]


def test_a_measure_of_ones_own():
    class MyOwn(EmpiricalSensitivity):
        key = "my_own"

        def compute(self):
            return self.total / self.count

    assert fed(MyOwn()).plot()[1].get_ylabel() == "my own"


@pytest.mark.parametrize(
    "measure", [EmpiricalSensitivity(), LabelledLoss(), ClassSensitivity()], ids=lambda m: type(m).__name__
)
def test_what_is_refused(measure):
    with pytest.raises(
        TypeError, match=r"val: expected what compute\(\) returned, a dict by name or a sequence of them, but got str"
    ):
        measure.plot("empirical")
    with pytest.raises(ValueError, match="val: expected at least one value, but got an empty sequence"):
        measure.plot([])


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for make in MEASURES.values():
        with pytest.raises(ModuleNotFoundError, match=r'pip install "lightning-tansens\[figures\]"'):
            fed(make()).plot()
