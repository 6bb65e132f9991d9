"""How values, distributions, figures and texts reach loggers."""

# they register themselves
from lightning_tansens.show.loggers import comet, folder, mlflow, tensorboard, wandb  # noqa: F401
from lightning_tansens.show.loggers.base import Writer, writer_of

__all__ = ["Writer", "writer_of"]
