"""Chooses and draws the figures of a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tansens.record import Record
from lightning_tansens.show.figures import (
    plot_estimates,
    plot_extreme_samples,
    plot_histograms_over_epochs,
    plot_layer_shares,
)
from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.keys import Keys

#: The measure whose samples and layers are drawn, and whose precision is told.
MEASURE = "empirical"


@dataclass(frozen=True)
class ShownSamples:
    """The samples of a target and their sensitivities, for the picture of the least and the most sensitive ones."""

    squares: Tensor  #: ‖S(x)‖_F² of each sample, shape (M,).
    numbers: Sequence[int]  #: Each sample's index in its data set.
    inputs: Callable[[Sequence[int]], Any]  #: Returns the inputs of the samples at some places of ``squares``, as one batch.

    def extreme_images(self, count: int) -> tuple[Tensor, Tensor, list[int]] | None:
        """Returns images, ‖S(x)‖_F² and numbers of the least and the most sensitive samples; None if these are no images."""
        order = self.squares.argsort().tolist()
        count = min(count, len(order) // 2)
        if not count:
            return None
        places = [*order[:count], *order[-count:]]
        images = self.inputs(places)
        return (images, self.squares[places], [self.numbers[place] for place in places]) if _are_images(images) else None


def draw_figures(
    records: Sequence[Record],
    active_nodes: Mapping[int, Mapping[str, Tensor]],
    samples: Mapping[str, ShownSamples],
    num_images: int,
    keys: Keys,
) -> Iterator[tuple[str, Figure]]:
    """Draws what there is to draw of a run so far, one figure after another.

    The active nodes are those of each sample of each set, for some epochs; so many of the least and of the most sensitive
    images are drawn.

    Yields:
        A tag and a figure.
    """
    for target in records[-1].targets.values():
        for quantity, found in target.estimates.items():
            if found:
                yield keys.value("figures", f"{target.name}_{quantity}"), plot_estimates(records, target.name, quantity)[0]
        measure = target.measures.get(MEASURE)
        if measure is not None and measure.parts:
            yield keys.value("figures", f"{target.name}_layers"), plot_layer_shares(records, target.name, MEASURE)[0]
    if active_nodes:
        yield keys.value("figures", "active_nodes"), plot_histograms_over_epochs(active_nodes)[0]
    for name, of_set in samples.items() if num_images else ():
        extreme = of_set.extreme_images(num_images)
        if extreme is not None:
            images, squares, numbers = extreme
            figure, _ = plot_extreme_samples(images, squares, k=num_images, numbers=numbers)
            yield keys.value("figures", f"{name}_samples"), figure


def _are_images(inputs: Any) -> bool:
    """Whether these are images of one or three channels, with finite pixels; sequences of vectors are none."""
    shaped = isinstance(inputs, Tensor) and inputs.dim() == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 1
    return shaped and inputs.is_floating_point() and bool(torch.isfinite(inputs).all())
