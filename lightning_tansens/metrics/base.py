"""Base classes of all measures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_callable, check_seed
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.states import StatefulMetric
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.methods import Method, check_probes
from lightning_tansens.tangent.network import Weightings, check_outputs

#: How logarithms scale a loss: by their ratio ("log"), or by the ratio of the numbers themselves ("linear").
RatioForm = Literal["log", "linear"]

AnyMeasure = TypeVar("AnyMeasure", bound="Measure")


@dataclass(frozen=True)
class TangentOptions:
    """The options of :func:`~lightning_tansens.functional.tangent_sensitivity`, the same for every batch.

    Raises:
        TypeError: If ``output`` cannot be called.
        ValueError: If another option has a value that is not allowed.
    """

    outputs: Weightings = "sum"  #: "sum" (u = 1), "each" or a weighting of shape (C,).
    method: Method = "auto"  #: The way of computing.
    num_probes: int = 1  #: Number of random probes a sample, where the method needs them.
    seed: int = 0  #: Names the probes; sets that are compared share them, so that their noise partly cancels in a ratio.
    wrt: Wrt = None  #: Which tensor is x.
    #: Picks the tensor of outputs, where the model returns a tuple, a dict or the like. A monitor's ``output`` takes its
    #: place where it is None, see :meth:`~lightning_tansens.metrics.Measure.with_output`.
    output: OutputPicker | None = None

    def __post_init__(self) -> None:
        check_outputs(self.outputs)
        check_probes(self.method, self.num_probes)
        check_seed(self.seed)
        check_callable("output", self.output)

    @property
    def function(self) -> dict[str, Any]:
        """The part that says what f and x are, as keyword arguments of the pure functions."""
        return {"outputs": self.outputs, "wrt": self.wrt, "output": self.output}


class Measure(StatefulMetric, ABC):
    """A torchmetrics Metric of one network on one set of inputs.

    As input to ``update``: a model, a batch of shape (N, ...), or a tuple or dict of arguments, and the samples' positions
    in their set, which name random probes and pair samples; None continues where the last batch ended. As output of
    ``compute``: a scalar, under DDP over the samples of all processes.

    To add a measure of one number per sample, subclass :class:`~lightning_tansens.metrics.samples.MeanSensitivity` (its
    ratio on two sets estimates the loss) or :class:`~lightning_tansens.metrics.samples.SampleMeasure` in a file of its own.
    Any other subclasses this class: add states in ``__init__``, fill them in ``update`` and turn them into named numbers in
    :meth:`values`. The monitor logs and syncs any such object.
    """

    key: ClassVar[str]  #: The name under which the measure is logged, e.g. ``empirical`` in ``tansens/empirical/test``.
    needs_data: ClassVar[bool] = True  #: False for a measure of the weights alone; its ``update`` takes the model alone.
    #: The names of values that look like others of the measure, or that its histogram shows; with the measures that are on
    #: by default, the history alone has them.
    details: ClassVar[frozenset[str]] = frozenset()
    #: True for a measure that compares with its own earlier values; it is also taken before the first step.
    remembers: ClassVar[bool] = False

    #: Which tensor is x, which outputs count and how they are measured, for measures to which this matters.
    tangent: TangentOptions = TangentOptions()
    unusable: Tensor  #: The number of samples that were left out because their numbers are not finite, a state.

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("unusable")

    def with_output(self: AnyMeasure, output: OutputPicker | None) -> AnyMeasure:
        """Returns a copy that takes the tensor of outputs from ``output``; itself if it has a picker of its own."""
        check_callable("output", output)
        if output is None or self.tangent.output is not None:
            return self
        copy = self.clone()
        copy.tangent = replace(self.tangent, output=output)
        return copy  # type: ignore[return-value]

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the shapes that depend on the network, from a batch of at least one sample whose values do not matter.

        Every rank calls it before the first update.

        Raises:
            UnsupportedNetworkError: If the measure does not cover the network.
        """

    @abstractmethod
    def values(self) -> dict[str, Tensor]:
        """Returns the scalars to log, by name; one of them is named :attr:`key`. Needs synced states."""

    def part_values(self) -> dict[str, Tensor]:
        """Returns values by part (layer, output, class) to log; none by default. Needs synced states."""
        return {}

    def distributions(self) -> dict[str, Tensor]:
        """Returns numbers for histograms, one a sample, shapes (N,), by part; the whole is "". Needs synced states."""
        return {}

    def note(self) -> str | None:
        """Returns a note to the user on how the network is measured, after :meth:`prepare`; None for none."""
        return None

    def standard_error(self) -> float | None:
        """Returns the standard error of :meth:`compute`, if the measure knows. Needs synced states."""
        return None

    def remember(self) -> None:
        """Keeps the values with which the next measurement is compared; called once per measurement, with synced states."""

    def memory(self) -> dict[str, Tensor]:
        """Returns the kept values, for a checkpoint."""
        return {}

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Takes what :meth:`memory` returned, from a checkpoint."""

    def compute(self) -> Tensor:
        """Returns the measure itself, a scalar; under DDP over the samples of all processes."""
        return self.values()[self.key]


class SensitivityMeasure(Measure):
    """A measure whose ratio on two sets (or at two moments in time) scales the loss: an estimate is built on it."""

    quantity: ClassVar[str] = "values"  #: What the values are called in messages, a plural.
    power: ClassVar[float] = 1.0  #: The power of the ratio of the values by which the reference's loss is scaled.

    @abstractmethod
    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds a batch; the inputs are None where the measure needs no data."""

    def influence(self) -> Influence | None:
        """Returns how far each sample moves the factor's logarithm, if the measure knows. Needs synced states."""
        return None

    def standard_error(self) -> float | None:
        """Returns the standard error of the value, in which randomness that samples share is accounted for."""
        influence = self.influence()
        return None if influence is None else relative_standard_error([influence]) * self._scale() / abs(self.power)

    def _scale(self) -> float:
        """The value's derivative by the logarithm of the number that the factor is a ratio of."""
        return abs(float(self.values()[self.key]))

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of the factor by which the reference's loss is scaled.

        Args:
            target: :meth:`values` on the target set (now, for a measure that needs no data).
            reference: :meth:`values` on the reference set (at the previous measurement).

        Raises:
            UndefinedEstimateError: If these values define no factor; the message says why.
        """
        now, before = target[self.key], reference[self.key]
        if not (0 < now < math.inf and 0 < before < math.inf):
            raise UndefinedEstimateError(
                f"the {self.quantity} are {now:.3g} and {before:.3g}; their ratio is an estimate only if both are positive "
                "and finite"
            )
        return self.power * (math.log(now) - math.log(before))


class LogarithmicMeasure(SensitivityMeasure):
    """A sensitivity measure whose value is a logarithm."""

    #: "linear" scales the loss by the power of the ratio of the numbers, "log" by the ratio of their logarithms.
    form: RatioForm = "linear"
    #: The magnitude that both logarithms must be above for "log"; their ratio has a pole at zero.
    smallest: ClassVar[float] = 0.0
    not_finite: ClassVar[str]  #: The message where a logarithm is not finite: a format of ``now`` and ``before``.
    no_ratio: ClassVar[str]  #: The message where the logarithms have no ratio.

    def _scale(self) -> float:
        return 1.0 if self.form == "linear" else super()._scale()

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        now, before = target[self.key], reference[self.key]
        if not (math.isfinite(now) and math.isfinite(before)):
            raise UndefinedEstimateError(self.not_finite.format(now=now, before=before))
        if self.form == "linear":
            return self.power * (now - before)
        if now * before <= 0 or min(abs(now), abs(before)) <= self.smallest:
            raise UndefinedEstimateError(self.no_ratio.format(now=now, before=before))
        return math.copysign(1, self.power) * math.log(now / before)


class WeightMeasure(LogarithmicMeasure):
    """A measure that needs no data: the logarithm of a product of numbers of the layers, and its change in time."""

    needs_data = False

    log_norms: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers: tuple[str, ...] = ()
        self._sum_state("log_norms")  # its length is learnt from the network
        self._sum_state("count")

    @abstractmethod
    def of_layers(self, model: nn.Module, inputs: Any) -> dict[str, Tensor]:
        """Returns the logarithm of each layer's number, by the weight's name."""

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Takes the weights as they are."""
        norms = self.of_layers(model, inputs)
        if not self.count:
            self.layers = tuple(name.removesuffix(".weight") for name in norms)
            self._sum_state("log_norms", len(norms))
        self.log_norms += torch.stack(list(norms.values())).to(self.log_norms)
        self.count += 1

    def values(self) -> dict[str, Tensor]:
        """Returns the logarithm of the product; the mean over the updates, which all processes agree on."""
        return {self.key: self.log_norms.sum() / self.count}


class LabelledMeasure(Measure):
    """A measure that needs labels; it is logged only, and never enters an estimate."""

    @abstractmethod
    def update(self, model: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds a labelled batch."""


def check_classes(targets: Any, samples: int, measure: Measure) -> None:
    """Raises ValueError unless the labels are class indices, integers of shape (N,)."""
    if not isinstance(targets, Tensor) or targets.shape != (samples,) or targets.is_floating_point():
        came = f"shape {tuple(targets.shape)}, {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
        raise ValueError(
            f"targets: expected class indices of shape ({samples},), but got {came}; leave {type(measure).__name__} out "
            "where the labels are no classes, and pass as many as samples"
        )
