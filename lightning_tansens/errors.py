"""Exceptions of the package; each message says what was expected, what came and what to do."""


class UnsupportedNetworkError(ValueError):
    """The network cannot be measured by the method that was asked for."""


class TooLargeError(UnsupportedNetworkError):
    """A network whose weights are gathered as they are used would have to be held as a whole."""


class UndefinedEstimateError(ValueError):
    """A measure has values, but they define no estimate (a ratio of numbers of opposite sign, a zero reference)."""


class TooEarlyError(UndefinedEstimateError):
    """An estimate compares with earlier measurements of the same samples, and the run has too few of them yet."""


class NonFiniteWeightsError(ArithmeticError):
    """A weight is infinite or not a number, so that nothing can be measured."""


class FailedElsewhereError(RuntimeError):
    """The measurement failed on another process, so this one gives it up too."""


class LeftWaitingError(BaseException):
    """This process failed while the others wait for it in a sharded network's layers, so that no process can go on."""


class DisturbedTrainingError(RuntimeError):
    """A measurement has changed something of the training that cannot be put back; no policy may pass over it."""
