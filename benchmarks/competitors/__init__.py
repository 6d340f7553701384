"""Who takes part, and how a turn of theirs is timed. This file needs NumPy only."""

import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from benchmarks.cases import Problem
from benchmarks.extrapolation import from_some_steps

PROBE, UNIT, FLOOR, JAX = "rnngrad", "forward", "floor", "jax_float64"
LABELS = {
    PROBE: "rnngrad, float64",
    UNIT: "plain nn.LSTM forward, float32",
    FLOOR: "the matrix products alone, float64",
    JAX: "JAX scan of jvp, float64",
    "jax_float32": "JAX scan of jvp, float32",
    "jacfwd": "torch.func.jacfwd, float32",
    "autograd": "torch autograd for every t, float32",
    "tensorflow": "TensorFlow, the question's way",
}
EXACT = {PROBE, JAX}  # their time counts only where they keep rnngrad's promise
SHORT = 0.5  # seconds: less is repeated for so long, and the median counts
FEWEST = 3  # runs of what takes little more: after the others' turns the first is out of all caches


class Curves(NamedTuple):
    """log10, (batch, steps) float64, -inf where a value is zero; None where there is none."""

    column_sum: np.ndarray | None = None
    frobenius: np.ndarray | None = None
    spectral: np.ndarray | None = None


class Turn(NamedTuple):
    """seconds of the whole work; the steps that were run, from 1; their curves, if any."""

    seconds: float
    steps: np.ndarray
    curves: Curves


def first_steps(run: Callable[[], Curves], steps: int, T: int) -> Turn:
    """All of the first steps at once, each of which costs the same."""
    seconds, curves = [], Curves()
    while sum(seconds) < SHORT * (FEWEST if len(seconds) < FEWEST else 1):
        start = perf_counter()
        curves = run()
        seconds.append(perf_counter() - start)
    return Turn(statistics.median(seconds) * T / steps, np.arange(1, steps + 1), curves)


def one_by_one(once: Callable[[], None], at: Callable[[int], Curves], T: int) -> Turn:
    """The work that all t share, and three of them, each by itself."""
    start = perf_counter()
    once()
    shared = perf_counter() - start
    seconds, found = {}, []
    for t in sorted({1, max(1, T // 2), T}):
        start = perf_counter()
        found.append(at(t).column_sum)
        seconds[t] = perf_counter() - start
    whole = shared + from_some_steps(seconds, T)
    return Turn(whole, np.array(list(seconds)), Curves(np.concatenate(found, axis=1)))


def serve(prepare: Callable[[Problem], Callable[[], Turn]]) -> None:
    """A process of its own: every line that it reads asks for a turn.

    It answers with a line of JSON, the first of which says that it is ready; the curves are in a
    file. `benchmarks.rounds` starts it.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    folder = Path(sys.argv[1])
    try:
        with np.load(folder / "problem.npz") as arrays:
            turn = prepare(Problem(**arrays))
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            seconds, steps, curves = turn()
            found = {k: v for k, v in curves._asdict().items() if v is not None}
            np.savez(folder / line.strip(), steps=steps, **found)
            print(json.dumps({"seconds": seconds}), file=answers, flush=True)
    except Exception as error:  # whatever a library raises: the others go on
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(json.dumps({"refused": why}), file=answers, flush=True)
