"""The exact ‖S(x)‖_F² of any network, one input direction after another: for the truth on a few samples."""

import logging
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_tansens.tangent.memory import WHOLE, Blocks
from lightning_tansens.tangent.network import Network, Weightings, derivatives, output_weightings
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.input_space import input_space_blocks

#: A measurement that will take longer than this warns before it goes on.
SECONDS_TO_WARN = 10.0

#: The number of unit vectors in a pass.
_CHUNK = 64

_log = logging.getLogger(__name__)


def exact_by_forward_mode(network: Network, outputs: Weightings, axes: BatchAxes | None) -> Blocks:
    """Sums ‖S e_d‖² over the D unit vectors, in chunks of one sample's repetitions, shape (N, U).

    Without the axes, which input-space probes need, it takes one double backward at a time and no layer rules.
    """
    rows: list[Blocks] = []
    cost = _Cost(network.x[0].numel(), len(network))
    for n in range(len(network)):
        one = network.part([n])
        if axes is None:
            rows.append({WHOLE: _by_double_backward(one, outputs, cost)})
            continue
        units = torch.eye(one.x.numel(), device=one.x.device, dtype=one.x.dtype).reshape(-1, *one.x.shape[1:])
        sums: list[Blocks] = []
        for start in range(0, len(units), _CHUNK):
            directions = units[start : start + _CHUNK]
            blocks = input_space_blocks(network.part([n] * len(directions)), directions, outputs, axes)
            sums.append({name: values.sum(0, keepdim=True) for name, values in blocks.items()})
            cost.say(len(directions))
        rows.append({name: torch.stack([part[name] for part in sums]).sum(0) for name in sums[0]})
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


class _Cost:
    """Says after the first directions how long all of them will take."""

    def __init__(self, directions: int, samples: int) -> None:
        self._directions, self._samples = directions, samples
        self._begun = time.perf_counter()
        self._said = False

    def say(self, done: int, repetitions: int = 1) -> None:
        total = self._directions * self._samples * repetitions
        if self._said or done >= total:
            return
        self._said = True
        seconds = (time.perf_counter() - self._begun) * total / done
        _log.log(
            logging.WARNING if seconds > SECONDS_TO_WARN else logging.INFO,
            "method='exact' takes %d directions for each of %d samples, about %.0f s; method='stochastic' takes one",
            self._directions,
            self._samples,
            seconds,
        )


def _by_double_backward(network: Network, outputs: Weightings, cost: _Cost) -> Tensor:
    """Σ_d ‖∂(∂(u·f)/∂x_d)/∂θ‖² of a single sample, shape (1, U)."""
    x, output = network.differentiable()
    columns = []
    weightings = output_weightings(outputs, output)
    for weighting in weightings:
        total = torch.zeros(1, dtype=weighting.dtype, device=weighting.device)
        for row in double_backwards((output * weighting).sum(), x, list(network.trainable.values())):
            total += sum(part.abs().to(total.dtype).square().sum() for part in row if part is not None)
            cost.say(1, len(weightings))
        columns.append(total)
    return torch.stack(columns, 1)


def double_backwards(scalar: Tensor, x: Tensor, parameters: Sequence[Tensor]) -> Iterator[Sequence[Tensor | None]]:
    """Yields ∂(Σ_n ∂scalar/∂x_nd)/∂θ for each coordinate d, by parameter: samples are independent and are taken at once."""
    (slope,) = derivatives(scalar, [x], create_graph=True) if parameters else (None,)
    for coordinate in slope.reshape(len(slope), -1).sum(0) if slope is not None and slope.requires_grad else ():
        yield torch.autograd.grad(coordinate, parameters, retain_graph=True, allow_unused=True)
