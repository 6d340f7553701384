"""The one exception that stands for bad input, and text that fits on one line."""

import os
from importlib.util import find_spec

LONGEST = 280  # characters of a message, whatever was given; with the stage it stays below 300


def printable(text: str) -> str:
    """Write out line breaks, and what else no terminal or page should be sent."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class InputError(ValueError):
    """Say in one line what the user gave that is unusable, where (file, row or key), what to do.

    Pipeline stages print it to stderr without a traceback and exit with status 1.

    Examples:
        >>> import torch, rnngrad
        >>> try:
        ...     rnngrad.jacobian_curves(torch.nn.GRU(3, 4), torch.zeros(5, 2, 7))
        ... except rnngrad.InputError as error:
        ...     print(error)
        inputs have 7 features, the module expects 3
    """

    def __init__(self, message: str) -> None:
        line = printable(message[:LONGEST] + message[LONGEST:][-LONGEST:])
        if len(line) > LONGEST:  # what was wrong stands at its beginning, what to do at its end
            line = f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}"
        super().__init__(line)


def needs(extra: str, *modules: str) -> None:
    """Raise InputError unless the modules that an extra of the package brings are there."""
    for module in modules:
        if find_spec(module) is None:
            raise InputError(f"{module} is not installed: pip install 'rnngrad[{extra}]'")


def check_memory(needed: float, what: str, mend: str, available: float | None = None) -> None:
    """Raise InputError where something needs more bytes than are available: this machine's.

    A system promises memory that it lacks and ends the process later, so no MemoryError would tell.
    """
    if available is None and hasattr(os, "sysconf"):  # Windows has none
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if available is not None and needed > available:
        raise InputError(
            f"{what} about {needed / 1e9:,.0f} GB of memory, and this machine has "
            f"{available / 1e9:,.0f} GB; {mend}"
        )
