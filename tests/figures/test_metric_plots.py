"""``plot`` of every measure is torchmetrics' own: a point, a curve, or values by name."""

import inspect
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot
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
    public = {found for name in metrics.__all__ if isinstance(found := getattr(metrics, name), type)}
    assert {cls for cls in public if issubclass(cls, Metric) and not inspect.isabstract(cls)} == set(MEASURES)


@pytest.mark.parametrize("cls", MEASURES)
def test_a_point(cls):
    measure = fed(MEASURES[cls]())
    figure, ax = measure.plot()
    assert ax.figure is figure
    value = float(measure.compute())
    assert value != 0  # a number that is worth drawing
    assert heights(ax) == [pytest.approx(value)]


@pytest.mark.parametrize("cls", MEASURES)
def test_a_curve_on_a_given_axis(cls):
    measure = fed(MEASURES[cls]())
    value = measure.compute()
    given, other = pyplot.subplots(1, 2)[1]
    _, ax = measure.plot([value, 2 * value, 3 * value], ax=given)
    assert ax is given
    assert heights(ax) == pytest.approx([float(value), 2 * float(value), 3 * float(value)])
    assert not other.has_data()


@pytest.mark.parametrize("cls", [EmpiricalSensitivity, ActiveNodeSensitivity])
def test_layers(cls):
    """One point a layer with its name in the legend, as torchmetrics does for values by name; a curve each over time."""
    measure = fed(cls(per_layer=True))
    parts = measure.part_values()
    _, ax = measure.plot(parts)
    assert {line.get_label(): float(line.get_ydata()[0]) for line in ax.lines} == pytest.approx(
        {name: float(value) for name, value in parts.items()}
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(parts)
    _, ax = measure.plot([parts, {name: 2 * value for name, value in parts.items()}])
    first, name = ax.lines[0], next(iter(parts))
    assert first.get_label() == name
    assert first.get_ydata().tolist() == pytest.approx([float(parts[name]), 2 * float(parts[name])])


def test_samples_of_all_processes_are_drawn():
    """The other process has as many samples, all of them without any sensitivity, which halves the mean."""

    def twice(own, group=None):
        return [own, torch.zeros_like(own)]

    measure = fed(OutputSensitivity(dist_sync_fn=twice, distributed_available_fn=lambda: True))
    own = float(measure.values()["output_sensitivity"])
    assert heights(measure.plot()[1]) == [pytest.approx(own / 2)]
    assert float(measure.values()["output_sensitivity"]) == own  # its own share is back


def test_a_collection():
    collection = MetricCollection([EmpiricalSensitivity(), InputOutputSensitivity()])
    collection.update(NET, INPUTS)
    assert [heights(ax) for _, ax in collection.plot()] == [[pytest.approx(float(v))] for v in collection.compute().values()]


def test_nothing_here_imports_pictures():
    """Measures draw by torchmetrics alone; what is drawn of a run is in another room."""
    package = Path(metrics.__file__).parents[1]
    for room in ("metrics", "functional", "bounds"):
        for path in (package / room).glob("*.py"):
            if path.name != "labelled_loss.py":
                assert "lightning_tansens.show" not in path.read_text(encoding="utf-8"), path
