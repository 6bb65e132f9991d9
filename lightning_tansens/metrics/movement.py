"""How far the tangent sensitivity moves during a training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.functional.sketches import tangent_sketches
from lightning_tansens.metrics.samples import SampleMeasure
from lightning_tansens.metrics.tangent import FunctionMeasure


class SensitivityMovement(FunctionMeasure, SampleMeasure):
    r"""The relative change of the tangent sensitivity since the last measurement, and since the first.

    .. math:: \frac{\big(\sum_n \|S(\theta_t, x_n) - S(\theta_{t'}, x_n)\|_F^2\big)^{1/2}}
        {\big(\sum_n \|S(\theta_{t'}, x_n)\|_F^2\big)^{1/2}}

    with t' the measurement before (what :meth:`remember` kept), or the start of the training. Around an optimum it goes to
    zero; its distance from the start says how far from its linearisation the network has gone (both papers leave this
    convergence open). The matrices are not stored: the norms are estimated from random bilinear forms of the samples
    (:func:`~lightning_tansens.functional.tangent_sketches`), the same at every measurement. It describes a set and gives no
    estimate; without an earlier measurement ``compute`` returns nan.

    Args:
        num_probes: Number of random combinations of the parameters; each costs a double backward pass.
        seed: Names the random signs.
        kwargs: ``outputs``, ``wrt`` and ``output`` of :class:`~lightning_tansens.metrics.FunctionMeasure`.

    Example:
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

    def __init__(self, num_probes: int = 2, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tangent = replace(self.tangent, method="parameter_space", num_probes=num_probes, seed=seed)
        self._memory: dict[str, Tensor] = {}

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns the sketches of the samples, shape (N, M)."""
        options = self.tangent
        return tangent_sketches(
            model, inputs, num_probes=options.num_probes, seed=options.seed, positions=positions, **options.function
        )

    def values(self) -> dict[str, Tensor]:
        """Returns the change since the last measurement and since the first; nothing before there is one."""
        now = self._sketches()
        known = {name: before.to(now) for name, before in self._memory.items() if before.shape == now.shape}
        named = {"last": self.key, "first": f"{self.key}_from_start"}
        return {named[name]: (now - before).norm() / before.norm() for name, before in known.items()}

    def compute(self) -> Tensor:
        return self.values().get(self.key, torch.tensor(math.nan, dtype=torch.float64))

    def remember(self) -> None:
        """Keeps the sketches for the next measurement, and the first ones."""
        now = self._sketches().cpu()
        first = self._memory.get("first", now)
        # another number of samples or parameters is another series
        self._memory = {"first": first if first.shape == now.shape else now, "last": now}

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        self._memory = dict(memory)

    def _sketches(self) -> Tensor:
        """The samples' sketches in the order of their positions, shape (N, M)."""
        return self.rows()[self._joined("positions").argsort()]
