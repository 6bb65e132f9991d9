"""Random signs that depend on a seed and on the sample alone, not on the batch, the device or the process."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

#: Consecutive samples that share one parameter-space probe.
BLOCK_SIZE = 32

#: Random combinations of a weight's rows that stand for the whole of a gradient's norm where that is expensive. The spread
#: of a sample's value from one probe grows by them from 4.4 % to 14.5, 10.9, 7.6 and 6.4 % in a ResNet-18, with 2, 4, 8 and
#: 16 of them, and stays at 20 % in a small ViT.
NUM_PROJECTIONS = 8

_INPUT_STREAM, _PARAMETER_STREAM, _PROJECTION_STREAM = 0, 1, 2

#: The eight bits of a byte, the most significant first, and the signs that they stand for.
_BITS = 2 ** np.arange(7, -1, -1, dtype=np.uint8)
_SIGNS = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) - 1

#: Philox counts in steps of 256 bits.
_STEP_BYTES = 32


def input_probes(shape: Sequence[int], seed: int, positions: Sequence[int], probe: int, like: Tensor) -> Tensor:
    """Draws a Rademacher probe v for each sample, E v vᵀ = I: ±1 in shape (N, *shape), dtype and device as ``like``'s.

    The seed, the samples' positions in their set and the number of the probe name the draw.

    Example:
        >>> x = torch.zeros(2, 4)
        >>> a, b = input_probes([4], 0, [5, 6], 0, x), input_probes([4], 0, [6], 0, x)
        >>> torch.equal(a[1], b[0])
        True
    """
    return _signs(like, prod(shape), seed, _INPUT_STREAM, positions, probe).reshape(len(positions), *shape)


def parameter_probes(parameters: dict[str, nn.Parameter], seed: int, block: int, probe: int) -> dict[str, Tensor]:
    """Draws a Rademacher probe w over all parameters for a block of samples, E w wᵀ = I, on the parameters' devices.

    The block is a sample's position divided by :data:`BLOCK_SIZE`. Each parameter has a stream of its own.
    """
    probes = {}
    for number, (name, parameter) in enumerate(parameters.items()):
        parts = 2 if parameter.is_complex() else 1  # a complex number is two real ones
        like = parameter.detach().real
        signs = _signs(like, parts * parameter.numel(), seed, _PARAMETER_STREAM, [block], probe, number)
        probes[name] = (torch.view_as_complex(signs.reshape(-1, 2)) if parts == 2 else signs).reshape(parameter.shape)
    return probes


@dataclass(frozen=True)
class Projection:
    """``count`` draws of Rademacher signs over the rows of a weight, different for each sample and weight."""

    seed: int
    positions: Sequence[int]  # the samples' positions in their set
    probe: int
    names: Sequence[str]  # the trainable parameters' names; each has a stream of its own
    count: int = NUM_PROJECTIONS

    def signs(self, name: str, rows: int, like: Tensor) -> Tensor:
        """Returns the signs for a weight of a number of rows, shape (N, count, rows), in dtype and on device of ``like``."""
        number = self.names.index(name)
        drawn = _signs(like, self.count * rows, self.seed, _PROJECTION_STREAM, self.positions, self.probe, number)
        return drawn.reshape(len(self.positions), self.count, rows)


def _signs(like: Tensor, size: int, seed: int, stream: int, positions: Sequence[int], probe: int, number: int = 0) -> Tensor:
    """Independent signs for each index, shape (N, size)."""
    steps = -(-size // (8 * _STEP_BYTES))
    parts = [_bytes(steps, seed, stream, *run, probe, number) for run in _runs(positions)]
    whole = np.concatenate(parts) if parts else np.empty((0, steps * _STEP_BYTES), np.uint8)
    drawn = whole[:, : -(-size // 8)]
    unpack = _looked_up if like.device.type == "cpu" else _unpacked
    return unpack(drawn, like).flatten(1)[:, :size]


def _looked_up(drawn: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(_SIGNS.take(drawn, 0)).to(like.dtype)


def _unpacked(drawn: np.ndarray, like: Tensor) -> Tensor:
    """The same on an accelerator: bits travel there, and not numbers, which take 32 times as much."""
    bits = torch.from_numpy(drawn).to(like.device).unsqueeze(-1) & torch.from_numpy(_BITS).to(like.device)
    return bits.ne(0).to(like.dtype).mul_(2).sub_(1)


def _bytes(steps: int, seed: int, stream: int, start: int, length: int, probe: int, number: int) -> np.ndarray:
    # Philox is counter-based: the counter names sample, probe and parameter, so nothing has to be drawn in order
    key = np.array([seed % 2**64, stream], dtype=np.uint64)  # a list of such numbers would become one of floats
    generator = np.random.Philox(key=key, counter=[start * steps, 0, probe, number])
    return generator.random_raw(length * steps * _STEP_BYTES // 8).view(np.uint8).reshape(length, -1)


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs of consecutive positions: each one's start and length."""
    for _, run in groupby(enumerate(positions), key=lambda item: item[1] - item[0]):
        items = [int(index) for _, index in run]
        yield items[0], len(items)
