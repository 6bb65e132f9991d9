"""What is known about each torch function, in one record; whatever traces or measures a network reads it here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from lightning_tansens.checks import check_callable
from lightning_tansens.tangent.operators.layer_rules import Result

Function = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """One operator of a network: the torch functions that call it, and what is known about it.

    Each of the callables takes the arguments of the torch function.

    Raises:
        TypeError: If a function or one of the fields is not callable.
        ValueError: If there is no function.
    """

    functions: Sequence[Function]  #: The torch functions, for example ``(F.relu, torch.relu, Tensor.relu)``.
    #: The layer rule: returns the function's value and, for each tensor that may be a parameter, how it enters; or None
    #: where the rule does not apply. Without one, a network with parameters there takes parameter space.
    rule: Callable[..., Result | None] | None = None
    #: The same function with two derivatives, where torch lacks the second or takes it at a needless cost.
    substitute: Callable[..., Tensor] | None = None
    #: The same function with three derivatives, for the regulariser, where torch takes the third one wrongly.
    thrice: Callable[..., Tensor] | None = None
    #: Builds its link of a piecewise-linear chain, see :mod:`~lightning_tansens.tangent.closed_form.links`.
    link: Callable[..., Any] | None = None
    opened: Function | None = None  #: A form of a composite function in which its inner calls can be traced.
    is_activation: bool = False  #: Whether its units count as active where their preactivation is positive.
    is_weight_layer: bool = False  #: Whether it multiplies by a weight, so that its input may be called features.

    def __post_init__(self) -> None:
        if not self.functions:
            raise ValueError("functions: expected at least one torch function, but got none")
        for function in self.functions:
            if not callable(function):
                raise TypeError(f"functions: expected torch functions, but got {function!r}")
        for name in ("rule", "substitute", "thrice", "link", "opened"):
            check_callable(name, getattr(self, name))


_UNKNOWN = Operator((lambda *args, **kwargs: None,))
_known: dict[Function, Operator] = {}
_revisions: list[Operator] = []


def register_operator(operator: Operator) -> None:
    """Makes an operator known to everything that measures networks.

    A function that is known already keeps what the new record says nothing about.

    Raises:
        TypeError: If it is no record of an operator.

    Example:
        A trainable threshold p in ``torch.rsub(h, p)``, which is p − h, has no rule. It is added to something, so that its
        gradient is δ, summed over what it was broadcast to:

        >>> import torch
        >>> from lightning_tansens.functional import chosen_method, tangent_sensitivity
        >>> from lightning_tansens.tangent import BroadcastRule, Operator, Result, register_operator
        >>> class Threshold(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer, self.p = torch.nn.Linear(3, 4), torch.nn.Parameter(torch.zeros(4))
        ...     def forward(self, x):
        ...         return torch.tanh(torch.rsub(self.layer(x), self.p))
        >>> network, x = Threshold(), torch.randn(5, 3)
        >>> chosen_method(network, x).way
        'parameter_space'
        >>> def rsub(input, other, *, alpha=1):
        ...     if alpha != 1 or not isinstance(other, torch.Tensor):
        ...         return None
        ...     return Result(torch.rsub(input, other), input, [(other, BroadcastRule(other.shape, multiplies=False))])
        >>> register_operator(Operator((torch.rsub,), rule=rsub))
        >>> chosen_method(network, x).way
        'input_space'
        >>> tangent_sensitivity(network, x).shape
        torch.Size([5])
    """
    if not isinstance(operator, Operator):
        raise TypeError(f"operator: expected an Operator, but got {operator!r}")
    told = {f.name: getattr(operator, f.name) for f in fields(operator) if getattr(operator, f.name)}
    for function in operator.functions:
        _known[function] = replace(_known.get(function, operator), **told)
    _revisions.append(operator)


def operator_of(function: Function) -> Operator:
    """Returns the record of a torch function; an empty one where nothing is known about it."""
    return _known.get(function, _UNKNOWN)


def revision() -> int:
    """Returns how often operators were registered, for those who remember what they found out about a network."""
    return len(_revisions)
