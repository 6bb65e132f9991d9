"""What a run's loggers are sent beside scalars."""

from lightning_tansens.display.options import Display

__all__ = ["Display"]
