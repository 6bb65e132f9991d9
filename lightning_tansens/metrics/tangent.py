"""Base classes for measures of a network as a function of x, and of its squared tangent sensitivity."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.metrics.base import Measure, TangentOptions
from lightning_tansens.metrics.samples import SampleMeasure
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.methods import Choice, Method
from lightning_tansens.tangent.network import Weightings
from lightning_tansens.tangent.sensitivity import chosen_method, tangent_sensitivity_blocks


class FunctionMeasure(Measure):
    """Base class for measures of a network as a function f of one tensor x.

    Args:
        outputs: "sum" (u = 1), "each" or a weighting of shape (C,).
        wrt: Which tensor is x: an input's name or position, or the module whose output is x.
        output: Picks the tensor of outputs, where the model returns a tuple, a dict or the like.
        kwargs: Passed to :class:`torchmetrics.Metric`.
    """

    def __init__(
        self, outputs: Weightings = "sum", wrt: Wrt = None, output: OutputPicker | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tangent = TangentOptions(outputs, wrt=wrt, output=output)


class TangentMeasure(FunctionMeasure, SampleMeasure):
    """Base class for measures of ‖S_u(x)‖_F², with the options of :func:`~lightning_tansens.functional.tangent_sensitivity`.

    Args:
        outputs: "sum" (u = 1), "each" or a weighting of shape (C,).
        method: "auto", "exact", "stochastic", "input_space" or "parameter_space".
        num_probes: Number of random probes a sample, where the method needs them.
        seed: Names the probes; sets that are compared share them, so that their noise partly cancels in the ratio.
        kwargs: ``wrt`` and ``output`` of :class:`~lightning_tansens.metrics.FunctionMeasure`.
    """

    choice: Choice | None = None  #: How the last network was measured and why.

    def __init__(
        self, outputs: Weightings = "sum", method: Method = "auto", num_probes: int = 1, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(outputs, **kwargs)
        self.tangent = replace(self.tangent, method=method, num_probes=num_probes, seed=seed)

    def blocks(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> dict[str, Tensor]:
        """Returns the squared norm of each parameter's block, shapes (N,) or, for each output, (N, C), by name."""
        options = self.tangent
        if len(positions):
            self.choice = chosen_method(model, inputs, options.method, options.wrt, options.output)
        return tangent_sensitivity_blocks(
            model,
            inputs,
            method=options.method,
            num_probes=options.num_probes,
            generator=torch.Generator().manual_seed(options.seed),
            positions=positions,
            **options.function,
        )

    def note(self) -> str | None:
        return None if self.choice is None else f"tangent sensitivity is measured by {self.choice}"
