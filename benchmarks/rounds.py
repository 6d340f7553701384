"""One case: in every round each competitor works once, alone, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.cases import FORWARD, Case, Work
from benchmarks.reference import Check
from benchmarks.turns import Problem, Turn, call, clock
from rnngrad.data.demo import real_word_counts
from rnngrad.models.initializers import initialize_like_keras

ROOT = Path(__file__).parents[1]
BENCH_PYTHON = ROOT / ".bench-venv/bin/python"  # knows JAX and TensorFlow
FOREIGN = ("jax_ways", "tensorflow_ways")
FEATURES = 100  # the dimension of the question's word vectors
THREADS = 2  # of every competitor, whichever library makes them
SETTINGS = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), str(THREADS)
)
LIMIT = 1800.0  # seconds of one turn
# After so many rounds a competitor rests that no goal compares, or that has worked for so long.
SOME_ROUNDS, ENOUGH = 2, 60.0


def run_case(case: Case, tell: Callable[[str], object] = lambda who: None) -> dict[str, Any]:
    """By way: seconds of every round and the worst error, or why it is refused."""
    results: dict[str, Any] = {way: {"seconds": []} for way in case.ways}
    spent, problem = dict.fromkeys(case.ways, 0.0), make_problem(case.work)
    tell("reference")
    check = call(f"reference.{case.check}", problem) if case.check else None
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/problem.npz", **problem._asdict())
        for number in range(case.rounds):
            for way, result in results.items():
                compared = way in (*case.ways[:2], FORWARD)
                rests = number >= SOME_ROUNDS and (spent[way] > ENOUGH or not compared)
                if "refused" not in result and not rests:
                    tell(f"round {number + 1}: {way}")
                    spent[way] += clock(partial(_work, way, folder, check, result))[0]
    return results


def make_problem(work: Work) -> Problem:
    torch.manual_seed(0)
    T, H, B = work[:3]
    layer = getattr(nn, work.cell.upper())(FEATURES, H, batch_first=True)
    if work.question:
        initialize_like_keras(layer, forget_bias=1.0)
    x, (h, c) = torch.randn(B, T, FEATURES), torch.rand(2, B, H) * work.question
    if work.padded:
        words = torch.from_numpy(np.minimum(real_word_counts(B), T))
        x[torch.arange(T) < (T - words)[:, None]] = 0
        h[:], c[:] = h[0].clone(), c[0].clone()
    weights = [p.detach() for p in layer.parameters()][:3]
    return Problem(*(array.numpy() for array in (*weights, x, h, c)))


def _work(way: str, folder: str, check: Check | None, result: dict[str, Any]) -> None:
    try:
        turn = _turn(way, folder)
        if check and turn.found:
            exact = way.startswith("rnngrad_ways") or "float64" in way
            result["error"] = check(turn.found, exact)
    except (RuntimeError, ValueError, LookupError) as error:
        print(f"\n{way} is left out: {error}", file=sys.stderr)
        result |= {"refused": str(error), "seconds": []}
        return
    result |= {"seconds": [*result["seconds"], turn.seconds], "extrapolated": turn.extrapolated}
    if not check:  # what it found are parts of its seconds
        result["parts"] = {name: float(value) for name, value in turn.found.items()}


def _turn(way: str, folder: str) -> Turn:
    python = BENCH_PYTHON if way.startswith(FOREIGN) else Path(sys.executable)
    if not python.exists():
        raise RuntimeError(f"{python.relative_to(ROOT)} is missing")
    command = [python, "-m", "benchmarks.turns", folder, way]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | SETTINGS, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {LIMIT:.0f} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "its process has ended").splitlines()[-1][:200])
    found = dict(np.load(f"{folder}/turn.npz"))
    return Turn(float(found.pop("_seconds")), found, bool(found.pop("_extrapolated")))
