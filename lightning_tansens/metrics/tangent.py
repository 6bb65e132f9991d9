"""How metrics ask for the tangent sensitivity of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_callable, check_seed, checked_positions
from lightning_tansens.tangent.methods import Choice, Method, check_probes
from lightning_tansens.tangent.network import OutputPicker, Wrt, batch_length
from lightning_tansens.tangent.outputs import Outputs, check_outputs
from lightning_tansens.tangent.sensitivity import chosen_method, tangent_sensitivity_blocks


class TangentQuestion:
    """The options of :func:`~lightning_tansens.tangent.sensitivity`, asked of one batch after another.

    Args:
        outputs: "sum", "each" or a weighting of shape (C,).
        method: The way of computing.
        num_probes: Number of random probes a sample, where the method needs them.
        seed: Names the probes; sets that are compared share them, so that their noise partly cancels in a ratio.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.

    Attributes:
        choice: How the last network was measured and why.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    """

    def __init__(
        self,
        outputs: Outputs = "sum",
        method: Method = "auto",
        num_probes: int = 1,
        seed: int = 0,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
    ) -> None:
        check_outputs(outputs)
        check_probes(method, num_probes)
        check_seed(seed)
        check_callable("output", output)
        self.outputs = outputs
        self.method: Method = method
        self.num_probes = num_probes
        self.seed = seed
        self.wrt = wrt
        self.output = output
        self.choice: Choice | None = None

    def blocks(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Returns the squared norm of each parameter's block, shapes (N,) or, for each output, (N, C), by name."""
        if positions is not None:
            positions = checked_positions("positions", positions, batch_length(inputs))
        self.choice = chosen_method(model, inputs, self.method, self.wrt, self.output)
        return tangent_sensitivity_blocks(
            model,
            inputs,
            outputs=self.outputs,
            method=self.method,
            num_probes=self.num_probes,
            generator=torch.Generator().manual_seed(self.seed),
            indices=positions,
            wrt=self.wrt,
            output=self.output,
        )

    def note(self) -> str | None:
        """Returns how the network is measured, and why, once it has been."""
        return None if self.choice is None else f"tangent sensitivity is measured by {self.choice}"
