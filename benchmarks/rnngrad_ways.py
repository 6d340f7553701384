"""What a user calls of rnngrad."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
from torch import Tensor, nn

import rnngrad
from benchmarks.torch_ways import WARM, layer_of, output_gradients
from benchmarks.turns import Found, Problem, Turn, some_steps, timed

NAMES = ("frobenius", "column_sum", "spectral")
SHARE_OF_STEPS = 4  # one in so many is run of the Lyapunov exponents' steps


def curves(
    problem: Problem,
    call: str = "jacobian_curves",
    statistics: str = "",
    busy: str = "0",
    cell: str = "",
) -> Turn:
    """busy: so many processes beside it never wait. cell: an LSTM of the same size instead."""
    module, inputs, state = _arguments(problem)
    if cell:
        module, state = nn.LSTM(module.input_size, module.hidden_size, batch_first=True), None
    options: dict[str, Any] = {"state": "c" if isinstance(module, nn.LSTM) else "h"}
    if statistics:
        options["statistics"] = statistics.split(",")

    def run(steps: int | None = None) -> Found:
        found = getattr(rnngrad, call)(module, inputs[:, :steps], state, **options)
        curves = {name: getattr(found, f"log10_{name}", None) for name in NAMES}
        return {name: curve for name, curve in curves.items() if curve is not None}

    run(WARM)
    for _ in range(int(busy)):  # they are killed with this process
        subprocess.Popen([sys.executable, "-c", "while True: pass"], stderr=subprocess.DEVNULL)
        sleep(0.3)  # until it is busy
    turn = timed(run)
    return turn._replace(found={}) if cell else turn


def triangle(problem: Problem) -> Turn:
    """The norms of dL_T/dW_hh by step, for all T."""
    module, inputs, state = _arguments(problem)
    gradients = output_gradients(problem)[None]

    def run(steps: int | None = None) -> Found:
        some = inputs[:, :steps], gradients[:, :steps]
        parts = rnngrad.weight_gradient_parts(module, *some, state)["weight_hh_l0"][0]
        return {f"at_{t}": parts[t - 1, :t] for t in some_steps(len(parts))}

    run(WARM)
    return timed(run)


def lyapunov(problem: Problem) -> Turn:
    """All exponents; each step costs the same, so that some tell the whole."""
    module, inputs, state = _arguments(problem)
    steps = max(1, problem.size[0] // SHARE_OF_STEPS)

    def run(steps: int) -> Found:
        found = rnngrad.lyapunov_exponents(module, inputs[:, :steps], state)
        return {"exponents": found, "steps": np.array(steps)}

    run(min(steps, WARM))
    return timed(lambda: run(steps), steps / problem.size[0])


def compiling(problem: Problem) -> Turn:
    """All loops, while numba's cache folder is empty; importing is not timed."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder  # before numba is imported
        from rnngrad.probe import compile_loops

        start = perf_counter()
        compile_loops()
        seconds = perf_counter() - start
        if not any(Path(folder).rglob("*.nbi")):
            raise RuntimeError("numba keeps nothing in NUMBA_CACHE_DIR: was anything compiled?")
    return Turn(seconds, {})


def _arguments(problem: Problem) -> tuple[nn.RNNBase, Tensor, Any]:
    module, inputs, state = layer_of(problem)
    return module, inputs, state if isinstance(module, nn.LSTM) else state[0]
