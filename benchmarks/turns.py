"""One turn of one competitor, in a process of its own.

    python -m benchmarks.turns FOLDER 'jax_ways.curves dtype=float64'

A way gets the problem in FOLDER/problem.npz. It prepares itself, does the work against the clock
and returns a Turn, which goes to FOLDER/turn.npz. This file needs NumPy only: processes that know
neither torch nor rnngrad run it too.
"""

import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

Found = Mapping[str, np.ndarray]

WARM = 20  # steps
SHORT, MIN_RUNS = 0.5, 3  # seconds: less is repeated for so long and so often; the median counts


class Problem(NamedTuple):
    """float32 arrays: a layer, its G gates in torch's order, and what it reads."""

    weight_ih: np.ndarray  # (G H, D)
    weight_hh: np.ndarray  # (G H, H)
    bias: np.ndarray  # (G H,)
    inputs: np.ndarray  # (B, T, D)
    h: np.ndarray  # (B, H)
    c: np.ndarray  # (B, H), read by the LSTM alone

    @property
    def size(self) -> tuple[int, int, int]:
        """T, H and B."""
        return self.inputs.shape[1], self.h.shape[1], len(self.h)


class Turn(NamedTuple):
    """Seconds of the whole work, and what it found.

    Curves are log10, (batch, steps) float64, -inf where a value is zero, by their names; `steps`
    says for which t they are, from 1, if not for all.
    """

    seconds: float
    found: Found
    extrapolated: bool = False


def clock(run: Callable[[], Any]) -> tuple[float, Any]:
    start = perf_counter()
    found = run()
    return perf_counter() - start, found


def timed(run: Callable[[int | None], Found], part: float = 1.0) -> Turn:
    """One run of a part of the work; all parts cost the same.

    Libraries do some things once: before the clock starts, `run` has a few steps to do.
    """
    run(WARM)
    seconds, found = [], {}
    while sum(seconds) < SHORT or (len(seconds) < MIN_RUNS and seconds[0] < SHORT):
        second, found = clock(lambda: run(None))
        seconds.append(second)
    return Turn(statistics.median(seconds) / part, found, part < 1)


def one_by_one(once: Callable[[], Any], at: Callable[[int], np.ndarray], T: int) -> Turn:
    """The work that all t share, and some t by themselves; between these it is linear in t."""
    shared, turns = clock(once)[0], {t: clock(partial(at, t)) for t in some_steps(T)}
    of_all = np.interp(np.arange(1, T + 1), [*turns], [seconds for seconds, _ in turns.values()])
    found = {f"at_{t}": result for t, (_, result) in turns.items()}
    return Turn(shared + float(of_all.sum()), found, extrapolated=True)


def some_steps(T: int) -> list[int]:
    return sorted({1, max(1, T // 2), T})


def call(words: str, problem: Problem) -> Any:
    """Let `file.function option=value ...` of this folder take a problem."""
    name, *options = words.split()
    file, function = name.split(".")
    take = getattr(import_module(f"benchmarks.{file}"), function)
    return take(problem, **dict(option.split("=") for option in options))


def main(folder: str, way: str) -> None:
    seconds, found, extrapolated = call(way, Problem(**np.load(f"{folder}/problem.npz")))
    np.savez(f"{folder}/turn.npz", _seconds=seconds, _extrapolated=extrapolated, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
