"""The figures of a run are of what was measured."""

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.metrics import EmpiricalSensitivity
from lightning_tansens.show import Display, page
from lightning_tansens.show.keys import Keys
from lightning_tansens.show.pictures import ShownSamples, draw_figures
from tests.boring import BoringModule, Points, fit, loader, make_monitor
from tests.figures.histories import history
from tests.records import record, target


class Pixels(BoringModule):
    """Takes images of 2 × 2 pixels."""

    def forward(self, inputs):
        return self.network(inputs.flatten(1))


def images(samples, seed, shape=(1, 2, 2)):
    points = Points(samples, seed=seed)
    return TensorDataset(points.inputs.reshape(samples, *shape), points.labels)


@pytest.fixture
def drawn(monkeypatch):
    found = []

    def record(*arguments):
        figures = list(draw_figures(*arguments))
        found.append((arguments, dict(figures)))
        return figures

    monkeypatch.setattr(page, "draw_figures", record)
    return found


def run(tmp_path, shape=(1, 2, 2), **options):
    from lightning.pytorch.loggers import TensorBoardLogger

    monitor = make_monitor(
        measures=[EmpiricalSensitivity(per_layer=True)],
        test_dataloaders=images(9, 5, shape),
        on_failure="raise",
        **options,
    )
    train = loader(images(12, 0, shape))
    return fit(monitor, module=Pixels(), data=train, max_epochs=1, logger=TensorBoardLogger(tmp_path, "", ""))


def test_the_extreme_images_are_those_of_the_test_set(drawn, tmp_path):
    trainer = run(tmp_path, display=Display(num_images=2))
    ((_, figures),) = drawn
    assert list(figures) == [f"tansens/figures/test_{name}" for name in ("loss", "accuracy", "layers", "samples")]
    axes = figures["tansens/figures/test_samples"].axes
    numbers = [int(ax.get_xlabel().removeprefix("#")) for ax in axes]
    data = images(9, 5)
    squares = tangent_sensitivity(trainer.lightning_module.eval(), data.tensors[0])
    subset = trainer.callbacks[0]._run.sets[1].subset.indices
    order = sorted(subset, key=lambda n: squares[n])
    assert len(set(numbers)) == 4
    # by value, because samples of one activation region have equal sensitivities, in any order
    expected = [float(squares[n]) for n in [*order[:2], *order[::-1][:2]]]
    assert [float(squares[n]) for n in numbers] == pytest.approx(expected, rel=1e-5)
    assert [float(ax.get_title()) for ax in axes] == pytest.approx([float(squares[n]) for n in numbers], rel=1e-3)


def samples(inputs, squares=(3.0, 1.0, 2.0, 5.0, 4.0)):
    return ShownSamples(torch.tensor(squares), [10 * n for n in range(len(squares))], lambda places: inputs[places])


def test_the_least_and_the_most_sensitive_images():
    inputs = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 2, 2)
    images, squares, numbers = samples(inputs).extreme_images(2)
    assert squares.tolist() == [1, 2, 4, 5]
    assert numbers == [10, 20, 40, 30]
    assert images[:, 0, 0, 0].tolist() == [1, 2, 4, 3]
    assert samples(inputs).extreme_images(8)[2] == numbers  # none is shown twice


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 1, 4), (2, 2, 2)])
def test_other_inputs_are_no_images(shape):
    assert samples(torch.zeros(5, *shape)).extreme_images(2) is None
    assert samples(torch.full((5, 1, 2, 2), torch.nan)).extreme_images(2) is None
    assert ShownSamples(torch.ones(1), [0], lambda places: torch.zeros(1, 1, 2, 2)).extreme_images(2) is None


def test_which_figures_there_are():
    nodes = {0: {"train": torch.tensor([1, 2])}}
    of_test = {"test": samples(torch.rand(5, 1, 2, 2))}
    made = dict(draw_figures(history(), nodes, of_test, 2, Keys("t")))
    assert list(made) == [
        *(f"t/figures/test_{name}" for name in ("loss", "accuracy", "layers")),
        "t/figures/other_loss",
        "t/figures/active_nodes",
        "t/figures/test_samples",
    ]
    assert len(made["t/figures/test_samples"].axes) == 4
    assert not dict(draw_figures([record(targets=[target()])], {}, of_test, 0, Keys("t")))


@pytest.mark.parametrize("options", [{"display": Display(num_images=0)}, {"shape": (4,)}, {"shape": (2, 2)}])
def test_no_images_are_drawn_where_none_are_wanted_or_there(options, drawn, tmp_path):
    run(tmp_path, **options)
    ((_, figures),) = drawn
    assert "tansens/figures/test_samples" not in figures


@pytest.mark.thorough
def test_active_nodes_of_a_few_epochs_are_overlaid(drawn, tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger

    monitor = make_monitor(display=Display(figure_time=1), on_failure="raise")
    fit(monitor, max_epochs=20, logger=TensorBoardLogger(tmp_path, "", ""))
    shown = [list(arguments[1]) for arguments, _ in drawn]
    assert shown[0] == [0]
    assert all(epochs[-1] == epoch for epoch, epochs in enumerate(shown))
    assert max(map(len, shown)) <= page.EPOCHS_SHOWN
    assert all(isinstance(numbers, torch.Tensor) for numbers in drawn[-1][0][1][19].values())
    assert set(drawn[-1][0][1][19]) == {"train", "test"}
