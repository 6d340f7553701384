"""Why is this gradient zero?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.probe.arithmetic import exact_arithmetic, probing
from rnngrad.probe.cells import AUTOGRAD, OneStep
from rnngrad.probe.curves import jacobian_curves
from rnngrad.probe.diagnosis_table import MEANINGS, first_step, short, table
from rnngrad.probe.naive import naive_column_sums
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.scaled import ZERO
from rnngrad.probe.tangents import identity, propagate
from rnngrad.probe.trajectory import Chunk, LayerRun, chunks, in_dtype, one_steps, run_layer

if TYPE_CHECKING:
    import pandas as pd

DECADES = 7  # what counts as decayed or exploding
# Where signs cancel to this many decades, a zero column sum is no sign of underflow.
CANCELLATION = 5


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What became of d s_t / d s_0, and what naive autograd makes of it. Arrays are (batch, time).

    verdict: one of "structural", "saturated", "underflow", "decayed", "exploding", "alive"
        (in this precedence, see `diagnose`); "" beyond an example's length.
    log10_frobenius: the true magnitude, as in `rnngrad.jacobian_curves`; log10_column_sum likewise.
    naive: mean_j |sum_i d s_t[i] / d s_0[j]| as autograd returns it in `dtype` with gradual
        underflow (torch on CPU); naive_flushed: the same with flush-to-zero (TensorFlow).
    decades_per_step: (batch,) mean change of log10_frobenius per step up to the last finite value;
        negative is decay.
    horizon: (batch,) first step at which the Frobenius norm is 1/10 of the identity's or less;
        NaN if never.
    """

    state: str
    dtype: torch.dtype
    verdict: np.ndarray
    log10_frobenius: np.ndarray
    log10_column_sum: np.ndarray
    naive: np.ndarray
    naive_flushed: np.ndarray
    decades_per_step: np.ndarray
    horizon: np.ndarray
    title: str

    def first_steps(self, verdict: str) -> np.ndarray:
        """(batch,) the first step with this verdict; NaN where there is none.

        Raises:
            InputError: there is no such verdict.
        """
        if verdict not in MEANINGS:
            raise InputError(f"verdict={verdict!r}: use one of {', '.join(MEANINGS)}")
        return first_step(self.verdict == verdict)

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), verdict, and the arrays' values there."""
        import pandas as pd

        b, t = np.nonzero(self.verdict != "")
        names = ("verdict", "log10_frobenius", "log10_column_sum", "naive", "naive_flushed")
        values = {name: getattr(self, name)[b, t] for name in names}
        return pd.DataFrame({"example": b, "step": t + 1} | values)

    def __str__(self) -> str:
        return table(self)


@probing
def diagnose(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: str = "h",
    dtype: torch.dtype = torch.float32,
    layer: int = -1,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
) -> Diagnosis:
    """Say of every step whether the gradient of the state with respect to the initial state is
    really zero, lost by the arithmetic, small, large or fine. Print the result.

    In this precedence, per example and step:

    structural: d s_t / d s_0 is exactly zero (a dead relu, a gate that is 0 in float64).
    saturated: it is not, but the derivative factors as autograd writes them (1 - tanh^2, s (1 - s))
        are so often exactly zero in `dtype` that their product is.
    underflow: autograd's column sum in `dtype` has passed the smallest normal number: zero under
        flush-to-zero (TensorFlow), a false plateau under gradual underflow (torch on CPU). Where
        it is zero because signs cancel, the norm decides: it is below that number as well.
    decayed: the Frobenius norm is below 1e-7 of its starting value.
    exploding: it is above 1e7 of it, or autograd's result is infinite or NaN.
    alive: none of these.

    Args:
        module, inputs, initial_state, state, layer, lengths: as in `rnngrad.jacobian_curves`.
        dtype: the arithmetic to judge, torch.float32 or torch.float64.

    Memory: as `jacobian_curves`, and (time, H) cotangents for a few examples.
    Cost: `jacobian_curves` and two naive sweeps of time^2 / 2 vector products each.

    Raises:
        InputError: another dtype, and whatever `jacobian_curves` refuses.
    """
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype={dtype}: use torch.float32 or torch.float64")
    curves = jacobian_curves(
        module, inputs, initial_state, state=state, layer=layer, lengths=lengths,
        statistics=("frobenius", "column_sum"),
    )  # fmt: skip
    problem = problem_of(module, inputs, initial_state, lengths)
    with exact_arithmetic(problem.inputs.device):
        naive = _naive(problem, problem.layer_index(layer), state, dtype)
    rows = problem.state_rows(state)
    start = 0.5 * np.log10(rows.stop - rows.start)
    norm, sums = curves.log10_frobenius, curves.log10_column_sum
    lost = norm < math.log10(torch.finfo(dtype).smallest_normal)
    return Diagnosis(
        state=state,
        dtype=dtype,
        verdict=_verdicts(norm - start, sums, lost, naive),
        log10_frobenius=norm,
        log10_column_sum=sums,
        naive=naive.gradual,
        naive_flushed=naive.flushed,
        decades_per_step=_rates(norm - start),
        horizon=first_step(norm <= start - 1),
        title=_title(problem, state, dtype),
    )


@dataclass(frozen=True)
class _Naive:
    """(batch, time) each: autograd's column sums, and whether its product of factors is zero."""

    gradual: np.ndarray
    flushed: np.ndarray
    saturated: np.ndarray


def _naive(problem: Problem, layer: int, state: str, dtype: torch.dtype) -> _Naive:
    shape = (problem.batch, problem.steps)
    out = _Naive(np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=bool))
    held = 8 * problem.steps * problem.hidden * 12
    for chunk in chunks(problem, 2 if layer else 1, held):
        run = run_layer(problem, chunk, layer, dtype)
        beyond = torch.arange(chunk.steps).unsqueeze(1) >= chunk.lengths
        for values, flush in ((out.gradual, False), (out.flushed, True)):
            sums = naive_column_sums(run, state, flush=flush).cpu().masked_fill(beyond, torch.nan)
            values[chunk.rows.numpy(), : chunk.steps] = sums.T.numpy()
        zero = _saturated(problem, chunk, layer, run, state) & ~beyond
        out.saturated[chunk.rows.numpy(), : chunk.steps] = zero.T.numpy()
    return out


def _saturated(problem: Problem, chunk: Chunk, layer: int, run: LayerRun, state: str) -> Tensor:
    """(time, b): is the product of the dtype's own factors zero even without limits of range?"""
    exact = run_layer(problem, chunk, layer)
    if not _rounds_to_zero(run, exact):
        return torch.zeros(chunk.steps, len(chunk.rows), dtype=torch.bool)
    cell = in_dtype(run.cell, torch.float64)
    # an overflow of the forward pass is no saturation; its factors only have to be harmless
    finite = torch.isfinite(run.path.a).all(dim=-1).cummin(dim=0)[0].cpu()
    factors = one_steps(run.cell, run.path, AUTOGRAD)
    steps = (one.each(lambda v: v.double().nan_to_num(1.0, 1.0, 1.0)) for one in factors)
    rows = problem.state_rows(state)
    start = identity(problem.hidden * len(problem.states), rows)
    running = [len(chunk.rows)] * chunk.steps
    zero = [
        ~(now.norms[:, rows] > 0).any(dim=1) | (now.exponent <= ZERO // 2)
        for now in propagate(cell, steps, start, running, torch.float64)
    ]
    return torch.stack(zero).cpu() & finite


def _rounds_to_zero(run: LayerRun, exact: LayerRun) -> bool:
    """Is any factor 0 in the dtype that is not 0 in float64?"""
    pairs = zip(
        one_steps(run.cell, run.path, AUTOGRAD), one_steps(exact.cell, exact.path), strict=True
    )
    return any(_zero_only_in(one, true) for one, true in pairs)


def _zero_only_in(one: OneStep, true: OneStep) -> bool:
    return any(
        bool(((a == 0) & (b != 0)).any())
        for a, b in zip(one, true, strict=True)
        if a is not None and b is not None
    )


def _verdicts(change: np.ndarray, sums: np.ndarray, lost: np.ndarray, naive: _Naive) -> np.ndarray:
    """`change`, `sums`: decades of the norm and of the column sum since the start, where the
    latter is 1; `lost`: is the norm itself below the dtype's normal numbers?"""
    with np.errstate(invalid="ignore"):
        cases = {
            "": np.isnan(change),
            "structural": change == -np.inf,
            "saturated": naive.saturated,
            "underflow": (naive.flushed == 0) & (lost | (sums > change - CANCELLATION)),
            "decayed": change < -DECADES,
            "exploding": (change > DECADES) | ~np.isfinite(naive.gradual),
        }
    return np.select(list(cases.values()), list(cases), default="alive")


def _rates(change: np.ndarray) -> np.ndarray:
    """(batch,) mean decades per step up to the last finite value."""
    rates = np.full(len(change), np.nan)
    for b, row in enumerate(change):
        finite = np.flatnonzero(np.isfinite(row))
        if len(finite):
            rates[b] = row[finite[-1]] / (finite[-1] + 1)
    return rates


def _title(problem: Problem, state: str, dtype: torch.dtype) -> str:
    name = {"h": "d h_t / d h_0", "c": "d c_t / d c_0", "full": "d s_t / d s_0"}[state]
    return (
        f"{name} of {type(problem.cells[0]).__name__}({problem.hidden}), "
        f"{problem.batch} example(s), {problem.steps} steps, judged for {short(dtype)}"
    )
