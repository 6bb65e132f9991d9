"""Random probes that depend on a seed and on the sample alone, not on the batch, the device or the process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

#: Consecutive samples that share one parameter-space probe.
BLOCK_SIZE = 32

_INPUT_STREAM, _PARAMETER_STREAM = 0, 1


def input_probes(shape: Sequence[int], seed: int, indices: Sequence[int], probe: int) -> Tensor:
    """Draws a Rademacher probe v for each sample, E v vᵀ = I, on the CPU.

    Args:
        shape: The shape of one sample's x.
        seed: Names the stream; the same for all sets that are compared.
        indices: The samples' positions in their set.
        probe: The number of the probe.

    Returns:
        Entries of ±1, float32, shape (N, *shape).

    Example:
        >>> a, b = input_probes([4], 0, [5, 6], 0), input_probes([4], 0, [6], 0)
        >>> torch.equal(a[1], b[0])
        True

    """
    size = int(np.prod(shape))
    bits = np.stack([_bits(size, seed, _INPUT_STREAM, int(index), probe) for index in indices])
    return torch.from_numpy(bits).float().mul_(2).sub_(1).reshape(len(indices), *shape)


def parameter_probes(parameters: dict[str, nn.Parameter], seed: int, block: int, probe: int) -> dict[str, Tensor]:
    """Draws a Rademacher probe w over all parameters for a block of samples, E w wᵀ = I, on the parameters' devices.

    Args:
        parameters: The trainable parameters by name; each has a stream of its own.
        seed: Names the stream; the same for all sets that are compared.
        block: The number of the block, a sample's position divided by :data:`BLOCK_SIZE`.
        probe: The number of the probe.

    """
    probes = {}
    for number, (name, parameter) in enumerate(parameters.items()):
        bits = torch.from_numpy(_bits(parameter.numel(), seed, _PARAMETER_STREAM, block, probe, number))
        probes[name] = bits.to(parameter.device).to(parameter.dtype).mul_(2).sub_(1).reshape(parameter.shape)
    return probes


def _bits(size: int, seed: int, stream: int, index: int, probe: int, number: int = 0) -> np.ndarray:
    # Philox is counter-based: the counter names sample, probe and parameter, so nothing has to be drawn in order
    generator = np.random.Philox(key=[seed % 2**64, stream], counter=[0, index, probe, number])
    words = generator.random_raw(-(-size // 64))
    return np.unpackbits(words.view(np.uint8), count=size)
