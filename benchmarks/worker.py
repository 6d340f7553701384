"""One competitor in a process of its own: reads requests as lines of JSON, answers likewise.

    python -m benchmarks.worker jax_float64

A request names a problem's file, a budget in seconds (the part of the work that is run is chosen
once per problem, so that it fits) and a file for the curves. Started by the driver, not by hand.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import numpy as np

from benchmarks.cases import Problem
from benchmarks.competitors import COMPETITORS, MEMORY, Competitor, Curves
from benchmarks.extrapolation import from_first_steps, from_some_steps, longest_prefix

PILOT = {1: 25, 2: 4}  # steps of a first try, by the power of T that the cost grows with
LATE = 1.0  # seconds: a quicker first run may be mostly what a library puts off until then
SHORT = 0.5  # seconds: what takes less is repeated for so long
FEWEST = 3  # runs of what takes little more: after the others' turns the first is out of all caches
FRACTIONS = (1.0, 0.5, 0.0, 0.25, 0.75)  # of T: the steps t taken first, one at a time


@dataclass(frozen=True)
class Measured:
    """seconds: of the whole work, extrapolated if `steps` are not all of them."""

    seconds: float
    steps: list[int]
    extrapolated: bool
    curves: Curves


class Prefixes:
    """All of the first steps at once."""

    def __init__(self, competitor: Competitor, problem: Problem, budget: float) -> None:
        self.power = 2 if competitor.growth == "reverse" else 1
        self.problem = problem
        prepare = _function(competitor)
        self.n = min(PILOT[self.power], _most(competitor, problem))
        self.run = prepare(problem, self.n)
        seconds, _ = _timed(self.run)
        if seconds < LATE:
            seconds, _ = _timed(self.run)
        fits = longest_prefix(seconds, self.n, problem.steps, self.power, budget)
        n = min(fits, _most(competitor, problem))
        if n != self.n:
            self.n, self.run = n, prepare(problem, n)

    def measure(self) -> Measured:
        T = self.problem.steps
        seconds, curves = _repeated(self.run)
        whole = from_first_steps(seconds, self.n, T, self.power)
        return Measured(whole, list(range(1, self.n + 1)), self.n < T, curves)


class SingleSteps:
    """One t after another: all of them, or some where all take longer than the budget."""

    def __init__(self, competitor: Competitor, problem: Problem, budget: float) -> None:
        self.problem, self.budget = problem, budget
        self.once, self.at = _function(competitor)(problem)
        self.once()
        self.at(1)

    def measure(self) -> Measured:
        T = self.problem.steps
        start = perf_counter()
        self.once()
        shared = perf_counter() - start
        seconds, curves = self._some(start)
        if len(seconds) < T and shared + from_some_steps(seconds, T) <= self.budget:
            seconds, curves = self._taken(range(1, T + 1))
        return self._measured(shared, seconds, curves)

    def _some(self, start: float) -> tuple[dict[int, float], dict[int, Curves]]:
        """The last step, the middle, the first, and more while there is time."""
        T = self.problem.steps
        seconds, curves = {}, {}
        for number, fraction in enumerate(FRACTIONS):
            t = max(1, round(fraction * T))
            if number >= 3 and perf_counter() - start > self.budget / 2:
                break
            taken, found = self._taken([t])
            seconds, curves = seconds | taken, curves | found
        return seconds, curves

    def _taken(self, steps) -> tuple[dict[int, float], dict[int, Curves]]:
        taken = {t: _timed(lambda t=t: self.at(t)) for t in steps}
        return {t: s for t, (s, _) in taken.items()}, {t: c for t, (_, c) in taken.items()}

    def _measured(self, shared: float, seconds: dict, curves: dict) -> Measured:
        T, steps = self.problem.steps, sorted(seconds)
        values = np.concatenate([curves[t].column_sum for t in steps], axis=1)
        whole = shared + from_some_steps(seconds, T)
        return Measured(whole, steps, len(steps) < T, Curves(column_sum=values))


def _function(competitor: Competitor) -> Callable[..., Any]:
    module = import_module(f"benchmarks.competitors.{competitor.module}")
    return getattr(module, competitor.function)


def _most(competitor: Competitor, problem: Problem) -> int:
    held = competitor.bytes_per_step(problem.hidden, problem.batch)
    return min(problem.steps, max(1, MEMORY // held) if held else problem.steps)


def _timed(run: Callable[[], Curves]) -> tuple[float, Curves]:
    start = perf_counter()
    curves = run()
    return perf_counter() - start, curves


def _repeated(run: Callable[[], Curves]) -> tuple[float, Curves]:
    """The median where one run is too short for a clock and a busy machine."""
    taken, curves = _timed(run)
    seconds = [taken]
    while sum(seconds) < SHORT or (len(seconds) < FEWEST and sum(seconds) < FEWEST * SHORT):
        seconds.append(_timed(run)[0])
    return statistics.median(seconds), curves


def main(name: str) -> None:
    answers = _own_stdout()
    if COMPETITORS[name].needs == "torch" and not COMPETITORS[name].denormals:
        import torch

        torch.set_flush_denormal(True)  # before there are threads, which take it over
    plan, path = None, None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["problem"] != path:
                plan, path = None, request["problem"]  # the last one's memory first
                plan = plan_for(COMPETITORS[name], Problem.load(Path(path)), request["budget"])
            assert plan is not None
            start = perf_counter()
            measured = plan.measure()
            _answer(answers, measured, perf_counter() - start, Path(request["curves"]))
        except Exception as error:  # whatever a library raises: the others go on
            path = None
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            print(json.dumps({"error": message[:200]}), file=answers, flush=True)


def plan_for(competitor: Competitor, problem: Problem, budget: float) -> Prefixes | SingleSteps:
    kind = SingleSteps if competitor.growth == "per step" else Prefixes
    return kind(competitor, problem, budget)


def _own_stdout() -> TextIO:
    """Where answers go; what libraries print goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, measured: Measured, spent: float, path: Path) -> None:
    curves = {k: v for k, v in measured.curves._asdict().items() if v is not None}
    np.savez(path, steps=measured.steps, **curves)
    answer = {"seconds": measured.seconds, "extrapolated": measured.extrapolated, "spent": spent}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
