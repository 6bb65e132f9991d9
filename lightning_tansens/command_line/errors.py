"""What the command says in a line instead of a traceback."""


class UsageError(Exception):
    """An argument, the configuration or a checkpoint cannot be used; the message names the file."""
