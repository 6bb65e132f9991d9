"""Tangent sensitivity of any network, and what it knows about the operators of networks."""

from importlib import import_module
from pkgutil import iter_modules

from lightning_tansens.tangent import operators
from lightning_tansens.tangent.operators.convolutions import ConvolutionRule
from lightning_tansens.tangent.operators.layer_rules import BroadcastRule, EmbeddingRule, LinearRule, Result, Rule
from lightning_tansens.tangent.operators.registry import Operator, register_operator

# each file registers its operators
for _module in iter_modules(operators.__path__):
    import_module(f"{operators.__name__}.{_module.name}")

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
