"""The tangent sensitivity of a set as a matrix, for small networks: S(x), its sum over samples, the norm of its mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.memory import in_micro_batches
from lightning_tansens.tangent.methods import choose
from lightning_tansens.tangent.network import Network, check_outputs, finite_outputs, output_weightings
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.probes.all_directions import double_backwards

#: One weighting u at a time: "sum" for ones, or a vector.
Weighting = Literal["sum"] | Tensor

#: The largest number of entries of a result: 800 MB in double precision.
LARGEST = 10**8


def tangent_matrix(
    model: nn.Module, inputs: Any, *, outputs: Weighting = "sum", wrt: Wrt = None, output: OutputPicker | None = None
) -> Tensor:
    r"""Computes the tangent sample sensitivity of each sample as a matrix, exactly.

    .. math:: S_u(x) = \frac{\partial^2 (u \cdot f)}{\partial\theta\,\partial x} \in \mathbb{R}^{P \times D}

    (Definition 1 in Daróczy 2022 and in Rácz et al. 2023.) It takes D double backward passes a sample.
    Only parameters with ``requires_grad`` count.

    Args:
        model: The network f, evaluated in eval mode and left as it was.
        inputs: The batch, as :func:`~lightning_tansens.functional.tangent_sensitivity` takes it.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.
        outputs: "sum" for u = (1, …, 1), or a weighting u of shape (C,): e_c for output c by itself.

    Returns:
        S_u(x_n), float64, shape (N, P, D); rows in the order of ``model.named_parameters()``, each flattened.

    Raises:
        ValueError: If an argument has a value that is not allowed, or the matrices would be too large.

    Example:
        >>> tangent_matrix(torch.nn.Linear(2, 1), torch.randn(1, 2))  # weights, then the bias
        tensor([[[1., 0.],
                 [0., 1.],
                 [0., 0.]]], dtype=torch.float64)
    """
    with _small_network(model, inputs, outputs, wrt, output, copies=True) as network:
        matrices = [_summed(network.part([n]), outputs) for n in range(len(network))]
        return torch.stack(matrices) if matrices else _zeros(network).unsqueeze(0)[:0]


def tangent_matrix_sum(
    model: nn.Module, inputs: Any, *, outputs: Weighting = "sum", wrt: Wrt = None, output: OutputPicker | None = None
) -> Tensor:
    r"""Computes the sum of the tangent sensitivity matrices of a batch, without a matrix for each sample.

    .. math:: \sum_n S_u(x_n)

    Sums of several batches add up; divided by the number of samples they are the mean of Definition 1 (Daróczy 2022). It
    takes D double backward passes for the batch, the arguments of :func:`tangent_matrix`, and raises its errors.

    Returns:
        Float64, shape (P, D).

    Example:
        >>> linear = torch.nn.Linear(2, 1)
        >>> batches = torch.randn(3, 2), torch.randn(5, 2)
        >>> sum(tangent_matrix_sum(linear, batch) for batch in batches)
        tensor([[8., 0.],
                [0., 8.],
                [0., 0.]], dtype=torch.float64)
    """
    with _small_network(model, inputs, outputs, wrt, output, copies=False) as network:
        return _total(network, outputs)


def finite_matrix_sum(
    model: nn.Module, inputs: Any, *, outputs: Weighting = "sum", wrt: Wrt = None, output: OutputPicker | None = None
) -> tuple[Tensor, int]:
    """Computes :func:`tangent_matrix_sum` over the samples whose outputs and matrices are finite, and counts the others."""
    usable = finite_outputs(model, inputs, output)
    with _small_network(model, inputs, outputs, wrt, output, copies=False) as network:
        total = _total(network, outputs)
        if usable is None and total.isfinite().all():
            return total, 0
        places = range(len(network)) if usable is None else usable.nonzero().flatten().tolist()
        found = (_summed(network.part([n]), outputs) for n in places)
        finite = [matrix for matrix in found if matrix.isfinite().all()]
        return sum(finite, torch.zeros_like(total)), len(network) - len(finite)


def mean_tangent_norm(
    model: nn.Module, inputs: Any, *, outputs: Weighting = "sum", wrt: Wrt = None, output: OutputPicker | None = None
) -> Tensor:
    r"""Computes the tangent sensitivity of a set: the norm of the mean matrix.

    .. math:: \|E_x\, S_u(x)\|_F

    (Definition 1 in Daróczy 2022 and in Rácz et al. 2023.) By Jensen's inequality it is at most the mean norm E‖S_u(x)‖_F,
    whose square is at most the mean squared norm of Eq. 3. It takes the arguments of :func:`tangent_matrix`.

    Returns:
        A scalar, float64, in units of output / (parameter · input); nan without samples.

    Example:
        >>> mean_tangent_norm(torch.nn.Linear(4, 1), torch.randn(8, 4))
        tensor(2., dtype=torch.float64)
    """
    with _small_network(model, inputs, outputs, wrt, output, copies=False) as network:
        mean = _total(network, outputs) / len(network)
    norm: Tensor = torch.linalg.vector_norm(mean)
    return norm


def check_weighting(outputs: object) -> None:
    """Raises ValueError unless ``outputs`` is "sum" or a vector."""
    check_outputs(outputs)
    if isinstance(outputs, str) and outputs != "sum":
        raise ValueError(
            f"outputs: expected 'sum' or a weighting of shape (C,), but got {outputs!r}; pass the unit vector e_c for one"
        )


@contextmanager
def _small_network(
    model: nn.Module, inputs: Any, outputs: Weighting, wrt: Wrt, output: OutputPicker | None, copies: bool
) -> Iterator[Network]:
    """The network in surroundings in which it can be differentiated twice, unless its matrices are too large."""
    check_weighting(outputs)
    with evaluation(model), twice_differentiable(model):
        network = Network(model, inputs, wrt, output)
        rows, columns = _size(network)
        count = len(network) if copies else 1
        if count * rows * columns > LARGEST:
            times = f"N · P · D = {count} · {rows} · {columns}" if copies else f"P · D = {rows} · {columns}"
            raise ValueError(
                f"{type(model).__name__}: expected a network small enough for at most {LARGEST:.0e} entries, but {times} = "
                f"{count * rows * columns:.1e}; freeze parameters, pass fewer samples at a time, or measure the mean of the "
                "squared norms with tangent_sensitivity, which needs no matrix"
            )
        if len(network):
            choose(network, "parameter_space")  # refuses a network whose samples depend on one another, examined once
        yield network


def _size(network: Network) -> tuple[int, int]:
    """P and D."""
    return sum(parameter.numel() for parameter in network.trainable.values()), network.x.shape[1:].numel()


def _zeros(network: Network) -> Tensor:
    device = "cpu" if network.x.device.type == "mps" else network.x.device  # MPS has no double precision
    return torch.zeros(_size(network), dtype=torch.float64, device=device)


def _total(network: Network, outputs: Weighting) -> Tensor:
    """Σ_n S_u(x_n), shape (P, D), in parts of the batch that fit into memory."""
    if not len(network):
        return _zeros(network)
    return in_micro_batches(network, lambda part, _: _summed(part, outputs).unsqueeze(0)).sum(0)


def _summed(network: Network, outputs: Weighting) -> Tensor:
    """Σ_n S_u(x_n), shape (P, D)."""
    matrix, parameters = _zeros(network), list(network.trainable.values())
    x, result = network.differentiable()
    (weighting,) = output_weightings(outputs, result)
    for d, gradients in enumerate(double_backwards((result * weighting).sum(), x, parameters)):
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)]
        matrix[:, d] = torch.cat([part.flatten() for part in parts]).to(matrix)
    return matrix
