"""The paths by which an LSTM's c_0 reaches c_t: through forget gates alone, or through h as well.

    d c_t / d c_0 = diag(f_t ... f_1)  +  everything that at some step went through h
                    (the cell path)       (the hidden paths)

A path enters h at a step by the factor o tanh'(c). How many such factors the paths have that make
up the gradient is the exponent with which it answers to that factor: let z multiply o tanh'(c) at
every step, then d ln ||d c_t/d c_0|| / d ln z at z = 1 is their number, each path counting by its
share of the norm. On the cell path it is 0.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.probe.arithmetic import exact_arithmetic
from rnngrad.probe.cells import STABLE, OneStep
from rnngrad.probe.problem import problem_of
from rnngrad.probe.sketch import random_directions
from rnngrad.probe.statistics import record
from rnngrad.probe.tangents import identity, propagate
from rnngrad.probe.trajectory import Chunk, LayerRun, one_steps, run_layer
from rnngrad.study.evidence.linearised import rate_at_settled_state, rate_at_zero_state
from rnngrad.study.evidence.stretches import (
    Stretch,
    change_per_step,
    most_of_both,
    settled_stretches,
)
from rnngrad.study.probing import ProbeInputs

PATHS = ("frobenius", "cell_path", "hidden_path")
COLUMNS = [
    "input",
    "steps",
    "total",
    "cell_path",
    "hidden_path",
    "below_largest_path",
    "gate_std",
    "tanh_factors",
    "log10_tanh_factor",
    "zero_state_rate",
    "settled_rate",
]
NUDGE = 1e-3  # of ln z, to either side
DIRECTIONS = 8
WINDOW = 200  # steps of either input on which factors are counted


def path_rates(
    module: nn.RNNBase,
    inputs: ProbeInputs,
    state: Tensor | tuple[Tensor, Tensor],
    curves: Mapping[str, NDArray[np.float64]],
) -> pd.DataFrame:
    """Rates of the paths, and what the gates do meanwhile.

    Args:
        module: an LSTM of one layer.
        inputs, state: what it reads, and (h_0, c_0), (1, B, H) each.
        curves: log10 of the Frobenius norms of d c_t/d c_0 (``frobenius``) and of its parts
            ``cell_path`` and ``hidden_path``, (B, T).

    Returns:
        A row per input (padding | words) that occurs. Columns:
        steps: how many count, over all comments; on padding the first 100 steps of a comment do
            not, except for below_largest_path.
        total, cell_path, hidden_path: decades per step.
        below_largest_path: decades by which the total lies below the larger of the two parts, the
            most at any step; negative where it is always above.
        gate_std: standard deviation of a forget gate over the steps of a comment, the median over
            units and comments.
        tanh_factors: o tanh'(c) per step on the paths that make up the gradient, over 200 steps of
            one comment on either side of the change of inputs, see :func:`tanh_factors`; NaN where
            that comment lacks this input.
        log10_tanh_factor: mean of log10 of o tanh'(c).
        zero_state_rate, settled_rate: decades per step that the one-step Jacobian predicts at the
            zero state, and at that in which padding comes to rest; NaN where it does not, and for
            words.
    """
    problem = problem_of(module, inputs.inputs, state)
    with exact_arithmetic(problem.inputs.device):
        run = run_layer(problem, Chunk(torch.arange(problem.batch), problem.lengths), 0)
        steps = inputs.steps()
        factors = _tanh_factors_per_step(run, steps)
        rows = []
        for name, where in settled_stretches(steps).items():
            if where:
                row = {"input": name, "steps": sum(map(len, where))}
                row |= _decades(curves, where) | _below_largest_path(curves, steps[name])
                row |= _gates(run, where)
                row["tanh_factors"] = factors[name]
                rows.append(row | _predicted(run, where if name == "padding" else []))
    return pd.DataFrame(rows, columns=COLUMNS)


def _decades(curves: Mapping[str, NDArray[np.float64]], where: list[Stretch]) -> dict[str, float]:
    # after the first step there is no hidden path yet
    begun = [replace(stretch, start=max(stretch.start, 1)) for stretch in where]
    total, cell_path, hidden_path = (change_per_step(curves[name], begun) for name in PATHS)
    return {"total": total, "cell_path": cell_path, "hidden_path": hidden_path}


def _below_largest_path(
    curves: Mapping[str, NDArray[np.float64]], mask: NDArray[np.bool_]
) -> dict[str, float]:
    total, cell_path, hidden_path = (curves[name][mask] for name in PATHS)
    return {"below_largest_path": float(np.max(np.maximum(cell_path, hidden_path) - total))}


def _gates(run: LayerRun, where: list[Stretch]) -> dict[str, float]:
    assert run.path.c is not None
    _, f, _, o = run.path.a.chunk(4, dim=-1)
    slope = STABLE.tanh(run.path.c[1:]).derivative
    log10_through = [
        (torch.sigmoid(o[s.steps, s.example]) * slope[s.steps, s.example]).log10().mean(dim=1)
        for s in where
    ]
    spread = [torch.sigmoid(f[s.steps, s.example]).std(dim=0, correction=0) for s in where]
    return {
        "gate_std": float(torch.stack(spread).median()),
        "log10_tanh_factor": float(torch.cat(log10_through).mean()),
    }


def _predicted(run: LayerRun, padding: list[Stretch]) -> dict[str, float]:
    if not padding:
        return {"zero_state_rate": np.nan, "settled_rate": np.nan}
    return {
        "zero_state_rate": rate_at_zero_state(run.cell),
        "settled_rate": rate_at_settled_state(run.cell, run.path, padding),
    }


def _tanh_factors_per_step(run: LayerRun, steps: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """By kind of input, on one comment around the step at which one gives way to the other."""
    example = most_of_both(steps)
    changes = np.flatnonzero(np.diff(steps["words"][example]))
    change = int(changes[0]) + 1 if len(changes) else 0
    window = slice(max(change - WINDOW, 0), min(change + WINDOW, len(run.x)))
    factors = tanh_factors(_part(run, example, window))[None]
    own = {name: mask[example, window][None] for name, mask in steps.items()}
    return {name: change_per_step(factors, w) for name, w in settled_stretches(own).items()}


def _part(run: LayerRun, example: int, steps: slice) -> LayerRun:
    path, one = run.path, slice(example, example + 1)
    assert path.c is not None
    states = slice(steps.start, steps.stop + 1)
    own = path._replace(h=path.h[states, one], c=path.c[states, one], a=path.a[steps, one])
    return LayerRun(run.cell, run.x[steps, one], own)


def tanh_factors(run: LayerRun) -> NDArray[np.float64]:
    """How many factors o tanh'(c) the paths from c_0 to c_t have, by their share: (T,) float64.

    Of the norm of d c_t/d c_0 times 8 random directions, by a central difference over ln z.

    Args:
        run: of one example.
    """
    T, _, H = run.path.h[1:].shape
    cells = slice(H, 2 * H)
    start = random_directions(identity(2 * H, cells), 1, DIRECTIONS, seed=0)[0]
    found = {"frobenius": run.path.h.new_full((T, 2), torch.nan)}
    steps = _nudged(one_steps(run.cell, run.path))
    for t, now in enumerate(propagate(run.cell, steps, start, [2] * T, torch.float64)):
        record(found, slice(t, t + 1), now, cells, np.zeros(1, dtype=bool))
    more, less = (found["frobenius"] * math.log(10)).T.numpy()
    return (more - less) / (2 * NUDGE)


def _nudged(steps: Iterator[OneStep]) -> Iterator[OneStep]:
    """Every step twice: with o tanh'(c) a little larger, and a little smaller."""
    z = torch.tensor([[NUDGE], [-NUDGE]], dtype=torch.float64).exp()
    for one in steps:
        twice = one.each(lambda v: v.expand(2, *v.shape[1:]))
        assert twice.through is not None
        yield twice._replace(through=twice.through * z)
