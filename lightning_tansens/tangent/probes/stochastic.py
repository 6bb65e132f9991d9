"""Unbiased estimates of ‖S(x)‖_F² from random probes, for any network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from lightning_tansens.tangent.memory import WHOLE, Blocks, in_micro_batches
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.outputs import Outputs
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.input_space import input_space_blocks
from lightning_tansens.tangent.probes.parameter_space import parameter_space_norms
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE, Projection, input_probes, parameter_probes


def estimate_in_input_space(
    network: Network,
    outputs: Outputs,
    axes: BatchAxes,
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
        return mean([input_space_blocks(part, v, outputs, axes, projection) for v, projection in draws])

    return in_micro_batches(network, measure, sample_bytes)


def estimate_in_parameter_space(
    network: Network, outputs: Outputs, num_probes: int, seed: int, indices: Sequence[int], sample_bytes: int = 0
) -> Blocks:
    """Averages ‖Sᵀ w‖² over parameter-space probes that a block of samples shares, shape (N, U)."""
    parts: list[tuple[list[int], Tensor]] = []
    for block, places in blocks_of(indices).items():
        draws = [parameter_probes(network.trainable, seed, block, probe) for probe in range(num_probes)]

        def measure(part: Network, _: slice, draws: list[dict[str, Tensor]] = draws) -> Blocks:
            return mean([{WHOLE: parameter_space_norms(part, w, outputs)} for w in draws])

        parts.append((places, in_micro_batches(network.part(places), measure, sample_bytes)[WHOLE]))
    order = torch.tensor([place for places, _ in parts for place in places])
    return {WHOLE: torch.cat([values for _, values in parts])[order.argsort()]}


def mean(draws: Sequence[Blocks]) -> Blocks:
    """The mean over probes, by name."""
    return {name: torch.stack([blocks[name] for blocks in draws]).mean(0) for name in draws[0]}


def blocks_of(indices: Sequence[int]) -> dict[int, list[int]]:
    """Returns the places of a batch by the block of samples, which share parameter-space probes, that they belong to."""
    places = sorted(range(len(indices)), key=lambda place: indices[place] // BLOCK_SIZE)
    return {block: list(group) for block, group in groupby(places, key=lambda place: indices[place] // BLOCK_SIZE)}
