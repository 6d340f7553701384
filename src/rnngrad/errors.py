"""The one exception that stands for bad input, and text that fits on one line."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

LONGEST = 280  # characters of a message, whatever was given; with the stage it stays below 300


def printable(text: str) -> str:
    """Write out line breaks, and other characters that no terminal or page should get."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def full_name(thing: object) -> str:
    """Give the name of an object's class, or of a class that was handed over, with its module."""
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


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
        if len(line) > LONGEST:  # its beginning says what was wrong, its end what to do
            line = f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}"
        super().__init__(line)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Name the extra of this package that installs a missing import of the block."""
    try:
        yield
    except ModuleNotFoundError as error:
        line = f"{error.name} is not installed: pip install 'rnngrad[{extra}]'"
        raise InputError(line) from error


def check_memory(needed: float, what: str, mend: str) -> None:
    """Raise InputError where more bytes are needed than there are; no MemoryError would tell."""
    if needed > _memory():
        raise InputError(
            f"{what} about {needed / 1e9:,.0f} GB of memory, and this process has "
            f"{_memory() / 1e9:,.0f} GB; {mend}"
        )


@cache
def _memory() -> float:
    """The bytes of memory of this machine or, where Linux limits it, of the container or job."""
    limits = [math.inf]
    if hasattr(os, "sysconf"):  # Windows has none
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, file = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
            group = Path("/sys/fs/cgroup", root, name[1:])
            for folder in (group, *group.parents):  # those above limit as well
                with suppress(OSError, ValueError):  # "max" is no limit
                    limits.append(int((folder / file).read_text()))
    return min(limits)
