"""What happens when a measurement fails."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import lightning.pytorch as pl
from torch import nn

from lightning_tansens.errors import DisturbedTrainingError, FailedElsewhereError, NonFiniteWeightsError
from lightning_tansens.tangent.isolation.memory import plain_parts

#: "raise" stops the training, "warn" says so once and goes on, "ignore" goes on.
OnFailure = Literal["raise", "warn", "ignore"]


class Failures:
    """Decides what happens after a measurement has failed, on all processes together."""

    def __init__(self, policy: OnFailure) -> None:
        self._policy = policy
        self._said: set[type[Exception]] = set()
        #: Why the last failed measurement failed; None if none has.
        self.last: str | None = None

    @contextmanager
    def handled(self, trainer: pl.Trainer) -> Iterator[None]:
        """Raises what the block raises, or warns about the first error of its kind, or does nothing."""
        try:
            yield
        except Exception as error:  # whatever the user's code raises; all processes have left the measurement
            if self._policy == "raise" or isinstance(error, DisturbedTrainingError):
                raise
            self.last = _cause(error)
            if self._policy == "ignore" or type(error) in self._said:
                return
            self._said.add(type(error))
            # the process that failed says why; the others would repeat one another
            if trainer.is_global_zero or not isinstance(error, FailedElsewhereError):
                warnings.warn(
                    f"TangentSensitivityMonitor: the measurement after epoch {trainer.current_epoch} failed, its values are "
                    f"left out and the run goes on: {self.last}; options=Options(on_failure='raise') stops instead (said "
                    "once for each type of error)",
                    stacklevel=1,
                )


def check_finite(network: nn.Module) -> None:
    """Raises NonFiniteWeightsError if a weight is infinite or not a number."""
    for name, parameter in network.named_parameters():
        if not all(bool(part.isfinite().all()) for part in plain_parts(parameter)):
            raise NonFiniteWeightsError(
                f"expected finite weights, but '{name}' has infinite ones or ones that are not a number; a smaller "
                "learning rate or gradient clipping may keep the training from diverging"
            )


def _cause(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {error}"
