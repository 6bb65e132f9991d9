"""What ends the command with a message instead of a traceback."""


class UsageError(Exception):
    """An argument, the configuration or a checkpoint cannot be used; the message names the file."""


class MeasurementError(Exception):
    """A checkpoint was loaded but could not be measured; the message names the file."""
