"""What is shown of a run: its console, pictures, tables and charts, from records alone."""

from lightning_tansens.show.options import Display

__all__ = ["Display"]
