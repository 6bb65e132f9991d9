"""Parameter-space probes: ‖Sᵀ w‖² of each sample by one double backward, without any layer rule."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from lightning_tansens.tangent.memory import WHOLE, Blocks, in_micro_batches
from lightning_tansens.tangent.network import Network, Weightings, derivatives, output_weightings
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE, parameter_probes


def parameter_space_norms(network: Network, probes: dict[str, Tensor], outputs: Weightings) -> Tensor:
    r"""Computes ‖Sᵀ w‖² of each sample, with one probe w that the samples share, shape (N, U).

    .. math:: S^T w = \nabla_x \langle w, \nabla_\theta (u \cdot f)(x) \rangle, \qquad
        E\|S^T w\|^2 = \|S\|_F^2 \;\text{ for } E w w^T = I

    It needs samples that are independent in eval mode and nothing else. As the samples share the probe, its error does not
    average out over them.
    """
    products = parameter_space_products(network, probes, outputs)
    return torch.stack([product.reshape(len(product), -1).square().sum(1) for product in products], 1)


def parameter_space_products(network: Network, probes: dict[str, Tensor], outputs: Weightings) -> list[Tensor]:
    """Computes Sᵀ w of each sample, in the shape of x, for one weighting of the outputs after another."""
    x, output = network.differentiable()
    weightings = output_weightings(outputs, output)
    return [product_with(probes, network, x, (output * weighting).sum()) for weighting in weightings]


def product_with(w: dict[str, Tensor], network: Network, x: Tensor, scalar: Tensor, create_graph: bool = False) -> Tensor:
    """Returns Sᵀ w of each sample for a scalar of the outputs, in at least single precision and in the shape of x."""
    zero = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32), requires_grad=False)
    parameters = network.trainable
    if not scalar.requires_grad or not parameters:
        return zero
    gradients = torch.autograd.grad(scalar, list(parameters.values()), create_graph=True, allow_unused=True)
    total = inner_products(w, dict(zip(parameters, gradients))).sum()
    (derivative,) = derivatives(total, [x], retain_graph=True, create_graph=create_graph)
    return zero if derivative is None else derivative.to(zero.dtype)


def inner_products(probes: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> Tensor:
    """Returns ⟨w, g⟩ of each parameter, over real and imaginary parts, shape (number of parameters,)."""
    zero = next(iter(probes.values())).new_zeros(()).real
    return torch.stack([zero if g is None else _inner_product(probes[name], g) for name, g in gradients.items()])


def _inner_product(w: Tensor, g: Tensor) -> Tensor:
    return (torch.view_as_real(w) * torch.view_as_real(g.resolve_conj())).sum() if w.is_complex() else (w * g).sum()


def estimate_in_parameter_space(
    network: Network, outputs: Weightings, num_probes: int, seed: int, positions: Sequence[int], sample_bytes: int = 0
) -> Blocks:
    """Averages ‖Sᵀ w‖² over parameter-space probes that a block of samples shares, shape (N, U)."""

    def measure(part: Network, draws: Sequence[dict[str, Tensor]], own: Sequence[int]) -> Tensor:
        return torch.stack([parameter_space_norms(part, w, outputs) for w in draws]).mean(0)

    return {WHOLE: with_parameter_probes(network, measure, num_probes, seed, positions, sample_bytes)}


def with_parameter_probes(
    network: Network,
    measure: Callable[[Network, Sequence[dict[str, Tensor]], Sequence[int]], Tensor],
    num_probes: int,
    seed: int,
    positions: Sequence[int],
    sample_bytes: int,
) -> Tensor:
    """Measures each block of samples with its parameter-space probes, in parts that fit into memory, shape (N, ...).

    ``measure`` takes a part of the batch, the probes w and the samples' positions in their set.
    """
    parts: list[tuple[list[int], Tensor]] = []
    for block, places in blocks_of(positions).items():
        draws = [parameter_probes(network.trainable, seed, block, probe) for probe in range(num_probes)]
        own = [positions[place] for place in places]

        def of_part(part: Network, place: slice, draws: list[dict[str, Tensor]] = draws, own: list[int] = own) -> Tensor:
            return measure(part, draws, own[place])

        parts.append((places, in_micro_batches(network.part(places), of_part, sample_bytes)))
    order = torch.tensor([place for places, _ in parts for place in places])
    return torch.cat([values for _, values in parts])[order.argsort()]


def blocks_of(positions: Sequence[int]) -> dict[int, list[int]]:
    """Returns the places of a batch by the block of samples, which share parameter-space probes, that they belong to."""
    places = sorted(range(len(positions)), key=lambda place: positions[place] // BLOCK_SIZE)
    return {block: list(group) for block, group in groupby(places, key=lambda place: positions[place] // BLOCK_SIZE)}
