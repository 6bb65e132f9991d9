"""The closed form of the tangent sensitivity of a piecewise-linear chain."""

from dataclasses import replace
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.closed_form.chain import Chain, trace_chain
from lightning_tansens.tangent.closed_form.jacobian import (
    GATHERED_COST,
    Jacobian,
    SharedJacobian,
    short_columns,
    taken_units,
)
from lightning_tansens.tangent.closed_form.links import ElementwiseLink, LinearLink
from lightning_tansens.tangent.memory import budget, in_parts
from lightning_tansens.tangent.network import Network, Weightings, derivatives, output_weightings
from lightning_tansens.tangent.probes.parameter_space import product_with
from lightning_tansens.tangent.probes.vectors import parameter_probes

#: Working memory of one pass: small enough to stay in a processor's cache, where narrow networks are fastest; on a GPU
#: enough to keep it busy.
CHUNK_BYTES = 4 * 2**20
CHUNK_BYTES_ON_GPU = 4 * 2**30

_verified: WeakKeyDictionary[nn.Module, set[object]] = WeakKeyDictionary()


def exact_blocks(network: Network, outputs: Weightings) -> dict[str, Tensor]:
    r"""Computes the squared norm of each parameter's block of the tangent sensitivity of a chain, exactly.

    .. math:: \|S_{W_i}(x)\|_F^2 = \|\delta_i(x)\|^2 \, \|J_{i-1}(x)\|_F^2

    with δ_i the gradient of the weighted output with respect to layer i and J_{i-1} the Jacobian of its input (the blocks of
    Definition 1 in Daróczy 2022 and in Rácz et al. 2023 for piecewise-linear chains). Returns shape (N, U) for each
    trainable weight, by name; raises UnsupportedNetworkError if the network is no chain that has a closed form.
    """
    samples = len(network)
    if samples == 1:  # the network may squeeze a batch of one away
        network = network.part([0, 0])
    chain = verified_chain(network)
    shared = _shared_jacobians(chain)
    weightings = output_weightings(outputs, chain.output)
    size = _chunk_size(chain, len(weightings))
    whole = in_parts(len(network), size, lambda place: _blocks(_slice(chain, place), weightings, shared))
    return {name: block[:samples] for name, block in whole.items()}


def verified_chain(network: Network) -> Chain:
    """Traces a chain, and holds it against autograd the first time that it is seen."""
    chain = trace_chain(network.model, network.x, network)
    _verify_once(network, chain)
    return chain


def _blocks(chain: Chain, weightings: Tensor, shared: list[Jacobian]) -> dict[str, Tensor]:
    """One sweep back for every δ and one sweep forward for every ‖J‖: the blocks of each weight, shapes (N, U)."""
    parametrised = [i for i, link in enumerate(chain.links) if link.parameter]
    if not parametrised:
        return {}
    deltas = _pull_back(chain, weightings, first=parametrised[0] + 1)
    blocks: dict[str, Tensor] = {}
    jacobian = shared[0]
    for i, link in enumerate(chain.links[: parametrised[-1] + 1]):
        jacobian = shared[i] if i < len(shared) else chain.links[i - 1].push(jacobian, _needed_rows(chain, i))
        if link.parameter:
            blocks[link.parameter] = link.block(deltas[i + 1], jacobian)
    return blocks


def _shared_jacobians(chain: Chain) -> list[Jacobian]:
    """The Jacobians before each link up to the first whose slopes depend on the sample: they serve every chunk."""
    dtype = torch.promote_types(chain.output.dtype, torch.float32)
    maps = sum(isinstance(link, LinearLink) for link in chain.links[:-1])  # nothing is pushed through the last one
    ones = torch.ones(chain.width, device=chain.output.device, dtype=dtype)
    jacobians: list[Jacobian] = [SharedJacobian(None, ones, maps)]
    for link in chain.links:
        if isinstance(link, ElementwiseLink) and link.slopes.dim() == 2:
            break
        jacobians.append(link.push(jacobians[-1], None))
    return jacobians


def _pull_back(chain: Chain, weightings: Tensor, first: int) -> dict[int, Tensor]:
    """δ before each link from ``first`` on, and behind the last one, each of shape (N, U, width)."""
    deltas = {len(chain.links): weightings.expand(len(chain.output), -1, -1)}
    for i in range(len(chain.links) - 1, first - 1, -1):
        deltas[i] = chain.links[i].pull(deltas[i + 1])
    return deltas


def _needed_rows(chain: Chain, start: int) -> Tensor | None:
    """Marks the units whose row of the Jacobian matters until the next linear map, shape (N, width), or None for all."""
    alive = needed = None
    for link in chain.links[start:]:
        if isinstance(link, LinearLink):
            break
        if link.gain is not None:
            gained = link.gain.coefficients != 0 if alive is None else alive & (link.gain.coefficients != 0)
            needed = gained if needed is None else needed | gained
        alive = link.slopes != 0 if alive is None else alive & (link.slopes != 0)
    if alive is None:
        return None
    return (alive if needed is None else alive | needed).expand(len(chain.output), -1)


def multiplications(chain: Chain) -> float:
    """Counts the multiplications of the products W_i J_{i-1} for one sample, as if all of them were dense."""
    maps = [(i, link.weight) for i, link in enumerate(chain.links) if isinstance(link, LinearLink)][:-1]
    if not maps:
        return 0.0
    units = [taken_units(_needed_rows(chain, i + 1), len(weight)) for i, weight in maps]
    products = [before * after for before, after in pairwise(units)]
    columns = short_columns(min(maps[0][1].shape), units[0], len(products))
    dense = [product == weight.numel() for product, (_, weight) in zip(products, maps[1:])]
    return columns * sum(product * (1 if whole else GATHERED_COST) for product, whole in zip(products, dense))


def _chunk_size(chain: Chain, outputs: int) -> int:
    """The number of samples whose Jacobians, δ and gathered weights fit into the working memory."""
    shapes = [link.weight.shape for link in chain.links if isinstance(link, LinearLink)]
    columns = max(min(shapes[0]) if shapes else 1, outputs)
    widest = max((rows for rows, _ in shapes[:-1]), default=1)
    device, entries = chain.output.device, columns * widest
    if device.type == "cpu":
        return max(1, CHUNK_BYTES // (4 * entries))
    # the active rows of a weight and of these the active columns, and a factor, if half of the units are active
    entries += max((weight.numel() for weight in shapes[1:-1]), default=0) + widest**2 // 4
    return max(1, min(CHUNK_BYTES_ON_GPU, budget(device) // 4) // (chain.output.element_size() * entries))


def _slice(chain: Chain, samples: slice) -> Chain:
    return replace(chain, links=tuple(link.samples(samples) for link in chain.links), output=chain.output[samples])


def _verify_once(network: Network, chain: Chain) -> None:
    """Holds a newly seen chain against autograd, so that nothing the tracer cannot see goes unnoticed.

    A custom autograd function, a detached branch, a reparametrised weight, a second use of a parameter: each changes
    derivatives. Of two samples, the gradients with respect to the input and Sᵀ w for a probe w over all parameters must
    equal the chain's, and apart from biases no trainable parameter outside of the chain may have a gradient.
    """
    seen = _verified.setdefault(network.model, set())
    parameters = network.trainable
    signature = (chain.signature, tuple(parameters), network.x.shape[1:])
    if signature in seen or not chain.output.isfinite().all():
        return
    two = network.part(slice(0, 2))
    traced = trace_chain(network.model, two.x, two)
    w = parameter_probes(parameters, 0, 0, 0)
    x, output = two.differentiable()
    product = product_with(w, two, x, output.sum()).to(x.dtype)
    slope, *gradients = derivatives(output.sum(), [x, *parameters.values()])
    pulled = _pull_back(traced, output_weightings("sum", traced.output), first=0)[0]
    covered = {link.parameter for link in chain.links} | chain.biases
    outside = [name for name, gradient in zip(parameters, gradients) if gradient is not None and name not in covered]
    problem = ""
    if _apart(pulled, torch.zeros_like(x) if slope is None else slope):
        problem = (
            "the chain that was traced has another gradient with respect to the input than the network, so the network does "
            "something that the trace does not see (torch.no_grad, detach, a custom autograd function)"
        )
    elif outside:
        problem = (
            f"the trainable parameter '{outside[0]}' reaches the output outside of the layers that were traced (a "
            "reparametrisation, for example)"
        )
    elif _apart(_product_of_chain(traced, w), product):
        problem = (
            "a parameter is also used where the trace does not see it (a derivative taken inside of forward, a scripted "
            "module, a custom autograd function)"
        )
    if problem:
        raise UnsupportedNetworkError(f"{type(network.model).__name__} cannot be measured exactly: {problem}")
    seen.add(signature)


def _product_of_chain(chain: Chain, w: dict[str, Tensor]) -> Tensor:
    """Sᵀ w of each sample for the sum of the outputs: the derivative of δ at the input along the parameters' direction w."""
    delta = output_weightings("sum", chain.output).expand(len(chain.output), -1, -1)
    change = torch.zeros_like(delta)
    for link in reversed(chain.links):
        change = link.pull(change)
        if link.parameter:
            change = change + link.pull_along(delta, w[link.parameter])
        delta = link.pull(delta)
    return change


def _apart(actual: Tensor, expected: Tensor) -> bool:
    coarse = expected.dtype in (torch.float16, torch.bfloat16)
    return bool((actual.reshape(expected.shape) - expected).norm() > (0.05 if coarse else 1e-3) * expected.norm())
