"""The figures of a run are of what was measured."""

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.metrics import EmpiricalSensitivity
from lightning_tansens.show import Display, page
from lightning_tansens.show.pictures import draw_figures
from tests.boring import BoringModule, Points, fit, loader, make_monitor


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
    subset = trainer.callbacks[0]._measurement.sets[1].subset.indices
    order = sorted(subset, key=lambda n: squares[n])
    assert numbers == [*order[:2], *order[::-1][:2]]
    assert [float(ax.get_title()) for ax in axes] == pytest.approx([float(squares[n]) for n in numbers], rel=1e-3)


@pytest.mark.parametrize("options", [{"display": Display(num_images=0)}, {"shape": (4,)}, {"shape": (2, 2)}])
def test_no_images_are_drawn_where_none_are_wanted_or_there(options, drawn, tmp_path):
    run(tmp_path, **options)
    ((_, figures),) = drawn
    assert "tansens/figures/test_samples" not in figures


def test_active_nodes_of_a_few_epochs_are_overlaid(drawn, tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger

    monitor = make_monitor(display=Display(figure_time=1), on_failure="raise")
    fit(monitor, max_epochs=20, logger=TensorBoardLogger(tmp_path, "", ""))
    shown = [list(arguments[3]) for arguments, _ in drawn]
    assert shown[0] == [0]
    assert all(epochs[-1] == epoch for epoch, epochs in enumerate(shown))
    assert max(map(len, shown)) <= page.EPOCHS_SHOWN
    assert all(isinstance(numbers, torch.Tensor) for numbers in drawn[-1][0][3][19].values())
    assert set(drawn[-1][0][3][19]) == {"train", "test"}
