"""``python -m lightning_tansens``."""

import sys

from lightning_tansens.command_line import main

if __name__ == "__main__":
    sys.exit(main())
