"""The trajectory by NumPy and by torch, and by torch's own modules."""

from functools import partial
from typing import Any

import pytest
import torch
from probe_problems import CELLS, Case, make
from torch import Tensor

from rnngrad.probe import forward_pass
from rnngrad.probe.cells import LSTM
from rnngrad.probe.forward_pass import Trajectory
from rnngrad.probe.problem import problem_of
from rnngrad.probe.trajectory import in_dtype

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6}


def both_ways(
    cell: Any, x: Tensor, h: Tensor, c: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[Trajectory, Trajectory]:
    states = h, c if isinstance(cell, LSTM) else None
    by_numpy = cell.run(x, *states)
    with monkeypatch.context() as patch:
        patch.setattr("rnngrad.probe.cells.steps_in_numpy", lambda *args: False)
        return by_numpy, cell.run(x, *states)


def agree(a: Trajectory, b: Trajectory, tolerance: float) -> None:
    for name, found, expected in zip(Trajectory._fields, a, b, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            torch.testing.assert_close(
                found,
                expected,
                rtol=tolerance,
                atol=tolerance,
                equal_nan=True,
                msg=partial("{}: {}".format, name),
            )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("batch", "steps", "hidden"), [(1, 70, 5), (0, 3, 4), (7, 9, 33), (2, 1, 1)]
)
@pytest.mark.parametrize("cell", CELLS)
def test_both_ways_give_the_same(
    cell: str, batch: int, steps: int, hidden: int, dtype: torch.dtype, monkeypatch: Any
):
    """Inputs with the batch in front, states that are every other row and column of others."""
    instance = make(Case(cell, steps=steps, hidden=hidden, batch=2 * max(batch, 1)))
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    of_cell = in_dtype(problem.cells[0], dtype)
    x = problem.inputs[:batch].to(dtype).contiguous().transpose(0, 1)
    h, c = (
        s[0].repeat_interleave(2, 1).to(dtype)[: 2 * batch : 2, ::2]
        for s in (instance.h, instance.c)
    )
    assert batch < 2 or hidden < 2 or not (x.is_contiguous() or h.is_contiguous())
    found, expected = both_ways(of_cell, x, h, c, monkeypatch)
    assert found.a.dtype == found.h.dtype == dtype
    agree(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("cell", CELLS)
def test_blocks_of_steps_join(cell: str, monkeypatch: pytest.MonkeyPatch):
    instance = make(Case(cell, steps=20))
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    of_cell, x, h, c = problem.cells[0], instance.time_first, instance.h[0], instance.c[0]
    whole = both_ways(of_cell, x, h, c, monkeypatch)[0]
    for size in (1, 700):
        monkeypatch.setattr(forward_pass, "BYTES", size)
        agree(both_ways(of_cell, x, h, c, monkeypatch)[0], whole, 1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_h_is_the_modules_output(cell: str):
    instance = make(Case(cell))
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    c = None if problem.c is None else problem.c[0]
    path = problem.cells[0].run(instance.time_first, problem.h[0], c)
    expected = instance.module(instance.inputs, instance.initial_state)[0].transpose(0, 1)
    torch.testing.assert_close(path.h[1:], expected.detach(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("part", [1e-36, 1e-10, 0.1])
@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_and_overflow(cell: str, part: float, dtype: torch.dtype, monkeypatch: Any):
    """exp(-a) overflows where a gate is shut; inf and NaN are the caller's to find.

    part: of the largest number, the size of the inputs.
    """
    instance = make(Case(cell, steps=6))
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    x = (part * torch.finfo(dtype).max * instance.time_first).to(dtype)
    h, c = (s[0].to(dtype) for s in (instance.h, instance.c))
    found, expected = both_ways(in_dtype(problem.cells[0], dtype), x, h, c, monkeypatch)
    agree(found, expected, 10 * TOLERANCE[dtype])


def test_other_dtypes_go_through_torch():
    instance = make(Case("lstm"))
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    x, h, c = (v.bfloat16() for v in (instance.time_first, instance.h[0], instance.c[0]))
    path = in_dtype(problem.cells[0], torch.bfloat16).run(x, h, c)
    exact = problem.cells[0].run(instance.time_first, instance.h[0], instance.c[0])
    assert path.a.dtype == torch.bfloat16
    torch.testing.assert_close(path.h.double(), exact.h, rtol=0, atol=0.05)
