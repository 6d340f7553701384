"""The calls that a user makes of rnngrad."""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import rnngrad
from benchmarks.torch_ways import layer_of
from benchmarks.turns import Found, Problem, Turn, clock, some_steps, timed

NAMES = ("frobenius", "column_sum", "spectral")
SHARE_OF_STEPS = 4  # one in so many is run of the Lyapunov exponents' steps
BUSY = "import os; p = os.getppid()\nwhile os.getppid() == p: pass"  # until its parent has ended


def curves(
    problem: Problem,
    call: str = "jacobian_curves",
    statistics: str = "frobenius,column_sum",
    busy: str = "0",
) -> Turn:
    """All statistics count where none are named; so many processes beside it never wait."""
    module, inputs, state = layer_of(problem)
    options: dict[str, Any] = {"state": "c" if isinstance(module, nn.LSTM) else "h"}
    if statistics:
        options["statistics"] = statistics.split(",")

    def run(steps: int | None = None) -> Found:
        found = getattr(rnngrad, call)(module, inputs[:, :steps], state, **options)
        curves = {name: getattr(found, f"log10_{name}", None) for name in NAMES}
        return {name: curve for name, curve in curves.items() if curve is not None}

    for _ in range(int(busy)):
        subprocess.Popen([sys.executable, "-c", BUSY], stderr=subprocess.DEVNULL)
    return timed(run)


def curves_of_lstm(problem: Problem) -> Turn:
    """An LSTM of the same size runs over the same inputs."""
    H = problem.size[1]
    W_ih, W_hh, b = (np.concatenate([array[:H]] * 4) for array in problem[:3])
    lstm = problem._replace(weight_ih=W_ih, weight_hh=W_hh, bias=b)
    return curves(lstm)._replace(found={})


def triangle(problem: Problem) -> Turn:
    """The norms of the parts of d(sum of h_t)/dW_hh by step, for all t."""
    module, inputs, state = layer_of(problem)

    def run(steps: int | None = None) -> Found:
        some, ones = inputs[:, :steps], torch.ones(1, *problem.size[:2])[:, :steps]
        parts = rnngrad.weight_gradient_parts(module, some, ones, state)["weight_hh_l0"][0]
        return {f"at_{t}": parts[t - 1, :t] for t in some_steps(len(parts))}

    return timed(run)


def lyapunov(problem: Problem) -> Turn:
    """All exponents; each step costs the same, so that some tell the whole."""
    (module, inputs, state), T = layer_of(problem), problem.size[0]
    part = max(1, T // SHARE_OF_STEPS)

    def run(steps: int | None = None) -> Found:
        found = rnngrad.lyapunov_exponents(module, inputs[:, : steps or part], state)
        return {"exponents": found, "steps": np.array(steps or part)}

    return timed(run, part / T)


def compiling(problem: Problem) -> Turn:
    """All loops, while numba's cache folder is empty; importing is not timed."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder  # before numba is imported
        import_module("rnngrad.probe")
        seconds, _ = clock(lambda: import_module("rnngrad.compiled_probe"))
        if not any(Path(folder).rglob("*.nbi")):
            raise RuntimeError("numba keeps nothing in NUMBA_CACHE_DIR: was anything compiled?")
    return Turn(seconds, {})
