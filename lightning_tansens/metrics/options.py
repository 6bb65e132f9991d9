"""The options of a measurement as one value: which tensor is x, which outputs count, which method and probes."""

from dataclasses import dataclass
from typing import Any

from lightning_tansens.checks import check_callable, check_seed
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.methods import Method, check_probes
from lightning_tansens.tangent.network import Outputs, check_outputs


@dataclass(frozen=True)
class TangentOptions:
    """The options of :func:`~lightning_tansens.functional.tangent_sensitivity`, asked of one batch after another.

    Attributes:
        outputs: "sum" (u = 1), "each" or a weighting of shape (C,).
        method: The way of computing.
        num_probes: Number of random probes a sample, where the method needs them.
        seed: Names the probes; sets that are compared share them, so that their noise partly cancels in a ratio.
        wrt: Which tensor is x.
        output: Picks the tensor of outputs, where the model returns a tuple, a dict or the like. A monitor's ``output``
            takes its place where it is None, see :meth:`~lightning_tansens.metrics.Measure.with_output`.

    Raises:
        TypeError: If ``output`` cannot be called.
        ValueError: If another option has a value that is not allowed.
    """

    outputs: Outputs = "sum"
    method: Method = "auto"
    num_probes: int = 1
    seed: int = 0
    wrt: Wrt = None
    output: OutputPicker | None = None

    def __post_init__(self) -> None:
        check_outputs(self.outputs)
        check_probes(self.method, self.num_probes)
        check_seed(self.seed)
        check_callable("output", self.output)

    @property
    def function(self) -> dict[str, Any]:
        """The part that says what f and x are, as keyword arguments of the pure functions."""
        return {"outputs": self.outputs, "wrt": self.wrt, "output": self.output}
