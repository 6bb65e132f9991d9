"""How far the tangent sensitivity moves during a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.checks import check_callable, check_seed, checked_positions
from lightning_tansens.functional.sketches import tangent_sketches
from lightning_tansens.metrics.base import Measure, positions_from
from lightning_tansens.tangent.methods import check_probes
from lightning_tansens.tangent.network import OutputPicker, Wrt, batch_length
from lightning_tansens.tangent.outputs import Outputs, check_outputs


class SensitivityMovement(Measure):
    r"""The relative change of the tangent sensitivity since the last measurement, and since the first.

    .. math:: \frac{\big(\sum_n \|S(\theta_t, x_n) - S(\theta_{t'}, x_n)\|_F^2\big)^{1/2}}
        {\big(\sum_n \|S(\theta_{t'}, x_n)\|_F^2\big)^{1/2}}

    with t' the measurement before, or the start of the training. Around an optimum it goes to zero; its distance from the
    start says how far from its linearisation the network has gone (both papers leave this convergence open). The matrices
    are not stored: the norms are those of random bilinear forms of the samples
    (:func:`~lightning_tansens.functional.tangent_sketches`), the same at every measurement. It describes a set and gives no
    estimate.

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: the change since the last
    measurement (what :meth:`remember` kept), a scalar without unit; nan where there is none.

    Args:
        outputs: "sum" (u = 1), "each" or a weighting of shape (C,).
        num_probes: Number of random combinations of the parameters; each costs a double backward pass.
        seed: Names the random signs.
        wrt: Which tensor is x, see :func:`~lightning_tansens.tangent.sensitivity`.
        output: Picks the tensor of outputs, likewise.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> import torch
        >>> net, x = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 1)), torch.randn(8, 5)
        >>> measure = SensitivityMovement()
        >>> measure.update(net, x)
        >>> measure.remember()
        >>> measure.reset()
        >>> measure.update(net, x)
        >>> measure.compute()  # the weights have not changed
        tensor(0., dtype=torch.float64)

    """

    key = "movement"
    remembers = True

    sketches: list[Tensor]
    positions: list[Tensor]

    def __init__(
        self,
        outputs: Outputs = "sum",
        num_probes: int = 2,
        seed: int = 0,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_outputs(outputs)
        check_probes("parameter_space", num_probes)
        check_seed(seed)
        check_callable("output", output)
        self.outputs = outputs
        self.num_probes = num_probes
        self.seed = seed
        self.wrt = wrt
        self.output = output
        self._memory: dict[str, Tensor] = {}
        self.add_state("sketches", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")

    def update(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        start = sum(len(part) for part in self.sketches)
        samples = batch_length(inputs)
        indices = range(start, start + samples) if positions is None else checked_positions("positions", positions, samples)
        drawn = tangent_sketches(
            model,
            inputs,
            outputs=self.outputs,
            num_probes=self.num_probes,
            seed=self.seed,
            indices=indices,
            wrt=self.wrt,
            output=self.output,
        )
        # flat, as a process without a sample cannot know the number of columns
        self.sketches.append(drawn.to(self.dtype).flatten())
        self.positions.append(positions_from(indices, start, drawn[:, 0].to(self.dtype)))

    def values(self) -> dict[str, Tensor]:
        """Returns the change since the last measurement and since the first; nothing before there is one."""
        now = self._sketches()
        known = {name: before.to(now) for name, before in self._memory.items() if before.shape == now.shape}
        named = {"last": self.key, "first": f"{self.key}_from_start"}
        return {named[name]: _relative(now, before) for name, before in known.items()}

    def compute(self) -> Tensor:
        """Returns the change since the last measurement."""
        return self.values().get(self.key, torch.tensor(math.nan, dtype=torch.float64))

    def remember(self) -> None:
        """Keeps the sketches for the next measurement, and the first ones."""
        now = self._sketches().cpu()
        first = self._memory.get("first", now)
        # another number of samples or parameters is another series
        self._memory = {"first": first if first.shape == now.shape else now, "last": now}

    def memory(self) -> dict[str, Tensor]:
        """Returns the sketches of the first and of the last measurement."""
        return self._memory

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Continues where a training was interrupted."""
        self._memory = dict(memory)

    def _sketches(self) -> Tensor:
        """The samples' sketches in the order of their positions, shape (N, M)."""
        if not len(self.sketches):
            return torch.zeros(0, 0, dtype=torch.float64)
        positions = dim_zero_cat(self.positions)
        sketches = dim_zero_cat(self.sketches).double()
        return sketches.reshape(len(positions), -1)[positions.argsort()]


def _relative(now: Tensor, before: Tensor) -> Tensor:
    return (now - before).square().sum().sqrt() / before.square().sum().sqrt()
