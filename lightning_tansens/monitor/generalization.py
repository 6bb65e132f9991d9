"""The terms of the second paper's generalisation bound along a run."""

import math
from collections.abc import Callable
from typing import Any, get_args

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_tansens.bounds.generalization import Loss, lipschitz_constant, theorem5_bound
from lightning_tansens.checks import check_callable, check_choice, check_counts, check_seed, check_share, check_text
from lightning_tansens.functional.gradient_difference import gradient_norms
from lightning_tansens.monitor.data.batches import unpack_batch
from lightning_tansens.monitor.data.drawn import draw_subset, small_note
from lightning_tansens.monitor.data.reading import Unpack
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.monitor.data.trainer_data import reference_data
from lightning_tansens.monitor.data.transfer import to_device
from lightning_tansens.monitor.module import find_network
from lightning_tansens.monitor.namespaces import OtherCallback
from lightning_tansens.monitor.processes import together
from lightning_tansens.monitor.trainer_loggers import log_for_callbacks, logging_step
from lightning_tansens.show.notices import tell
from lightning_tansens.tangent.batches import call_model
from lightning_tansens.tangent.isolation import evaluation, isolated_rng, undisturbed
from lightning_tansens.tangent.sensitivity import tangent_sensitivity

#: What is kept as the largest value so far, over samples, outputs, measurements and processes.
MAXIMA = ("C_TS", "K_x", "K_theta0", "K_grad0", "max_distance", "residual", "loss_bound")

#: The mean losses of a batch, from (outputs, targets); the slope is taken of their sum.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda f, y: F.cross_entropy(f, y, reduction="none"),
    "logistic": lambda f, y: F.softplus(-f * (2 * _as_outputs(y, f) - 1)).sum(1),
    "squared": lambda f, y: (f - _as_outputs(y, f)).square().sum(1),
    "half_squared": lambda f, y: (f - _as_outputs(y, f)).square().sum(1) / 2,
}


class GeneralizationBoundMonitor(pl.Callback, OtherCallback):
    r"""Logs the constants and the known terms of Theorem 5 of Rácz et al. (2023) while a network trains.

    .. math:: L(f) - L_{emp}(f) \le \frac{2 K_L K_x K_{\nabla 0}\, C_{TS} C_{GD}}{\sqrt N} + K_L H(\theta)
        + K_L K_{\theta 0} + B \sqrt{\frac{2 \ln(4/\delta)}{N}}

    The theorem is about a scalar output, a ReLU chain without biases and plain gradient descent; Adam, SGD, biases and other
    networks lie outside it, but their numbers can be watched all the same. For several outputs ‖S‖ and ‖∇f‖ are the
    largest over the outputs, ``|∂ℓ/∂f|`` the sum over them, with which ‖θ_t − θ_0‖ ≤ K_x C_TS C_GD still holds under
    gradient descent. H(θ), how far the network is from its linearisation on unseen data, cannot be known and is left out;
    K_L K_θ0 can be dropped, and is logged by itself. The constants are suprema over the domain and the trajectory: measured
    on a subset and at epoch ends they are estimates from below. Expect the bound to be vacuous; the trend is what one
    watches.

    Logged keys, at epoch ends:

    - ``tansens_bound/C_TS``: the largest ‖S_{e_c}(θ_t, x)‖_F so far; ``C_GD``: Σ_t η(t) · mean_i Σ_c ``|∂ℓ_i/∂f_c|``
      over all steps, with η from the optimizer (its largest, if groups differ) and the slope of the batch before the step,
      in eval mode; ``K_x``: the largest ‖x‖; ``K_theta0``, ``K_grad0``: the largest ``|f_c(θ_0, x)|`` and ‖∇_θ f_c(θ_0, x)‖.
    - ``distance``: ‖θ_t − θ_0‖; ``max_distance``: its largest value so far; ``slack``: K_x C_TS C_GD / ‖θ_t − θ_0‖.
    - ``K_L``, ``loss_bound`` (the largest loss seen), ``complexity`` (the first term), ``complexity_of_distance`` (the same
      with ``max_distance`` for K_x C_TS C_GD, tighter and right for any optimizer), ``initial`` (K_L K_θ0), ``confidence``.

    It adds a forward pass for each training batch. θ_0 is kept in the checkpoint, which grows by the size of the network.

    Args:
        loss: ℓ: "cross_entropy", "logistic" (labels 0 and 1), "squared" (Σ_c (f_c − y_c)²) or "half_squared". For the last
            three class indices are taken as unit vectors.
        num_samples: The number of training samples on which the constants are measured.
        sample_size: N, the size of the sample that the bound is about, which is not the training set, because the class of
            functions depends on that; None takes ``num_samples``.
        confidence: 1 − δ.
        batch_size: The number of samples measured at once.
        unpack: A callable that splits a batch into (inputs, targets); None takes pairs, and finds labels by their names.
        network: The name of the LightningModule's submodule to measure; None measures its ``forward``, or without one its
            only part with weights.
        seed: Seed of the subset.
        prefix: What the logged keys begin with.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> monitor = GeneralizationBoundMonitor(loss="half_squared", num_samples=64)
        >>> trainer = pl.Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    def __init__(
        self,
        loss: Loss = "cross_entropy",
        num_samples: int = 256,
        sample_size: int | None = None,
        confidence: float = 0.95,
        batch_size: int = 256,
        unpack: Unpack | None = None,
        network: str | None = None,
        seed: int = 0,
        prefix: str = "tansens_bound",
    ) -> None:
        super().__init__()
        check_seed(seed)
        check_choice("loss", loss, get_args(Loss))
        sample_size = num_samples if sample_size is None else sample_size
        check_counts(num_samples=num_samples, batch_size=batch_size, sample_size=sample_size)
        check_share("confidence", confidence)
        check_callable("unpack", unpack)
        check_text("prefix", prefix)
        if network is not None:
            check_text("network", network)
        self.loss: Loss = loss
        self.num_samples = num_samples
        self.sample_size = sample_size
        self.confidence = confidence
        self.batch_size = batch_size
        self.unpack = unpack_batch if unpack is None else unpack
        self.network = network
        self.seed = seed
        self.prefix = prefix
        #: What was logged, one row an epoch, with ``epoch`` and ``step``.
        self.history: list[dict[str, float]] = []
        self._start: dict[str, Tensor] = {}
        self._maxima = dict.fromkeys(MAXIMA, 0.0)
        self._descent = 0.0
        self._slopes: list[float] = []
        self._stepped = False
        self._subset: Subset | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forgets an earlier fit."""
        if stage == "fit":
            self.history, self._start, self._maxima = [], {}, dict.fromkeys(MAXIMA, 0.0)
            self._descent, self._slopes, self._stepped = 0.0, [], False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps θ_0 and measures at it, unless a checkpoint has brought both."""
        with together(trainer), isolated_rng(), undisturbed(pl_module):
            network = find_network(pl_module, self.network)
            name, data = reference_data(trainer, "train")
            self._subset = draw_subset(trainer, name, data, self.num_samples, self.batch_size, self.seed)
            if not self._start:
                self._start = {name: parameter.detach().cpu().clone() for name, parameter in network.named_parameters()}
                self._measure(trainer, network, initial=True)
        if (note := small_note({name: self._subset}, self.num_samples)) is not None:
            tell(note, "GeneralizationBoundMonitor")
        tell(
            "H(θ) is left out of the bound, as it cannot be known; Theorem 5 assumes a scalar "
            "output, a ReLU chain without biases and plain gradient descent",
            "GeneralizationBoundMonitor",
        )

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Takes the slope of the loss in the outputs, before the step."""
        if self._stepped:
            self._slopes, self._stepped = [], False
        with together(trainer), isolated_rng(), undisturbed(pl_module):
            inputs, targets = self.unpack(batch)
            outputs = self._outputs(find_network(pl_module, self.network), inputs)
            with torch.inference_mode(False), torch.enable_grad():
                leaf = outputs.detach().clone().requires_grad_()
                (slope,) = torch.autograd.grad(LOSSES[self.loss](leaf, targets).sum(), leaf)
            self._slopes.append(float(slope.double().abs().sum(1).mean()))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Adds η(t) times the mean slope of the batches of this step."""
        rate = max(float(group["lr"]) for group in optimizer.param_groups)
        self._descent += rate * sum(self._slopes) / len(self._slopes)
        self._stepped = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures, reduces over the processes and logs."""
        with together(trainer), isolated_rng(), undisturbed(pl_module):
            self._measure(trainer, find_network(pl_module, self.network), initial=False)
        device, reduce = pl_module.device, trainer.strategy.reduce
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no double precision
        maxima = torch.tensor([self._maxima[name] for name in MAXIMA], dtype=dtype, device=device)
        self._maxima = dict(zip(MAXIMA, reduce(maxima, reduce_op="max").tolist(), strict=True))
        self._descent = float(reduce(torch.tensor(self._descent, dtype=dtype, device=device), reduce_op="mean"))
        distance = self._distance(find_network(pl_module, self.network))
        scalars = {f"{self.prefix}/{name}": value for name, value in self._terms(distance).items()}
        log_for_callbacks(trainer, scalars)
        self.history.append({"epoch": trainer.current_epoch, "step": logging_step(trainer), **scalars})

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs, θ_0 among it."""
        return {"start": self._start, "maxima": self._maxima, "descent": self._descent, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where a checkpoint was taken."""
        self._start, self._maxima = dict(state_dict["start"]), dict(state_dict["maxima"])
        self._descent, self.history = state_dict["descent"], list(state_dict["history"])

    def _terms(self, distance: float) -> dict[str, float]:
        now = self._maxima
        k_loss = lipschitz_constant(self.loss, now["residual"])
        radius = now["K_x"] * now["C_TS"] * self._descent
        product, tighter = (
            theorem5_bound(
                k_loss=k_loss,
                k_gradient=now["K_grad0"],
                k_initial=now["K_theta0"],
                radius=r,
                loss_bound=now["loss_bound"],
                num_samples=self.sample_size,
                confidence=self.confidence,
            )
            for r in (radius, now["max_distance"])
        )
        return {
            **{name: value for name, value in now.items() if name != "residual"},
            "C_GD": self._descent,
            "distance": distance,
            **({"slack": radius / distance} if distance > 0 else {}),
            "K_L": k_loss,
            "complexity": product.complexity,
            "complexity_of_distance": tighter.complexity,
            "initial": product.initial,
            "confidence": product.confidence,
        }

    def _measure(self, trainer: pl.Trainer, network: nn.Module, initial: bool) -> None:
        """Updates this process's maxima on its share of the subset."""
        assert self._subset is not None
        self._keep("max_distance", self._distance(network))
        for loaded in self._subset:
            inputs, targets = self.unpack(to_device(trainer, loaded))
            outputs = self._outputs(network, inputs)
            self._keep("C_TS", tangent_sensitivity(network, inputs, outputs="each").max().sqrt())
            self._keep("loss_bound", LOSSES[self.loss](outputs, targets).max())
            if self.loss != "cross_entropy":
                self._keep("residual", (outputs - _as_outputs(targets, outputs)).abs().max())
            if initial:
                self._keep("K_x", torch.linalg.vector_norm(inputs.flatten(1).double(), dim=1).max())
                self._keep("K_theta0", outputs.abs().max())
                self._keep("K_grad0", gradient_norms(network, inputs, outputs="each").max())

    def _keep(self, name: str, value: Tensor | float) -> None:
        self._maxima[name] = max(self._maxima[name], float(value))

    def _distance(self, network: nn.Module) -> float:
        parameters = dict(network.named_parameters())
        squares = [
            (parameters[name].detach().cpu().double() - start.double()).square().sum() for name, start in self._start.items()
        ]
        return math.sqrt(float(sum(squares)))

    def _outputs(self, network: nn.Module, inputs: Any) -> Tensor:
        with evaluation(network), torch.no_grad():
            outputs: Tensor = call_model(network, inputs)
        return outputs.flatten(1)


def _as_outputs(targets: Tensor, outputs: Tensor) -> Tensor:
    """Returns the targets in the outputs' shape; class indices become unit vectors."""
    if targets.dim() == 1 and not targets.is_floating_point() and outputs.shape[1] > 1:
        return F.one_hot(targets, outputs.shape[1]).to(outputs)
    return targets.to(outputs).reshape(outputs.shape)
