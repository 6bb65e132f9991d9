"""GELU, layer normalisation and attention with a probe carried along, their derivatives worked out by hand.

torch differentiates them twice as well, by several times as many passes over the data. With a dot for the derivative along
the probe, each function below returns y and ẏ in the forward pass, and in the reverse pass from the gradient g and its ġ
that of its input, and that one's derivative. Each wants a dual tensor, within a dual level.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.forward_ad import make_dual

from lightning_tansens.tangent.operators.known_derivatives import apply_known, split_dual


def gelu(x: Tensor) -> Tensor:
    """Returns x Φ(x), whose first derivative is Φ + x φ and the second φ (2 − x²), φ the normal density."""
    h, h_dot = split_dual(x)
    slope = torch.ops.aten.gelu_backward(torch.ones_like(h), h)
    square = h.square()
    density = square.mul(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    slope_dot = density.mul_(square.neg_().add_(2)).mul_(h_dot)

    def pull(gradient: Tensor) -> tuple[Tensor]:
        g, g_dot = split_dual(gradient)
        return (make_dual(g * slope, torch.addcmul(g_dot * slope, g, slope_dot)),)

    return apply_known(F.gelu, lambda tangent: tangent * slope, pull, x)


def layer_norm(x: Tensor, shape: Sequence[int], eps: float) -> Tensor:
    """Returns y = (x − mean) · r over the last axes, with r the inverse deviation."""
    h, h_dot = split_dual(x)
    axes = list(range(-len(shape), 0))
    y, _, r = torch.native_layer_norm(h, shape, None, None, eps)

    def mean(values: Tensor) -> Tensor:
        return values.mean(axes, keepdim=True)

    def centred(values: Tensor, share: Tensor) -> Tensor:
        return (values - mean(values)).sub_(y * share)

    steepness = mean(y * h_dot)
    y_dot = centred(h_dot, steepness).mul_(r)
    growth = -r * steepness  # ṙ/r

    def pull(gradient: Tensor) -> tuple[Tensor]:
        g, g_dot = split_dual(gradient)
        share = mean(y * g)
        share_dot = mean((y_dot * g).add_(y * g_dot))
        result = centred(g, share).mul_(r)
        result_dot = centred(g_dot, share_dot).sub_(y_dot * share).mul_(r).add_(result * growth)
        return (make_dual(result, result_dot),)

    return apply_known(lambda _: y.clone(), lambda _: y_dot, pull, x)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Returns P V with P = softmax(scale · Q Kᵀ), over leading axes that the three share."""
    heads, shapes = query.shape[:-2], (query.shape, key.shape, value.shape)
    (q, q_dot), (k, k_dot), (v, v_dot) = [
        [part.reshape(-1, *part.shape[-2:]) for part in split_dual(tensor)] for tensor in (query, key, value)
    ]
    q, q_dot = q * scale, q_dot * scale
    p = (q @ k.mT).softmax(-1)
    scores_dot = _product_rule(q, q_dot, k.mT, k_dot.mT)
    p_dot = (scores_dot - (p * scores_dot).sum(-1, keepdim=True)).mul_(p)
    y_dot = _product_rule(p, p_dot, v, v_dot)

    def pull(gradient: Tensor) -> tuple[Tensor, ...]:
        g, g_dot = (part.reshape(-1, *part.shape[-2:]) for part in split_dual(gradient))
        to_p, to_p_dot = g @ v.mT, _product_rule(g, g_dot, v.mT, v_dot.mT)
        inner = to_p - (p * to_p).sum(-1, keepdim=True)
        to_scores = p * inner
        share_dot = (p_dot * to_p).add_(p * to_p_dot).sum(-1, keepdim=True)
        to_scores_dot = (p_dot * inner).add_(to_p_dot.sub_(share_dot).mul_(p))
        results = (
            make_dual((to_scores @ k).mul_(scale), _product_rule(to_scores, to_scores_dot, k, k_dot).mul_(scale)),
            make_dual(to_scores.mT @ q, _product_rule(to_scores.mT, to_scores_dot.mT, q, q_dot)),
            make_dual(p.mT @ g, _product_rule(p.mT, p_dot.mT, g, g_dot)),
        )
        return tuple(result.reshape(shape) for result, shape in zip(results, shapes))

    return apply_known(lambda *_: (p @ v).unflatten(0, heads), lambda *_: y_dot.unflatten(0, heads), pull, query, key, value)


def _product_rule(a: Tensor, a_dot: Tensor, b: Tensor, b_dot: Tensor) -> Tensor:
    """The derivative of a @ b."""
    return torch.baddbmm(a_dot @ b, a, b_dot)
