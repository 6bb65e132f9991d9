"""Names and units of measures, for axes."""

from dataclasses import dataclass

from lightning_tansens.record import TRIVIAL
from lightning_tansens.show.keys import ACTUAL

_TANGENT = "output / (parameter · input)"
_NATURAL = "natural logarithm"


@dataclass(frozen=True)
class Label:
    """The name of a value and its unit."""

    name: str  #: The name, with formulas in matplotlib's mathematical notation.
    unit: str = ""  #: The unit; of a logarithm, that it is natural.

    @property
    def logarithm(self) -> bool:
        """Whether the value is a logarithm, which a logarithmic axis would take a second time."""
        return self.unit == _NATURAL

    def __str__(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


#: By the names under which values are logged.
VALUES = {
    "empirical": Label(r"mean $\|S\|_F^2$", f"({_TANGENT})²"),
    "empirical_norm": Label(r"mean $\|S\|_F$", _TANGENT),
    "empirical_max": Label(r"maximum of $\|S\|_F^2$", f"({_TANGENT})²"),
    "active_nodes": Label(r"active nodes, $\log\,\psi^*$", _NATURAL),
    "active_nodes_mean": Label("mean number of active hidden units", "units"),
    "active_nodes_std": Label("standard deviation of active hidden units", "units"),
    "layer_norm": Label(r"layer-wise norm, $\log\,\Pi_i\,w_{max,i}$", _NATURAL),
    "input_output": Label(r"mean $\|\partial f/\partial x\|_F$", "output / input"),
    "fisher_rao": Label("Fisher–Rao norm", "loss²"),
    "spectral_norm": Label(r"spectral norm, $\log\,\Pi_i\,\|W_i\|_2$", _NATURAL),
    "region": Label(r"regions, mean $\log(\Pi_i\,n_i \cdot P(A|x))$", _NATURAL),
    "mean_tangent": Label(r"$\|\mathrm{mean}\ S\|_F$", _TANGENT),
    "class_sensitivity": Label(r"mean $\|S_{e_c}\|_F$", _TANGENT),
    "output_sensitivity": Label(r"mean $\|S_{e_c}\|_F$", _TANGENT),
    "movement": Label(r"relative change of $S$", "without unit"),
    "gradient_difference": Label(r"mean $\|\nabla_\theta f(x) - \nabla_\theta f(\varphi(x))\|^2$", "(output / parameter)²"),
    "neuron_margins": Label(r"mean margin $\rho_l$ of the hidden units", "preactivation"),
    "patterns": Label("distinct activation patterns", "number"),
    "pattern_information": Label(r"information of patterns about labels, $\hat I(A;\,y)$", "nats"),
    "count_information": Label(r"information of active nodes about labels, $\hat I(T;\,y)$", "nats"),
}

#: The estimates in a legend; other ones go by their keys.
_ESTIMATES = {
    ACTUAL: "true",
    TRIVIAL: "trivial: the reference's own",
    "layer_norm": "layer-wise norm",
    "input_output": "input–output",
    "fisher_rao": "Fisher–Rao",
}


def value_label(name: str) -> Label:
    """Returns the label of a logged value by its name; one that is not known goes by that name, without a unit."""
    return VALUES.get(name) or Label(name.replace("_", " "))


def estimate_label(name: str) -> str:
    """Returns what an estimate is called in a legend."""
    return _ESTIMATES.get(name) or name.replace("_", " ")
