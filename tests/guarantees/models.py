"""Networks and data that a measurement could disturb."""

import os
import random

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import BaseFinetuning
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, random_split

from tests.boring import BoringData, BoringModule, Points, points
from tests.test_monitor_training import Noisy


class Convolutional(BoringModule):
    """The four features as a picture; with a scheduler."""

    def __init__(self):
        super().__init__(
            nn.Sequential(
                nn.Unflatten(1, (1, 2, 2)),
                nn.Conv2d(1, 4, 2, padding=1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Dropout2d(0.3),
                nn.Flatten(),
                nn.Linear(4, 3),
            )
        )

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.05)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


class SpectrallyNormalised(BoringModule):
    """Its power iteration has a state of its own, which a pass in train mode advances."""

    def __init__(self):
        normalised = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))
        super().__init__(nn.Sequential(normalised, nn.ReLU(), nn.Linear(6, 3)))


class Normalised(BoringModule):
    """Hooks compute the weights, which are plain attributes, and advance the power iteration."""

    def __init__(self):
        first, last = nn.utils.weight_norm(nn.Linear(4, 6)), nn.utils.spectral_norm(nn.Linear(6, 3))
        super().__init__(nn.Sequential(first, nn.ReLU(), nn.Dropout(0.3), last))


class WeightNormalised(BoringModule):
    """Parametrisations compute the weights."""

    def __init__(self):
        first, last = (nn.utils.parametrizations.weight_norm(nn.Linear(*sizes)) for sizes in ((4, 6), (6, 3)))
        super().__init__(nn.Sequential(first, nn.BatchNorm1d(6), nn.ReLU(), last))


class QuantisationAware(BoringModule):
    """Observers write ranges and scales into buffers in every mode, partly by a kernel that no version counts."""

    def __init__(self):
        stubs = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        network = nn.Sequential(stubs[0], nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), stubs[1])
        network.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        super().__init__(torch.ao.quantization.prepare_qat(network.train()))


class LazyLinear(BoringModule):
    """Learns its inputs' size from the first batch."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.Dropout(0.3), nn.LazyLinear(3)))


class LazyConvolutional(BoringModule):
    """Its buffers are lazy as well."""

    def __init__(self):
        lazy = nn.LazyConv2d(3, 2), nn.LazyBatchNorm2d()
        super().__init__(nn.Sequential(nn.Unflatten(1, (1, 2, 2)), *lazy, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)))


class Averaged(Noisy):
    """Keeps a moving average of its network, and validates with it."""

    def __init__(self):
        super().__init__()
        self.averaged = torch.optim.swa_utils.AveragedModel(self.network, use_buffers=True)

    def on_train_batch_end(self, *args):
        self.averaged.update_parameters(self.network)

    def validation_step(self, batch, index):
        self.log("averaged_loss", F.cross_entropy(self.averaged(batch[0]), batch[1]))
        return super().validation_step(batch, index)


class Restless(BoringModule):
    """Each forward pass, in every mode, feeds into what the next one computes, and the training step into the loss."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
        self.teacher = nn.Linear(4, 6).requires_grad_(False)
        self.register_buffer("scale", torch.ones(1))
        self.mean, self.calls, self.recent = torch.zeros(6), 0, []

    def forward(self, inputs):
        hidden = self.network[0](inputs)
        self.scale.data.mul_(0.99)
        self.mean.mul_(0.9).add_(hidden.detach().mean(0), alpha=0.1)
        self.calls += 1
        self.recent.append(self.calls)
        self.teacher.weight.data = 0.9 * self.teacher.weight.data + 0.1 * self.network[0].weight.data
        return self.network[2](self.network[1](hidden * self.scale))

    def training_step(self, batch, index):
        rest = self.mean.sum() + 0.01 * self.calls + 0.01 * len(self.recent) + self.teacher.weight.sum()
        return super().training_step(batch, index) * (1 + 0.01 * torch.tanh(rest))


class Adversarial(BoringModule):
    """A GAN whose discriminator is the classifier; two optimisers that take turns, by hand (Salimans et al. 2016)."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3)))
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))

    def training_step(self, batch, _):
        inputs, targets = batch
        of_classifier, of_generator = self.optimizers()
        self.toggle_optimizer(of_generator)
        realness = self.network(self.generator(torch.randn(len(inputs), 2))).logsumexp(1)
        fooling = F.softplus(-realness).mean()
        self.step(of_generator, fooling)
        self.toggle_optimizer(of_classifier)
        fakes = self.network(self.generator(torch.randn(len(inputs), 2)).detach()).logsumexp(1)
        outputs = self.network(inputs)
        telling = F.cross_entropy(outputs, targets) + F.softplus(fakes).mean() + F.softplus(-outputs.logsumexp(1)).mean()
        self.step(of_classifier, telling)
        self.log_dict({"generator_loss": fooling, "classifier_loss": telling})
        return {"loss": (fooling + telling).detach()}

    def step(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        classifier = torch.optim.Adam(self.network.parameters(), 0.02)
        return [classifier, torch.optim.RMSprop(self.generator.parameters(), 0.02)]


class Compiled(Noisy):
    """Its network is compiled; the graphs that autograd runs are made by AOTAutograd."""

    def __init__(self):
        super().__init__()
        self.network.compile(backend="aot_eager")


class Noise(nn.Module):
    """Adds noise in every mode, drawn from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, inputs):
        return inputs + 0.1 * torch.randn(inputs.shape, generator=self.generator)


class OwnNoise(BoringModule):
    """Trains with noise inside."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Noise(), nn.Linear(6, 3)))


class TransferNoise(BoringModule):
    """Augments on the device, while it trains."""

    def __init__(self):
        super().__init__()
        self.augmentation = Noise()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [self.augmentation(batch[0]), batch[1]] if self.trainer.training else batch


class LoggingForward(BoringModule):
    """Logs a statistic of its hidden layer."""

    def forward(self, inputs):
        hidden = self.network[0](inputs)
        self.log("hidden", hidden.detach().norm())
        return self.network[2](self.network[1](hidden))


class PartlyTrained(Noisy):
    """Hands what is not frozen to the optimiser."""

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1, momentum=0.9)


class Unfreezing(BaseFinetuning):
    """Trains the first layer from the second epoch on."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.network[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network[0], optimizer, lr=0.01)


# -------------------------------------------------------------------------------------------------------- data


class Stateful(IterableDataset):
    """A stream that goes on where the last epoch ended: it has a generator and a position."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(5)
        self.position = 0

    def __iter__(self):
        for _ in range(12):
            self.position += 1
            inputs = torch.randn(4, generator=self.generator) + 0.01 * self.position
            yield inputs + 0.1 * random.random(), inputs[:3].argmax()


class Curriculum(BoringData):
    """Other training data each time that the loader is asked for: later and smaller, with other samples."""

    def __init__(self):
        super().__init__(noise=True)
        self.asked = 0

    def train_dataloader(self):
        self.asked += 1
        size = 12 - 2 * int(torch.randint(2, ())) - 2 * int(np.random.randint(2))
        return DataLoader(Points(size, seed=10 + self.asked, noise=True), batch_size=4, shuffle=True)


class Remembering(Points):
    """Augments a point once and keeps it."""

    def __init__(self):
        super().__init__(noise=True)
        self.memory = {}

    def __getitem__(self, index):
        if index not in self.memory:
            self.memory[index] = super().__getitem__(index)
        return self.memory[index]


class OpenedOnce(Points):
    """Opens a handle at the first access, as LMDB and HDF5 want it: another process that finds it open reads rubbish."""

    def __init__(self):
        super().__init__(noise=True)
        self.opened_by = None

    def __getitem__(self, index):
        self.opened_by = os.getpid() if self.opened_by is None else self.opened_by
        inputs, label = super().__getitem__(index)
        return inputs + 100 * (self.opened_by != os.getpid()), label


class AugmentedInPlace(Points):
    """Caches decoded samples, and augments what it has cached a little further at each access."""

    def __init__(self):
        super().__init__()
        self.decoded = {}

    def __getitem__(self, index):
        inputs, label = super().__getitem__(index)
        return self.decoded.setdefault(index, inputs.clone()).mul_(1.01).clone(), label


class Splitting(BoringData):
    """Splits its data at random whenever it is set up, as the stage does not matter to it."""

    def setup(self, stage):
        inputs, classes = points(28)
        self.train, self.val, self.test = random_split(TensorDataset(inputs, classes), [12, 8, 8])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=4)


def from_loader(make, **kwargs):
    """A function that makes the data of which ``make()`` is the training set."""

    class OwnLoader(BoringData):
        def train_dataloader(self):
            return DataLoader(make(), batch_size=4, **kwargs)

    return OwnLoader
