"""Chooses what the loggers are sent."""

from dataclasses import dataclass
from typing import Literal, get_args

from lightning_tansens.checks import check_choice, check_counts, check_numbers

#: Which scalars are logged.
LogChoice = Literal["default", "all"]


@dataclass(frozen=True)
class Display:
    """Chooses what a monitor sends to the loggers.

    Args:
        log: Which scalars: "default" for the headline, the measures, their estimates, the reference's own loss and
            accuracy, the truth, and the estimators that were passed by name, without values of the default measures that
            look like others; "all" for everything in the history, standard errors among it.
        layout: Whether charts are grouped by question, once a run (TensorBoard's custom scalars).
        texts: Whether a table says what is known of the unlabelled sets, at each measurement, and the measures are
            described, once a run.
        histograms: Whether the distributions over the samples are sent at each measurement.
        figure_time: The share of the run's time that drawing figures may take: 0 for none, 1 for figures at every
            measurement. Figures are drawn after the first measurement, after the last, and between them as often as the
            share allows; the picture of the unlabelled sets, which comes first, is drawn at every measurement unless this is
            0. They need matplotlib; without it none are drawn.
        num_images: How many of the least and of the most sensitive samples of each test set are drawn, where they are
            images; 0 for none.

    Raises:
        ValueError: If the share or the number is out of range.

    Example:
        >>> Display(figure_time=0).histograms
        True
    """

    log: LogChoice = "default"
    layout: bool = True
    texts: bool = True
    histograms: bool = True
    figure_time: float = 0.01
    num_images: int = 8

    def __post_init__(self) -> None:
        check_choice("log", self.log, get_args(LogChoice))
        check_numbers(at_least=0, figure_time=self.figure_time)
        if self.figure_time > 1:
            raise ValueError(f"figure_time: expected a share between 0 and 1, but got {self.figure_time!r}")
        check_counts(at_least=0, num_images=self.num_images)
