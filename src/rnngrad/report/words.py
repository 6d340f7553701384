"""The templates of the report, and how they write numbers, names and text from outside."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

from rnngrad.errors import printable
from rnngrad.params import Setting
from rnngrad.report.style import NAMES
from rnngrad.study import WEIGHTS, claims

NAMED = {**NAMES, **WEIGHTS, "column_sum": "column sum", "frobenius": "Frobenius"}
NAMED |= {"spectral": "spectral", "cell_path": "forget gates alone", "hidden_path": "hidden path"}


def environment() -> Environment:
    """The templates below ``templates/``; a value that they name and nobody gives is an error."""
    how = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    made = Environment(loader=PackageLoader("rnngrad.report"), **how)
    made.filters |= {
        "named": lambda name: NAMED.get(name, name),
        "fixed": _or_nothing(fixed),
        "signed": _or_nothing(partial(fixed, sign="+")),
        "share": _or_nothing(lambda value, digits=1: f"{value:.{digits}%}"),
        "count": _or_nothing(lambda number: f"{number:,.0f}"),
        "power": _or_nothing(lambda x: "exactly 0" if x == -math.inf else f"10^{x:z.1f}"),
        "interval": _or_nothing(interval),
        "begun": _begun,
        "step": lambda step: "never" if math.isnan(step) else f"{step:,.0f}",
    }
    made.filters |= {each.__name__: each for each in (nested, cases, counted, typeset, text, code)}
    made.globals |= {"limits": claims, "log10": math.log10}
    return made


def _begun(setting: Setting) -> str:
    known = {"keras": f"forget bias {setting.forget_bias:g}", "chrono": "chrono biases"}
    return known.get(setting.initializer, f"{setting.initializer}'s initialiser")


def _or_nothing(shown: Callable[..., str]) -> Callable[..., str]:
    """The same, but empty for a number that was not measured."""

    def filled(value: Any, *args: Any, **kwargs: Any) -> str:
        missing = value is None or isinstance(value, Undefined) or value != value
        return "" if missing else shown(value, *args, **kwargs)

    return filled


def fixed(value: float, digits: int = 1, sign: str = "") -> str:
    """A number, such as a log10. Zero has no sign."""
    if value == -math.inf:
        return "exactly 0"
    shown = f"{value:{sign}z.{digits}f}"
    return shown.replace("+", "") if float(shown) == 0 else shown


def interval(value: Mapping[str, Any], form: str, scale: float = 1, top: float = math.inf) -> str:
    """A mean with its 95% interval, such as "+0.4 (+0.3 to +0.5)"; without ends, the mean alone.

    Numbers are shown times ``scale``. One that cannot be negative has a ``top``, its highest value.
    """
    mean, low, high = value["mean"], value.get("low"), value.get("high")
    if low is None or high is None:
        return f"{scale * mean:{form}}"
    if top < math.inf:
        low, high = max(low, 0.0), min(high, top)
    return f"{scale * mean:{form}} ({scale * low:{form}} to {scale * high:{form}})"


def nested(measured: Mapping[str, float]) -> dict[str, Any]:
    """Numbers of a claim as they lie in one another: "a/b" is b of a."""
    found: dict[str, Any] = {}
    for path, value in measured.items():
        *above, name = path.split("/")
        place = reduce(lambda place, part: place.setdefault(part, {}), above, found)
        place[name] = value
    return found


def cases(by_weights: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Numbers by weights and input as a list, such as rows of a table."""
    return [
        {"weights": weights, "input": kind, **found}
        for weights, by_input in by_weights.items()
        for kind, found in by_input.items()
    ]


def counted(numbers: Sequence[int], what: str) -> str:
    """Such as "1 seed", "5 seeds" or "2 to 5 seeds"."""
    low, high = min(numbers), max(numbers)
    number = f"{high}" if low == high else f"{low} to {high}"
    return f"{number} {what}{'' if high == 1 else 's'}"


def typeset(plain: str) -> str:
    """Letters with an index, powers of ten and minus signs as HTML, which Markdown lets pass."""
    plain = re.sub(r"\bd(?=[chLW]_)", "∂", plain)
    plain = re.sub(r"(?<![A-Za-z])([chKLoUW])_(hh|\w)\b", r"\1<sub>\2</sub>", plain)
    plain = plain.replace("c_(t-1)", "c<sub>t−1</sub>")
    plain = re.sub(r"10\^(-?[\d.]*\d)", r"10<sup>\1</sup>", plain).replace("<sup>-", "<sup>−")
    return re.sub(r"(?<=[ (|>])-(?=\d)", "−", plain)


def text(value: object) -> str:
    """A value from outside, such as a file's name, as Markdown that shows nothing but itself."""
    return re.sub(r"([\\`*_{}\[\]<>&~#!$|])", r"\\\1", printable(str(value)))


def code(value: object) -> str:
    """The same in Markdown's backticks, for a cell of a table."""
    shown = printable(str(value))
    # more backticks than the value has in a row
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    gap = " " if "`" in shown else ""
    return f"{fence}{gap}{shown}{gap}{fence}".replace("|", r"\|")
