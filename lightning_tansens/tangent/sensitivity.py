"""The tangent sample sensitivity of a network, per sample."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_choice, positions_from
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.batches import OutputPicker, Wrt, map_tensors
from lightning_tansens.tangent.closed_form.exact import exact_blocks
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.memory import WHOLE, Blocks
from lightning_tansens.tangent.methods import Choice, Method, check_probes, choose, leave_input_space
from lightning_tansens.tangent.network import Network, Weightings, check_outputs, output_weightings
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.probes.all_directions import exact_by_forward_mode
from lightning_tansens.tangent.probes.input_space import estimate_in_input_space
from lightning_tansens.tangent.probes.parameter_space import estimate_in_parameter_space
from lightning_tansens.tangent.tracing import tensors_in


def tangent_sensitivity(
    model: nn.Module,
    inputs: Any,
    *,
    outputs: Weightings = "sum",
    method: Method = "auto",
    num_probes: int = 1,
    generator: torch.Generator | None = None,
    positions: Sequence[int] | None = None,
    wrt: Wrt = None,
    output: OutputPicker | None = None,
) -> Tensor:
    r"""Computes the squared Frobenius norm of the tangent sample sensitivity of each sample.

    .. math:: \|S_u(x)\|_F^2 = \Big\|\frac{\partial^2 (u \cdot f)}{\partial\theta\,\partial x}\Big\|_F^2

    (Definition 1 in Daróczy 2022 and in Rácz et al. 2023). For piecewise-linear chains it is known in closed form,
    Σ_i ‖δ_i(x)‖²·‖J_{i-1}(x)‖_F², with δ_i the gradient of u·f with respect to layer i and J_{i-1} the Jacobian of that
    layer's input; for any other network random probes estimate it without bias. The model is evaluated in eval mode and
    left as it was, and so are the global random states. Only parameters with ``requires_grad`` count.

    Args:
        model: The network f; it maps a batch of shape (N, ...) to outputs of shape (N, ...).
        inputs: A batch: a tensor x of shape (N, ...), or a tuple or dict of arguments, of which ``wrt`` names x.
        outputs: "sum" for the paths to any output (u = (1, …, 1)), a weighting u of shape (C,), or "each" for one
            output at a time (u = e_c). The sum over c of "each" is not "sum".
        method: "exact" for the closed form, or forward-mode passes over all input coordinates where there is none;
            "stochastic" for the better kind of random probe ("input_space" or "parameter_space" to insist on one);
            "auto" for the closed form where it exists and is affordable, else "stochastic". :func:`chosen_method` tells.
        num_probes: The number of random probes, for each sample in input space, for each block of 32 in parameter space.
        generator: Source of the probes' seed; None takes the seed 0, so that a call repeats.
        positions: The samples' positions in their set, which name their probes; None for 0, …, N-1.
        wrt: Which tensor is x: the name or position of one of several inputs, or the name of the module whose output is x
            (an embedding of tokens; parameters upstream of it do not count).
        output: Picks the tensor of outputs, where the model returns a tuple, a dict or the like.

    Returns:
        ‖S_u(x)‖_F² for each sample, shape (N,), or (N, C) for "each", in units of (output / (parameter · input))².

    Raises:
        TypeError: If x is no floating-point tensor.
        ValueError: If an argument has a value that is not allowed.
        UnsupportedNetworkError: If the network cannot be measured in this way; the message names the module.

    Example:
        >>> import torch
        >>> linear = torch.nn.Linear(5, 1)
        >>> tangent_sensitivity(linear, torch.randn(2, 5))  # f = w·x + b has S = I, so ‖S‖² = D
        tensor([5., 5.])
    """
    blocks = tangent_sensitivity_blocks(
        model,
        inputs,
        outputs=outputs,
        method=method,
        num_probes=num_probes,
        generator=generator,
        positions=positions,
        wrt=wrt,
        output=output,
    )
    return sum_blocks(blocks)


def sum_blocks(blocks: Blocks) -> Tensor:
    """Adds up the blocks of all parameters."""
    return torch.stack(list(blocks.values())).sum(0)


def tangent_sensitivity_blocks(
    model: nn.Module,
    inputs: Any,
    *,
    outputs: Weightings = "sum",
    method: Method = "auto",
    num_probes: int = 1,
    generator: torch.Generator | None = None,
    positions: Sequence[int] | None = None,
    wrt: Wrt = None,
    output: OutputPicker | None = None,
) -> Blocks:
    r"""Computes the share of each parameter in the squared norm; in a chain, ‖S_{W_i}(x)‖_F² = ‖δ_i‖²·‖J_{i-1}‖_F².

    It takes the arguments of :func:`tangent_sensitivity`, whose value is the sum of these shares.

    Returns:
        For each trainable parameter that has a share, by its name, a tensor of shape (N,), or (N, C) for "each". Where
        the method cannot tell parameters apart (probes in parameter space) there is one entry, "all".

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> list(tangent_sensitivity_blocks(net, torch.randn(5, 3)))
        ['0.weight', '2.weight']
    """
    check_probes(method, num_probes)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, but got {type(generator).__name__}")
    check_outputs(outputs)
    if any(tensor.dim() > 1 and not len(tensor) for tensor in tensors_in(inputs)):
        one = map_tensors(_lengthened, inputs)  # a trace needs a sample
        blocks = tangent_sensitivity_blocks(model, one, outputs=outputs, method=method, wrt=wrt, output=output)
        return {name: block[:0] for name, block in blocks.items()}
    with evaluation(model):
        network = Network(model, inputs, wrt, output)
        own = positions_from("positions", positions, len(network))
        seed = 0
        if generator is not None:
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        blocks = _measure(network, method, outputs, num_probes, seed, own)
        if not blocks:  # nothing is trainable
            with torch.no_grad():
                count = len(output_weightings(outputs, network(network.x.clone())))
            blocks = {WHOLE: network.x.new_zeros(len(network), count)}
    each = isinstance(outputs, str) and outputs == "each"
    return blocks if each else {name: block[:, 0] for name, block in blocks.items()}


def chosen_method(
    model: nn.Module, inputs: Any, method: Method = "auto", wrt: Wrt = None, output: OutputPicker | None = None
) -> Choice:
    """Tells which way :func:`tangent_sensitivity` takes for a network, and why.

    Args:
        model: The network.
        inputs: A batch of at least one sample.
        method: What is asked for.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs.

    Returns:
        The choice, with its ``way`` and ``reason``.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
        >>> chosen_method(net, torch.randn(5, 3)).way
        'input_space'
    """
    check_choice("method", method, get_args(Method))
    with evaluation(model):
        return choose_way(Network(model, inputs, wrt, output), method)


def choose_way(network: Network, method: Method) -> Choice:
    """Chooses among the ways, in surroundings in which the network can be differentiated twice."""
    with twice_differentiable(network.model):
        return choose(network, method)


def _measure(
    network: Network, method: Method, outputs: Weightings, num_probes: int, seed: int, positions: Sequence[int]
) -> Blocks:
    choice = choose_way(network, method)
    if choice.way == "closed_form":
        return exact_blocks(network, outputs)
    with twice_differentiable(network.model):
        if choice.way == "forward_mode":
            return exact_by_forward_mode(network, outputs, choice.axes)
        if choice.way == "input_space":
            assert choice.axes is not None
            options = (num_probes, seed, positions, choice.sample_bytes)
            try:
                return estimate_in_input_space(network, outputs, choice.axes, *options)
            except UnsupportedNetworkError as error:
                if method not in ("auto", "stochastic"):
                    raise
                leave_input_space(network, method, f"input space failed for a later batch: {error}")
        return estimate_in_parameter_space(network, outputs, num_probes, seed, positions, choice.sample_bytes)


def _lengthened(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() == 0 or len(tensor) else tensor.new_zeros(1, *tensor.shape[1:])
