"""The one exception that stands for bad input."""


class InputError(ValueError):
    """Something the user gave is unusable.

    The message is one line that says what was wrong, where (file, row or key) and what to do;
    pipeline stages print it to stderr without a traceback and exit with status 1.
    """
