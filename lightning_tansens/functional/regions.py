"""Activation regions: the sets of inputs on which the same hidden units are active."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tansens.checks import check_tensor
from lightning_tansens.functional.active_nodes import collect_from_activations
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
from lightning_tansens.tangent.network import finite_samples


class ActivationRegions(NamedTuple):
    """What each sample's own activation region A(x) is like; see :func:`activation_regions`."""

    log_probability: Tensor  # log P(A(x)|x), float64, shape (N,)
    log_paths: Tensor  # the logarithm of the number of active paths through the hidden units, float64, shape (N,)
    active_nodes: Tensor  # n_i(x), int64, shape (N, L)


class Margins(NamedTuple):
    """How near each hidden unit comes to switching over a set, float64, shapes (units,); see :func:`neuron_margins`."""

    preactivation: Tensor  # ρ_l = min_x |h_l(x)|
    probability: Tensor  # ρ̂_l = min_x |sigmoid(h_l(x)) − ½|


def activation_regions(model: nn.Module, inputs: Any) -> ActivationRegions:
    r"""Computes the probability of each sample's activation region and the number of its active paths.

    .. math:: \log P(A(x) \mid x) = \sum_l \log \mathrm{sigmoid}(|h_l(x)|), \qquad
        \log \#\mathrm{paths}(x) = \sum_i \log n_i(x)

    over the hidden units l and the activations i (Eq. 5 of Daróczy 2022). n_i is the number of active units, so Σ log n_i
    counts the paths of a chain between one input and one output; in a network with other connections it is a score. The
    products, of a size like e^-100, are scores of single samples and no probabilities over a set.

    Args:
        model: The network; it is evaluated in eval mode and left as it was.
        inputs: A batch of shape (N, ...), or a tuple or dict of arguments.

    Returns:
        Natural logarithms and counts of each sample. Without an active unit in some layer ``log_paths`` is -inf and S is
        zero: leave such samples out of means of logarithms, and report their share.

    Raises:
        UnsupportedNetworkError: If the forward pass calls no activation function, or one whose units do not have the
            samples on their first axis.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.ones_(net[0].weight)
        >>> regions = activation_regions(net, torch.tensor([[3.0], [-3.0]]))
        >>> regions.log_paths.exp().tolist()
        [2.0, 0.0]
        >>> regions.log_probability.exp()  # sigmoid(3)²
        tensor([0.9074, 0.9074], dtype=torch.float64)
    """
    counts, logs = zip(*collect_from_activations(model, inputs, _counts_and_log_probability))
    active = torch.stack(counts, 1)
    return ActivationRegions(torch.stack(logs, 1).sum(1), active.double().log().sum(1), active)


def _counts_and_log_probability(hidden: Tensor) -> tuple[Tensor, Tensor]:
    flat = hidden.flatten(1)
    return (flat > 0).sum(1), F.logsigmoid(flat.double().abs()).sum(1)


def activation_patterns(model: nn.Module, inputs: Any) -> Tensor:
    """Finds which hidden units are active for each sample: the region A(x) as a row of booleans.

    Rounding may give a unit that is almost at zero another sign on another device.

    Args:
        model: The network; it is evaluated in eval mode and left as it was.
        inputs: A batch of shape (N, ...), or a tuple or dict of arguments.

    Returns:
        Booleans, shape (N, units): the units of all activations in the order of the forward pass.

    Raises:
        UnsupportedNetworkError: See :func:`activation_regions`.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
        >>> activation_patterns(net, torch.tensor([[3.0], [-3.0]])).tolist()
        [[True, False], [False, True]]
    """
    return patterns_and_finite(model, inputs)[0]


def patterns_and_finite(model: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
    """Returns :func:`activation_patterns`, and for which samples all preactivations are finite, shape (N,)."""
    found = collect_from_activations(model, inputs, lambda hidden: ((hidden > 0).flatten(1), finite_samples(hidden)))
    patterns, finite = zip(*found)
    return torch.cat(patterns, 1), torch.stack(finite).all(0)


def count_patterns(patterns: Tensor) -> int:
    """Counts the distinct activation patterns, which is the number of activation regions that a set meets.

    Args:
        patterns: Patterns, shape (N, units), or their hashes, shape (N,).

    Returns:
        The number of distinct rows.

    Raises:
        TypeError: If the patterns are no tensor.
        ValueError: If they are a scalar or complex.

    Example:
        >>> count_patterns(torch.tensor([[True, False], [False, True], [True, False]]))
        2
    """
    check_tensor("patterns", patterns)
    if not patterns.dim() or patterns.is_complex():
        raise ValueError(
            f"patterns: expected shape (N, units) or (N,) of booleans or integers, but got {patterns.dtype} of shape "
            f"{tuple(patterns.shape)}"
        )
    return len(torch.unique(patterns, dim=0))


def pattern_hashes(patterns: Tensor) -> Tensor:
    """Computes a 64-bit hash of each pattern, the same on every device, in every process and on every platform.

    Distinct patterns can so be counted over batches and processes: gather the hashes and pass them to
    :func:`count_patterns`. Among a million patterns two share a hash with probability 3e-8.

    Args:
        patterns: Booleans, shape (N, units).

    Returns:
        BLAKE2b hashes, int64, shape (N,), on the device of the patterns.

    Raises:
        TypeError: If the patterns are no matrix of booleans.

    Example:
        >>> pattern_hashes(torch.tensor([[True, False], [False, True], [True, False]])).unique().shape
        torch.Size([2])
    """
    check_tensor("patterns", patterns)
    if patterns.dtype != torch.bool or patterns.dim() != 2:
        raise TypeError(
            f"patterns: expected booleans of shape (N, units), but got {patterns.dtype} of shape "
            f"{tuple(patterns.shape)}; pass what activation_patterns returns"
        )
    length = patterns.shape[1].to_bytes(8, "little")  # packing fills up to whole bytes
    packed = np.packbits(patterns.cpu().numpy(), axis=1)
    digests = [hashlib.blake2b(length + row.tobytes(), digest_size=8).digest() for row in packed]
    hashes = np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)
    return torch.from_numpy(hashes).to(patterns.device)


def neuron_margins(model: nn.Module, inputs: Any) -> Margins:
    r"""Computes how near each hidden unit comes to switching on or off over a batch.

    .. math:: \rho_l = \min_x |h_l(x)|, \qquad \hat\rho_l = \min_x |\mathrm{sigmoid}(h_l(x)) - \tfrac12|

    (the margins of Daróczy 2022). The margins over a set are the minima over its batches. Since the sigmoid is monotone,
    ρ̂_l = ½ tanh(ρ_l / 2), which loses no digits to the difference.

    Args:
        model: The network; it is evaluated in eval mode and left as it was.
        inputs: A batch of shape (N, ...), or a tuple or dict of arguments.

    Returns:
        The margins, in the order of :func:`activation_patterns`; inf and ½ for a batch without samples.

    Raises:
        UnsupportedNetworkError: See :func:`activation_regions`.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = nn.init.ones_(net[0].weight)
        >>> neuron_margins(net, torch.tensor([[3.0], [-2.0]])).preactivation
        tensor([2.], dtype=torch.float64)
    """
    margins, _ = margins_and_finite(model, inputs)
    return Margins(margins, torch.tanh(margins / 2) / 2)


def margins_and_finite(model: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
    """Returns ρ_l over the preactivations that are finite, and for which samples all of them are, shape (N,)."""
    found = collect_from_activations(model, inputs, lambda hidden: (_smallest_magnitudes(hidden), finite_samples(hidden)))
    margins, finite = zip(*found)
    return torch.cat(margins), torch.stack(finite).all(0)


def _smallest_magnitudes(hidden: Tensor) -> Tensor:
    magnitudes = hidden.flatten(1).abs().double().nan_to_num(nan=torch.inf)
    return magnitudes.amin(0) if len(magnitudes) else magnitudes.new_full(magnitudes.shape[1:], torch.inf)


def log_max_active_weights(model: nn.Module, inputs: Any, *, wrt: Wrt = None, output: OutputPicker | None = None) -> Tensor:
    r"""Computes log w_A(x), the largest ``|w|`` on the active paths of each sample's region (Eq. 4 of Daróczy 2022).

    A weight is on an active path if it lies between active units of consecutive layers; all inputs and outputs count as
    active.

    Args:
        model: A chain of Linear layers and ReLU, see :func:`~lightning_tansens.tangent.closed_form.relu_chain.relu_chain`.
        inputs: A batch of at least one sample.
        wrt: Which tensor is x, see :func:`~lightning_tansens.functional.tangent_sensitivity`.
        output: Picks the tensor of outputs, as there.

    Returns:
        Natural logarithms, float64, shape (N,); -inf for a sample without an active path.

    Raises:
        UnsupportedNetworkError: If the network is no such chain.
        ValueError: If the batch is empty.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[4.0], [-5.0]])), nn.init.ones_(net[2].weight)
        >>> log_max_active_weights(net, torch.tensor([[3.0], [-3.0]])).exp().round(decimals=9)
        tensor([4., 5.], dtype=torch.float64)
    """
    return relu_chain(model, inputs, wrt=wrt, output=output).log_max_active_weights()
