"""Figures: pure functions of a monitor's records or of tensors, drawn by matplotlib.

Most take ``ax``, an axis to draw on, and return the figure and the axis, as torchmetrics does. Figures are not registered
with pyplot, so a training that draws them keeps its backend and its memory.
"""

from lightning_tansens.show.figures.answer import plot_answer
from lightning_tansens.show.figures.distributions import plot_histograms_over_epochs
from lightning_tansens.show.figures.estimates import plot_estimates, plot_scatter_estimates
from lightning_tansens.show.figures.images import plot_extreme_samples
from lightning_tansens.show.figures.sensitivities import plot_layer_shares, plot_sensitivities

__all__ = [
    "plot_answer",
    "plot_estimates",
    "plot_extreme_samples",
    "plot_histograms_over_epochs",
    "plot_layer_shares",
    "plot_scatter_estimates",
    "plot_sensitivities",
]
