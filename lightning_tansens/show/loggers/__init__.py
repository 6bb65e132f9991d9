"""Writers, which send values, distributions, figures and texts to loggers."""

from importlib import import_module
from pkgutil import iter_modules

from lightning_tansens.show.loggers.base import Writer, writer_of

# each file registers its writer
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Writer", "writer_of"]
