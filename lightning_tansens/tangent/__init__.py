"""Tangent sensitivity of any network, and what it knows about the operators of networks."""

from lightning_tansens.tangent.operators import builtin as _builtin  # noqa: F401, registers what torch has
from lightning_tansens.tangent.operators.convolutions import ConvolutionRule
from lightning_tansens.tangent.operators.layer_rules import BroadcastRule, EmbeddingRule, LinearRule, Result, Rule
from lightning_tansens.tangent.operators.registry import Operator, register_operator

__all__ = [
    "BroadcastRule",
    "ConvolutionRule",
    "EmbeddingRule",
    "LinearRule",
    "Operator",
    "Result",
    "Rule",
    "register_operator",
]
