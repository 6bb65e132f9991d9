"""Unbiased estimates of ‖S(x)‖_F² from random probes, for any network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        found = [input_space_blocks(part, v, outputs, axes, projection) for v, projection in draws]
        return {name: torch.stack([blocks[name] for blocks in found]).mean(0) for name in found[0]}

    return in_micro_batches(network, measure, sample_bytes)


def estimate_in_parameter_space(
    network: Network, outputs: Outputs, num_probes: int, seed: int, indices: Sequence[int], sample_bytes: int = 0
) -> Blocks:
    """Averages ‖Sᵀ w‖² over parameter-space probes that a block of samples shares, shape (N, U)."""

    def measure(part: Network, draws: Sequence[dict[str, Tensor]], own: Sequence[int]) -> Tensor:
        return torch.stack([parameter_space_norms(part, w, outputs) for w in draws]).mean(0)

    return {WHOLE: with_parameter_probes(network, measure, num_probes, seed, indices, sample_bytes)}


def with_parameter_probes(
    network: Network,
    measure: Callable[[Network, Sequence[dict[str, Tensor]], Sequence[int]], Tensor],
    num_probes: int,
    seed: int,
    indices: Sequence[int],
    sample_bytes: int,
) -> Tensor:
    """Measures each block of samples with its parameter-space probes, in parts that fit into memory, shape (N, ...).

    ``measure`` takes a part of the batch, the probes w and the samples' positions in their set.
    """
    parts: list[tuple[list[int], Tensor]] = []
    for block, places in blocks_of(indices).items():
        draws = [parameter_probes(network.trainable, seed, block, probe) for probe in range(num_probes)]
        own = [indices[place] for place in places]

        def of_part(part: Network, place: slice, draws: list[dict[str, Tensor]] = draws, own: list[int] = own) -> Blocks:
            return {WHOLE: measure(part, draws, own[place])}

        parts.append((places, in_micro_batches(network.part(places), of_part, sample_bytes)[WHOLE]))
    order = torch.tensor([place for places, _ in parts for place in places])
    return torch.cat([values for _, values in parts])[order.argsort()]


def blocks_of(indices: Sequence[int]) -> dict[int, list[int]]:
    """Returns the places of a batch by the block of samples, which share parameter-space probes, that they belong to."""
    places = sorted(range(len(indices)), key=lambda place: indices[place] // BLOCK_SIZE)
    return {block: list(group) for block, group in groupby(places, key=lambda place: indices[place] // BLOCK_SIZE)}
