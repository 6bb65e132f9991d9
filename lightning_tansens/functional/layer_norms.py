"""Norms of the layers of a network: the largest weight, and the largest singular value.

A convolution counts as the linear operator that it is on its input's size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from lightning_tansens.checks import check_model, check_share
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import call_on_copies

_NO_LAYERS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, ParametrizationList)


def weight_layers(model: nn.Module) -> dict[str, Tensor]:
    """Finds the weights of a network's layers, in the order of registration.

    These are the weights of Linear and convolutional modules, and matrices that other modules hold as parameters of
    their own (recurrent and attention layers, handwritten ones), but not embeddings. Frozen layers count too: they are
    on the paths.

    Args:
        model: The network.

    Returns:
        Name and weight of each layer; its length is the depth k of the papers' formulas.

    Raises:
        UnsupportedNetworkError: If there is no such layer.

    Example:
        >>> from torch import nn
        >>> list(weight_layers(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))))
        ['0.weight', '2.weight']
    """
    layers = {}
    with evaluation(model):  # in train mode, reading a spectrally normalised weight takes a step of its power iteration
        for prefix, module in model.named_modules():
            if isinstance(module, (nn.Linear, _ConvNd)):
                layers[f"{prefix}.weight".lstrip(".")] = module.weight.detach()
            elif not isinstance(module, _NO_LAYERS):
                matrices = module.named_parameters(prefix, recurse=False)
                layers.update((name, matrix.detach()) for name, matrix in matrices if matrix.dim() == 2)
    if not layers:
        raise UnsupportedNetworkError(
            f"expected a network with Linear or convolutional layers, but {type(model).__name__} has no weight matrix; "
            "leave the measures that need one out"
        )
    return layers


def log_max_weights(model: nn.Module) -> Tensor:
    r"""Computes log w_max,i = log max ``|W_i|`` of each layer (Eqs. 1 and 6 of Daróczy 2022).

    Args:
        model: The network.

    Returns:
        Natural logarithms, float64, shape (k,); -inf for a layer of zeros.

    Raises:
        UnsupportedNetworkError: If the network has no weight layer.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, -1.0)
        >>> log_max_weights(layer)
        tensor([0.], dtype=torch.float64)
    """
    maxima = [weight.abs().amax().cpu().double() for weight in weight_layers(model).values()]
    return torch.stack(maxima).log()


#: Up to this number of inputs a layer is written out as a matrix.
SMALL = 128

#: The share of random in a start from a known vector, so that no singular vector is orthogonal to it.
STIR = 0.1

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Size:
    """The shapes of a convolution's input and output, each (channels, *positions)."""

    input: tuple[int, ...]
    output: tuple[int, ...]


@dataclass
class Remembered:
    """Holds what is known of one network."""

    sizes: dict[str, list[Size]] | None = None  # by the module's name; None before a forward pass was seen
    vectors: dict[tuple[str, Size | None], np.ndarray] = field(default_factory=dict)  # the last right singular ones


class SpectralCache:
    """What one measurement leaves for the next: the convolutions' sizes, and vectors to start from.

    Measures are copied for each measurement, and what was learnt about a network must outlive the copy, so a copy is the
    same object. Pickling leaves the content behind. A start from known vectors keeps the tolerance, except where a matrix
    is exactly block-diagonal and a block has overtaken another by less than a thousandth: then the error may be that lead.
    """

    def __init__(self) -> None:
        self._memories: WeakKeyDictionary[nn.Module, Remembered] = WeakKeyDictionary()

    def __deepcopy__(self, memo: dict[int, Any]) -> SpectralCache:
        return self

    def __reduce__(self) -> tuple[type[SpectralCache], tuple[()]]:
        return SpectralCache, ()

    def of(self, model: nn.Module) -> Remembered:
        """Returns what is known of a network."""
        check_model(model)
        return self._memories.setdefault(model, Remembered())

    def learn_sizes(self, model: nn.Module, inputs: Any) -> None:
        """Learns the sizes of a network's convolutions from a forward pass on at least one sample."""
        sizes: dict[str, list[Size]] = {}

        def watch(name: str, module: _ConvNd) -> Any:
            dims = len(module.kernel_size) + 1

            def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> None:
                image = args[0] if args else kwargs["input"]
                size = Size(tuple(image.shape[-dims:]), tuple(output.shape[-dims:]))
                if size not in sizes.setdefault(name, []):
                    sizes[name].append(size)

            return module.register_forward_hook(hook, with_kwargs=True)

        with evaluation(model), torch.no_grad(), ExitStack() as stack:
            for name, module in model.named_modules():
                if isinstance(module, _ConvNd):
                    stack.callback(watch(name, module).remove)
            call_on_copies(model, inputs)
        self.of(model).sizes = sizes


def spectral_norms(
    model: nn.Module, inputs: Any = None, *, tolerance: float = 1e-6, cache: SpectralCache | None = None
) -> dict[str, Tensor]:
    r"""Computes the largest singular value ‖W_i‖₂ of each weight layer (Eq. 11 of Daróczy 2022, Bartlett et al. 2017).

    A convolution is taken as the linear operator that it is on its actual input size, with its stride, padding, dilation
    and groups; where it is called at several sizes, the largest of their norms counts. One that the forward pass does not
    call has no operator and is left out. The restarted Lanczos method on WᵀW stops at

    .. math:: \|W^T W v - \sigma^2 v\| \le 2 \varepsilon \, \sigma^2

    so that a singular value lies within the relative error ε of σ; small layers are decomposed. The arithmetic is in
    double precision. The model is left as it was.

    Args:
        model: The network.
        inputs: A batch of at least one sample, from which the sizes of convolutions are learnt; it may be None where there
            are no convolutions or where the cache knows them.
        tolerance: ε.
        cache: Sizes and vectors of an earlier measurement, which make this one cheaper; it is brought up to date.

    Returns:
        ‖W_i‖₂ by the weight's name, float64 scalars on the CPU; nan where a weight is not finite.

    Raises:
        UnsupportedNetworkError: If the network has no weight layer, or calls none.
        ValueError: If the tolerance is not between 0 and 1, or a convolution's size is unknown.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 2, bias=False), torch.nn.Flatten(), torch.nn.Linear(7, 1))
        >>> for parameter in model.parameters():
        ...     _ = torch.nn.init.ones_(parameter)
        >>> norms = spectral_norms(model, torch.zeros(1, 1, 8))
        >>> [round(float(norm), 4) for norm in norms.values()]  # 2 cos(π/16) and √7
        [1.9616, 2.6458]
    """
    check_share("tolerance", tolerance)
    if cache is not None and not isinstance(cache, SpectralCache):
        raise TypeError(f"cache: expected a SpectralCache or None, but got {type(cache).__name__}")
    cache = SpectralCache() if cache is None else cache
    if inputs is not None:
        cache.learn_sizes(model, inputs)
    memory = cache.of(model)
    norms = {}
    with evaluation(model):
        for name, weight in weight_layers(model).items():
            sizes = _sizes(model, name, memory)
            if sizes:
                norms[name] = torch.stack([_norm(model, name, weight, size, memory, tolerance) for size in sizes]).amax()
    if not norms:
        raise UnsupportedNetworkError(
            f"expected a forward pass that calls convolutional layers, but {type(model).__name__} calls none of its own; "
            "leave SpectralNormSensitivity out of the measures for this network"
        )
    return norms


def _sizes(model: nn.Module, name: str, memory: Remembered) -> list[Size] | list[None]:
    """The sizes at which a layer is applied; a matrix has none."""
    path = name.rpartition(".")[0]
    if not isinstance(model.get_submodule(path), _ConvNd):
        return [None]
    if memory.sizes is None:
        raise ValueError(
            f"inputs: expected a batch, because the spectral norm of the convolution '{path or type(model).__name__}' "
            "depends on the size of its input, but got None; pass inputs, or call the measure's prepare(model, inputs) first"
        )
    return memory.sizes.get(path, [])


def _norm(model: nn.Module, name: str, weight: Tensor, size: Size | None, memory: Remembered, tolerance: float) -> Tensor:
    scale = weight.abs().amax().cpu().double()
    if not 0 < scale < torch.inf:
        return scale * 0  # nan where a weight is not finite
    device = "cpu" if weight.device.type == "mps" else weight.device  # MPS has no double precision
    unit = weight.to(device).double() / scale.to(device)  # neither overflows nor underflows when it is squared
    module = model.get_submodule(name.rpartition(".")[0])
    apply = _matrix(unit) if size is None else _convolution(cast(_ConvNd, module), unit, size)
    shape = (min(unit.shape),) if size is None else size.input
    if prod(shape) <= SMALL:
        basis = torch.eye(prod(shape), dtype=unit.dtype, device=device)
        images = apply(basis.reshape(-1, *shape)).reshape(len(basis), -1)
        largest: Tensor = torch.linalg.matrix_norm(images, ord=2)
        return largest.cpu() * scale
    norm, vector = _lanczos(apply, shape, device, memory.vectors.get((name, size)), tolerance)
    # the groups of a convolution never mix: from a start in one of them it may be overlooked that another has overtaken it
    if size is None or cast(_ConvNd, module).groups == 1:
        memory.vectors[name, size] = vector.astype(np.float32)
    return norm * scale


def _matrix(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A matrix or its transpose, whichever has fewer inputs."""
    columns = weight.T if weight.shape[0] >= weight.shape[1] else weight
    return lambda rows: rows @ columns


def _convolution(module: _ConvNd, weight: Tensor, size: Size) -> Callable[[Tensor], Tensor]:
    """A convolution without its bias, on images of its input's size."""
    if not module.transposed:
        return lambda images: cast(Any, module)._conv_forward(images, weight, None)
    # what the layer adds behind its last position depends on the output size that it was called with
    paddings = cast(tuple[int, ...], module.padding)
    geometry = zip(size.input[1:], size.output[1:], module.stride, paddings, module.dilation, module.kernel_size)
    output_padding = [
        length - ((start - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for start, length, stride, padding, dilation, kernel in geometry
    ]
    convolve = _TRANSPOSED[len(module.kernel_size)]
    return lambda images: convolve(
        images, weight, None, module.stride, paddings, output_padding, module.groups, module.dilation
    )


def _lanczos(
    apply: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: Any, known: np.ndarray | None, tolerance: float
) -> tuple[Tensor, np.ndarray]:
    """The largest singular value of a linear map and its right vector."""

    def gram(vector: np.ndarray) -> np.ndarray:
        x = torch.tensor(vector, device=device).reshape(1, *shape).requires_grad_()
        image = apply(x)
        (pulled,) = torch.autograd.grad(image, x, image.detach())
        return pulled.flatten().cpu().numpy()

    size = prod(shape)
    random = np.random.default_rng(0).standard_normal(size)
    random /= np.linalg.norm(random)
    start = gram(random if known is None else known + STIR * random)
    if not start.any():
        return torch.zeros((), dtype=torch.float64), random
    operator = LinearOperator((size, size), matvec=gram, dtype=np.float64)
    values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=2 * tolerance)
    return torch.tensor(values[0], dtype=torch.float64).sqrt(), vectors[:, 0]
