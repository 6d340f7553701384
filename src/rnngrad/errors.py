"""The one exception that stands for bad input, and text that fits on one line."""

from importlib.util import find_spec

LONGEST = 300  # characters of a message, whatever was given


def printable(text: str) -> str:
    """Write out line breaks, and what else no terminal or page should be sent."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class InputError(ValueError):
    """Say in one line what the user gave that is unusable, where (file, row or key), what to do.

    Pipeline stages print it to stderr without a traceback and exit with status 1.
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
