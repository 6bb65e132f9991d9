"""What a run's loggers are sent beside scalars."""

from lightning_tansens.show.options import Display

__all__ = ["Display"]
