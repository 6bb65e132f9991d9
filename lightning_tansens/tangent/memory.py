"""Micro-batches that fit into memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_tansens.tangent.network import Network

#: What a measurement may take on a CPU; on a GPU it is half of the memory that is free.
CPU_BUDGET = 2 * 2**30

#: What a measurement holds of each tensor that a reverse pass would keep: its value, its derivative, and the same for the
#: gradients.
COPIES = 4

#: The share of each parameter by name, shape (N, U).
Blocks = dict[str, Tensor]

_Measured = TypeVar("_Measured", Tensor, Blocks)

#: The name under which methods that cannot tell parameters apart return the whole.
WHOLE = "all"


def bytes_per_sample(network: Network) -> int:
    """Estimates what a measurement of one sample takes, from what a reverse pass through the network in eval mode keeps."""
    kept: dict[int, int] = {}
    constant = {tensor.data_ptr() for tensor in (*network.model.parameters(), *network.model.buffers())}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in constant:
            kept[tensor.data_ptr()] = max(kept.get(tensor.data_ptr(), 0), tensor.numel() * tensor.element_size())
        return tensor

    few = network.first_three()
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = few.differentiable()
        del output
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return 0  # torch.func inside of forward takes no such hooks
    return COPIES * sum(kept.values()) // len(few)


def portions(parameters: Mapping[str, nn.Parameter]) -> list[dict[str, nn.Parameter]]:
    """Divides parameters into parts whose gradients may be held at once: all, but for those that say ``gradient_bytes``."""
    found: list[dict[str, nn.Parameter]] = [{}]
    taken = 0
    for name, parameter in parameters.items():
        size = parameter.numel() * parameter.element_size() if hasattr(parameter, "gradient_bytes") else 0
        if taken and taken + size > getattr(parameter, "gradient_bytes", taken):
            found.append({})
            taken = 0
        found[-1][name] = parameter
        taken += size
    return found


@contextmanager
def trained_alone(parameters: Mapping[str, nn.Parameter], part: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Freezes all but a part of the trainable parameters for a block."""
    others = [parameter for name, parameter in parameters.items() if name not in part]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def in_micro_batches(network: Network, measure: Callable[[Network, slice], _Measured], sample_bytes: int = 0) -> _Measured:
    """Measures a batch in equal parts that fit into memory.

    ``measure`` takes a part of the batch and its place in it, and returns a tensor with a row for each sample, or several by
    name; ``sample_bytes`` comes from :func:`bytes_per_sample`.
    """
    samples = len(network)
    fitting = max(1, budget(network.x.device) // max(1, sample_bytes))
    size = -(-samples // -(-samples // fitting))
    return in_parts(samples, size, lambda place: measure(network.part(place), place))


def in_parts(samples: int, size: int, measure: Callable[[slice], _Measured]) -> _Measured:
    """Measures samples in parts of a size, and in halves of these where memory runs out."""
    size = min(size, max(samples, 1))
    while True:
        try:
            parts = [measure(slice(start, min(start + size, samples))) for start in range(0, samples, size)]
            whole: _Measured = tree_map(lambda *rows: torch.cat(rows), *parts)
            return whole
        except RuntimeError as error:
            if size == 1 or not out_of_memory(error):
                raise
        # behind the except clause, where the failed attempt's tensors are free
        size = -(-size // 2)


def budget(device: torch.device) -> int:
    """What a measurement may take on a device, in bytes."""
    if device.type != "cuda":
        return CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    # what torch holds and does not use is free for it too
    return (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) // 2


#: How torch says that memory ran out, where it has no exception for it.
_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in _MESSAGES)
