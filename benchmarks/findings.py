"""Ratios of times that were taken in turns in one process."""

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """A ratio with its spread over the rounds.

    what: names what was measured; unit: what the number counts; note: accuracy, or what was
    extrapolated.
    """

    what: str
    value: float
    low: float
    high: float
    unit: str
    note: str = ""


class Sizes(NamedTuple):
    """How large the work is."""

    steps: int
    hidden: int
    batch: int
    rounds: int


QUESTION = Sizes(1403, 200, 100, 3)
TINY = Sizes(40, 16, 4, 1)


def interleaved(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round; the median forgives a slow first one."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    return seconds


def ratio(
    what: str,
    seconds: Mapping[str, list[float]],
    over: str,
    under: str,
    unit: str,
    factor: float = 1.0,
    note: str = "",
) -> Finding:
    """Seconds of `over` by those of `under`, round by round, times `factor`: median and range."""
    pairs = zip(seconds[over], seconds[under], strict=True)
    ratios = [factor * above / below for above, below in pairs]
    return Finding(what, statistics.median(ratios), min(ratios), max(ratios), unit, note)
