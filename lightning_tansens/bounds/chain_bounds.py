"""The papers' bounds of the tangent sensitivity of a network, in natural logarithms.

Depth, widths and weights enter as powers that overflow, so nothing leaves the logarithms. All are for chains of Linear
layers and ReLU on a batch, :class:`~lightning_tansens.tangent.closed_form.relu_chain.ReluChain`. Index letters: n sample,
i and l layer of k.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_tansens.bounds.active_nodes import ActiveNodeForm, log_active_node_bound, log_nonnegative
from lightning_tansens.checks import check_choice, check_numbers
from lightning_tansens.tangent.closed_form.relu_chain import ReluChain

#: What is bounded: ‖S_u‖² for u = (1, …, 1), or ‖S_{e_c}‖² for any single output c.
BoundedOutputs = Literal["sum", "each"]

#: The two printed lines of Theorem 1: one largest weight for each layer, or one for the network.
NormForm = Literal["layers", "network"]


def log_norm_bound(chain: ReluChain, *, form: NormForm = "layers", outputs: BoundedOutputs = "sum") -> float:
    r"""Computes the logarithm of Theorem 1's bound, the same for every input.

    .. math:: \|S(x)\|_F^2 \le P D \Big(\hat N^{k-1} \frac{\prod_i w_{\max,i}}{\min_i w_{\max,i}}\Big)^2
        \le P D \, (\hat N w_{\max})^{2(k-1)}

    (Eq. 1 of Daróczy 2022, its first and its second line). N̂ is the largest width of a hidden layer; the theorem is for a
    single output, and for u = (1, …, 1) it stays true if the outputs count as a layer too. P counts all trainable
    parameters, of which biases have no share in S. :func:`log_sample_norm_bounds` is far tighter.

    Args:
        chain: The network, see :func:`~lightning_tansens.tangent.closed_form.relu_chain.relu_chain`.
        form: "layers" for the first line, "network" for the second.
        outputs: "sum" bounds ‖S_u‖² for u = (1, …, 1), "each" bounds ‖S_{e_c}‖² for every output c.

    Returns:
        The natural logarithm; -inf where the bound is zero.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> from torch import nn
        >>> from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
        >>> _ = nn.init.ones_(net[0].weight), nn.init.constant_(net[2].weight, 2.0)
        >>> chain = relu_chain(net, torch.ones(1, 1))  # S = (2, 1)
        >>> round(math.exp(log_norm_bound(chain)), 9)  # 2 · 1 · (2 / 1)²
        8.0
    """
    _check(chain, outputs)
    check_choice("form", form, get_args(NormForm))
    log_maxima = chain.max_weights.log()
    if form == "network":
        log_maxima = log_maxima.max().expand(chain.depth)
    all_but_smallest = float(log_maxima.sort().values[1:].sum())  # a quotient of products could be 0/0
    path_term = (chain.depth - 1) * math.log(_width(chain, outputs)) + all_but_smallest
    return log_nonnegative(chain.num_parameters) + math.log(chain.input_dim) + 2 * path_term


def log_sample_norm_bounds(chain: ReluChain, *, outputs: BoundedOutputs = "sum") -> Tensor:
    r"""Computes the logarithm of a tighter form of Theorem 1, for each sample.

    .. math:: \|S(x)\|_F^2 \le D \sum_l c_l(x) \prod_{i \ne l} w_{\max,i}^2

    (the argument behind Eq. 1 of Daróczy 2022 with each sample's own numbers of active units n_i(x) in place of N̂ and
    P; the paper does not print it). c_l is the product of n_i over the hidden layers that W_l touches, times the product
    of n_i² over the others; for u = (1, …, 1) times C² for l < k and times C for l = k. Only trainable W_l count. It is
    an equality where all weights of a layer are equal and positive and all units active.

    Args:
        chain: The network on a batch.
        outputs: "sum" or "each", see :func:`log_norm_bound`.

    Returns:
        Natural logarithms, float64, shape (N,); -inf for a sample without an active path.

    Raises:
        ValueError: If the outputs have a value that is not allowed.

    Example:
        >>> from torch import nn
        >>> from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
        >>> _ = nn.init.ones_(net[0].weight), nn.init.constant_(net[2].weight, 2.0)
        >>> log_sample_norm_bounds(relu_chain(net, torch.ones(1, 1))).exp().round(decimals=9)  # ‖S‖² = 2² + 1²
        tensor([5.], dtype=torch.float64)
    """
    _check(chain, outputs)
    k, log_maxima = chain.depth, chain.max_weights.log()
    layers = torch.arange(k, device=log_maxima.device)
    # W_l, counted from 0, touches the hidden layers l − 1 and l
    exponents = torch.full((k, k - 1), 2.0, dtype=torch.float64, device=log_maxima.device)
    exponents[layers[1:], layers[1:] - 1] = 1
    exponents[layers[:-1], layers[:-1]] = 1
    log_terms = chain.active_nodes.double().log() @ exponents.T
    own = torch.eye(k, dtype=torch.bool, device=log_maxima.device)
    log_terms = log_terms + 2 * log_maxima.expand(k, k).masked_fill(own, 0).sum(1)
    if outputs == "sum":
        log_terms = log_terms + math.log(chain.num_outputs) * torch.where(layers < k - 1, 2, 1).double()
    trainable = torch.tensor(chain.trainable, device=log_maxima.device)
    return math.log(chain.input_dim) + log_terms[:, trainable].logsumexp(1)


def log_active_node_bound_of(
    chain: ReluChain, *, form: ActiveNodeForm = "consistent", outputs: BoundedOutputs = "sum"
) -> float:
    """Computes the logarithm of Theorem 2's bound on the mean of ‖S(x)‖_F² over a batch.

    It is :func:`~lightning_tansens.functional.log_active_node_bound` (Eq. 2 of Daróczy 2022) for the batch's μ and σ and the
    network's w_max. The theorem takes T to be normal. Without that the consistent form still holds for k ≤ 2
    and where all samples have the same number of active units; elsewhere as far as E T^{2(k−1)} is not above the normal's.

    Args:
        chain: The network on a batch, see :func:`~lightning_tansens.tangent.closed_form.relu_chain.relu_chain`.
        form: "consistent" or "printed", which is no bound.
        outputs: "sum" or "each", see :func:`log_norm_bound`.

    Returns:
        The natural logarithm; -inf where the bound is zero.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> from torch import nn
        >>> from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
        >>> _ = nn.init.ones_(net[0].weight), nn.init.ones_(net[2].weight)
        >>> round(math.exp(log_active_node_bound_of(relu_chain(net, torch.ones(1, 1)))), 9)
        2.0
    """
    _check(chain, outputs)
    return _by_moments(chain, chain.active_node_moments(), float(chain.max_weights.max()), form, outputs)


def log_region_bounds(
    chain: ReluChain,
    *,
    moments: tuple[float, float] | None = None,
    form: ActiveNodeForm = "consistent",
    outputs: BoundedOutputs = "sum",
) -> Tensor:
    r"""Computes the logarithms of Eq. 4's summands, in which each activation region has its own largest weight w_A.

    .. math:: \sum_A P D \, \hat N^{2(k-1)} w_A^{2(k-1)} \, P(A), \qquad \text{or} \qquad
        \sum_A \Gamma(P, D, k, \mu, \sigma, w_A) \, P(A)

    (Eq. 4 of Daróczy 2022, with Γ of Theorem 2, Eq. 2). With the frequencies of the patterns in a set for P(A) the sum is
    the mean over the samples, :func:`~lightning_tansens.bounds.active_nodes.log_mean_exp` of what is returned here. The
    first form, with paths counted by widths, bounds ‖S(x)‖_F² for each sample and so its mean; with P(A|x) of Eq. 5, a
    score of one sample, it would not. The second form is a bound as far as Theorem 2 is one and w_A is independent of the
    number of active units; with form="printed" it is none.

    Args:
        chain: The network on a batch.
        moments: None for the first form; μ and σ of the number of active units over the set, for the second form, for
            example :meth:`~lightning_tansens.tangent.closed_form.relu_chain.ReluChain.active_node_moments`.
        form: Which Γ, see :func:`~lightning_tansens.bounds.active_nodes.log_active_node_bound`.
        outputs: "sum" or "each", see :func:`log_norm_bound`.

    Returns:
        Natural logarithms, float64, shape (N,); -inf for a sample without an active path.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> from torch import nn
        >>> from lightning_tansens.tangent.closed_form.relu_chain import relu_chain
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[4.0], [-5.0]])), nn.init.ones_(net[2].weight)
        >>> bounds = log_region_bounds(relu_chain(net, torch.tensor([[1.0], [-1.0]])))
        >>> bounds.exp().round(decimals=9)  # 4 · 1 · 2² · (4², 5²)
        tensor([256., 400.], dtype=torch.float64)
    """
    _check(chain, outputs)
    check_choice("form", form, get_args(ActiveNodeForm))
    order = 2 * (chain.depth - 1)
    if moments is not None and not (isinstance(moments, Sequence) and len(moments) == 2 and not isinstance(moments, str)):
        raise TypeError(f"moments: expected two numbers, mean and standard deviation, or None, but got {moments!r}")
    if moments is None:
        log_factor = (
            log_nonnegative(chain.num_parameters) + math.log(chain.input_dim) + order * math.log(_width(chain, outputs))
        )
    else:
        mean, std = moments
        check_numbers(moments_mean=mean)
        check_numbers(at_least=0, moments_std=std)
        log_factor = _by_moments(chain, (mean, std), 1.0, form, outputs)
    log_weights = chain.log_max_active_weights()
    return log_factor + (order * log_weights if order else torch.zeros_like(log_weights))


def _check(chain: object, outputs: object) -> None:
    if not isinstance(chain, ReluChain):
        raise TypeError(f"chain: expected a ReluChain, but got {type(chain).__name__}; pass what relu_chain returns")
    check_choice("outputs", outputs, get_args(BoundedOutputs))


def _by_moments(
    chain: ReluChain, moments: tuple[float, float], weight: float, form: ActiveNodeForm, outputs: BoundedOutputs
) -> float:
    branches, sizes = chain.num_outputs if outputs == "sum" else 1, (chain.num_parameters, chain.input_dim, chain.depth)
    return log_active_node_bound(*sizes, *moments, weight, form=form, num_outputs=branches)


def _width(chain: ReluChain, outputs: BoundedOutputs) -> int:
    """The largest number of units that paths can branch over in one layer, N̂."""
    return max((*chain.hidden_widths, chain.num_outputs if outputs == "sum" else 1))
