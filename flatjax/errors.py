"""The exceptions that the command-line programs turn into one line."""


class InputError(ValueError):
    """A file, configuration or argument that flatjax cannot work with.

    The message says what came, what was expected and what to do about it. The command-line
    programs print it as one line and exit with status 2.
    """


class NonFiniteError(InputError):
    """A reconstruction that has values that are not finite."""


class TrainingError(RuntimeError):
    """Training cannot go on, though its input was accepted: the loss is not finite, for one.

    The command-line programs print it as one line and exit with status 1.
    """


class StorageError(OSError):
    """Results cannot be written: the disk is full, for one. What was written before is intact.

    The command-line programs print it as one line and exit with status 1.
    """
