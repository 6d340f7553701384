"""The one exception that stands for bad input, and text that fits on one line."""

from importlib.util import find_spec


def printable(text: str) -> str:
    """The text with line breaks, and what else no terminal or page should be sent, written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


LONGEST = 300  # characters of a message, whatever was given


class InputError(ValueError):
    """Something the user gave is unusable.

    The message is one line that says what was wrong, where (file, row or key) and what to do;
    pipeline stages print it to stderr without a traceback and exit with status 1.
    """

    def __init__(self, message: str) -> None:
        line = printable(message[:LONGEST] + message[LONGEST:][-LONGEST:])
        fits = len(line) <= LONGEST
        # what was wrong stands at its beginning, what to do at its end
        super().__init__(line if fits else f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}")


def needs(extra: str, *modules: str) -> None:
    """Raise InputError unless the modules that an extra of the package brings are there."""
    for module in modules:
        if find_spec(module) is None:
            raise InputError(f"{module} is not installed: pip install 'rnngrad[{extra}]'")
