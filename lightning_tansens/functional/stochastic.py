"""Unbiased estimates of ‖S(x)‖_F² from random probes, and the exact value from all unit probes, for any network."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from lightning_tansens.functional.input_space import input_space_blocks
from lightning_tansens.functional.layout import Layouts
from lightning_tansens.functional.memory import Blocks, in_micro_batches
from lightning_tansens.functional.network import Network
from lightning_tansens.functional.outputs import Outputs, output_weightings
from lightning_tansens.functional.parameter_space import parameter_space_norms
from lightning_tansens.functional.probes import BLOCK_SIZE, Projection, input_probes, parameter_probes

#: The name under which methods that cannot tell parameters apart return the whole.
WHOLE = "all"

#: A measurement that will take longer than this says so before it goes on.
SECONDS_TO_SAY = 10.0

_log = logging.getLogger(__name__)


def estimate_in_input_space(
    network: Network,
    outputs: Outputs,
    layouts: Layouts,
    num_probes: int,
    seed: int,
    indices: Sequence[int],
    sample_bytes: int = 0,
) -> Blocks:
    """Averages ‖S_p v‖² over independent input-space probes of each sample; by parameter, shape (N, U)."""

    def measure(part: Network, places: slice) -> Blocks:
        shape, own = part.x.shape[1:], indices[places]
        names = tuple(part.trainable)
        draws = (
            (input_probes(shape, seed, own, probe).to(part.x), Projection(seed, own, probe, names))
            for probe in range(num_probes)
        )
        return mean([input_space_blocks(part, v, outputs, layouts, projection) for v, projection in draws])

    return in_micro_batches(network, measure, sample_bytes)


def estimate_in_parameter_space(
    network: Network, outputs: Outputs, num_probes: int, seed: int, indices: Sequence[int], sample_bytes: int = 0
) -> Blocks:
    """Averages ‖Sᵀ w‖² over parameter-space probes that a block of samples shares, shape (N, U)."""
    parts: list[tuple[list[int], Tensor]] = []
    for block, places in _blocks_of(indices).items():
        draws = [parameter_probes(network.trainable, seed, block, probe) for probe in range(num_probes)]

        def measure(part: Network, _: slice, draws: list[dict[str, Tensor]] = draws) -> Blocks:
            return mean([{WHOLE: parameter_space_norms(part, w, outputs)} for w in draws])

        parts.append((places, in_micro_batches(network.part(places), measure, sample_bytes)[WHOLE]))
    order = torch.tensor([place for places, _ in parts for place in places])
    return {WHOLE: torch.cat([values for _, values in parts])[order.argsort()]}


def exact_by_forward_mode(network: Network, outputs: Outputs, layouts: Layouts | None, chunk: int = 64) -> Blocks:
    """Sums ‖S e_d‖² over the D unit vectors, in chunks of one sample's repetitions, shape (N, U).

    Args:
        network: The network on a batch, in eval mode.
        outputs: "sum", "each" or a weighting.
        layouts: What input-space probes need; None takes one double backward at a time, which needs no layer rules.
        chunk: The number of unit vectors in a pass.

    """
    rows: list[Blocks] = []
    for n in range(len(network)):
        one = network.part([n])
        if layouts is None:
            rows.append({WHOLE: _by_double_backward(one, outputs)})
            continue
        units = torch.eye(one.x.numel(), device=one.x.device, dtype=one.x.dtype).reshape(-1, *one.x.shape[1:])
        sums: list[Blocks] = []
        begun = time.perf_counter()
        for start in range(0, len(units), chunk):
            if n == 0 and start == chunk:
                _say_cost((time.perf_counter() - begun) * len(network) * len(units) / chunk, len(units), len(network))
            directions = units[start : start + chunk]
            blocks = input_space_blocks(network.part([n] * len(directions)), directions, outputs, layouts)
            sums.append({name: values.sum(0, keepdim=True) for name, values in blocks.items()})
        rows.append({name: torch.stack([part[name] for part in sums]).sum(0) for name in sums[0]})
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _say_cost(seconds: float, directions: int, samples: int) -> None:
    level = logging.WARNING if seconds > SECONDS_TO_SAY else logging.INFO
    _log.log(
        level,
        "method='exact' takes %d forward-mode passes for each of %d samples, about %.0f s; method='stochastic' takes one",
        directions,
        samples,
        seconds,
    )


def mean(draws: Sequence[Blocks]) -> Blocks:
    """The mean over probes, by name."""
    return {name: torch.stack([blocks[name] for blocks in draws]).mean(0) for name in draws[0]}


def _by_double_backward(network: Network, outputs: Outputs) -> Tensor:
    """Σ_d ‖∂(∂(u·f)/∂x_d)/∂θ‖² of a single sample, shape (1, U)."""
    parameters = list(network.trainable.values())
    x = network.x.clone().requires_grad_()
    columns = []
    with torch.enable_grad():
        output = network(x.clone())
        for weighting in output_weightings(outputs, output):
            total = torch.zeros(1, dtype=weighting.dtype, device=weighting.device)
            scalar = (output * weighting).sum()
            slope = None
            if scalar.requires_grad and parameters:
                (slope,) = torch.autograd.grad(scalar, x, create_graph=True, allow_unused=True)
            for entry in slope.flatten() if slope is not None and slope.requires_grad else ():
                row = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True)
                total += sum(part.to(total.dtype).square().sum() for part in row if part is not None)
            columns.append(total)
    return torch.stack(columns, 1)


def _blocks_of(indices: Sequence[int]) -> dict[int, list[int]]:
    """The places of a batch by the block that their samples belong to."""
    places = sorted(range(len(indices)), key=lambda place: indices[place] // BLOCK_SIZE)
    return {block: list(group) for block, group in groupby(places, key=lambda place: indices[place] // BLOCK_SIZE)}
