"""Results of the second table, and ratios of times that were taken in turns in one process."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """A median with its range over the rounds.

    what: names the work; unit: says what the number counts; note: holds the accuracy, or what was
    extrapolated; goal: "≥ 2" or "≤ 2", empty where none is set.
    """

    what: str
    value: float
    low: float
    high: float
    unit: str
    note: str = ""
    goal: str = ""

    @property
    def met(self) -> bool:
        sign, number = self.goal.split()
        return self.value >= float(number) if sign == "≥" else self.value <= float(number)


class Sizes(NamedTuple):
    """How large the work is."""

    steps: int
    hidden: int
    batch: int
    rounds: int


QUESTION = Sizes(1403, 200, 100, 5)
TINY = Sizes(40, 16, 4, 1)


def interleaved(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round."""
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
    goal: str = "",
) -> Finding:
    """Seconds of `over` by those of `under`, round by round, times `factor`."""
    pairs = zip(seconds[over], seconds[under], strict=False)  # a slow one takes fewer rounds
    return median(what, [factor * above / below for above, below in pairs], unit, note, goal)


def median(what: str, values: Sequence[float], unit: str, note: str, goal: str) -> Finding:
    return Finding(what, statistics.median(values), min(values), max(values), unit, note, goal)
