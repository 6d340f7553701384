"""Column sums whose signs cancel too far for any float32 tangents, by cotangents to the start.

The sum 1^T J_t is the cotangent 1 of s_t pushed back to s_0, where nothing is left to be multiplied
with: exact to float64. It takes the trajectory of the examples concerned twice more: forward,
keeping a state every few steps, and backward from one of these to the next.
"""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from rnngrad.probe.cells import STABLE, Cell, Cotangent, OneStep
from rnngrad.probe.problem import Problem
from rnngrad.probe.scaled import LOG10_2, ZERO, exponent_of, power_of_two
from rnngrad.probe.trajectory import BLOCK, LayerRun, run_block


def log10_sums_from_start(
    problem: Problem, layer: int, rows: slice, examples: Tensor, steps: Tensor
) -> Tensor:
    """log10 mean_j |sum_i (J_t)_ij| of n sums; not finite where the cotangent leaves float64.

    Args:
        layer: whose states J_t is of.
        rows: of [h; c], which i and j run over.
        examples: (n,) positions in the problem's batch.
        steps: (n,) the steps t, from 0.
    """
    order = torch.argsort(steps, descending=True)
    who, slots = torch.unique(examples[order], return_inverse=True)
    ends, cell = steps[order].tolist(), problem.cells[layer]
    v = problem.h.new_zeros(len(order), problem.hidden * len(problem.states))
    exponent = torch.zeros(len(order), dtype=torch.int64, device=v.device)
    begun = 0
    for start, run in _backward(problem, who, layer, ends[0] + 1):
        factors = run.cell.one_step(run.path, slice(None), STABLE)
        for t in reversed(range(len(run.x))):
            while begun < len(ends) and ends[begun] == start + t:
                v[begun, rows] = 1
                begun += 1
            push_back(cell, factors.at(t), slots[:begun], v[:begun])
        largest = exponent_of(v.abs().amax(dim=1))
        largest = torch.where(largest == ZERO, 0, largest)
        v *= power_of_two(-largest).unsqueeze(1)
        exponent += largest
    sums = v[:, rows].abs().mean(dim=1).log10() + exponent.double() * LOG10_2
    found = torch.empty_like(sums)
    found[order] = sums
    return found


def push_back(cell: Cell, one: OneStep, slots: Tensor, v: Tensor) -> None:
    """Cotangents v (sums, units) through one step, in place: each sum as an example with one loss.

    slots: (sums,) the example of `one` that each belongs to.
    """
    H = cell.weight_hh.shape[1]
    h, c = v[:, None, :H], v[:, None, H:]
    back = cell.cotangents(one.each(lambda x: x[slots]), Cotangent(h, c))[2]
    h[:] = back.h
    if back.c is not None:
        c[:] = back.c


def _backward(
    problem: Problem, examples: Tensor, layer: int, stop: int
) -> Iterator[tuple[int, LayerRun]]:
    """Steps 0 .. stop - 1 of some examples in blocks, the last block first, and where it begins."""
    h = problem.h[: layer + 1, examples]
    c = None if problem.c is None else problem.c[: layer + 1, examples]

    def run(start: int, h: Tensor, c: Tensor | None) -> LayerRun:
        steps = slice(start, min(start + BLOCK, stop))
        return deque(run_block(problem, examples, steps, h, c), maxlen=1).pop()

    kept = []
    for start in range(0, stop, BLOCK):
        kept.append((start, h.clone(), None if c is None else c.clone()))
        run(start, h, c)
    for start, h, c in reversed(kept):
        yield start, run(start, h, c)
