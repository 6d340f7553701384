"""Jacobian curves of torch's recurrent modules: ||d s_t / d s_0|| for every t, per example."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from torch import Tensor, get_num_threads, nn

from rnngrad.errors import check_memory
from rnngrad.plot import Pictured, draw_curves, long_form
from rnngrad.probe._problem import problem_of
from rnngrad.probe._settings import prepared
from rnngrad.probe._statistics import HIDDEN_PATH, STATISTICS, Statistic, random_start, wanted
from rnngrad.probe._tangents import Plan, curves

if TYPE_CHECKING:
    import pandas as pd

# This is None, typed as an array: callers asked for the curve, so they need no check for None.
ABSENT = cast("np.ndarray", None)


@dataclass(frozen=True, eq=False, repr=False)
class JacobianCurves(Pictured):
    """log10 of the size of J_t = d s_t / d s_0, (batch, time) float64 arrays; step t is column t-1.

    NaN beyond an example's length, -inf where J_t is exactly zero, None where not asked for.

    - state, layer: those of the Jacobian; a step function has the layer None.
    - log10_frobenius: sqrt(sum_ij J_ij^2); the identity's is log10(H) / 2.
    - log10_spectral: largest singular value of J_t.
    - log10_column_sum: mean over j of |sum_i J_ij|, what `autograd.grad(s_t.sum(), s_0)` followed
        by `.abs().mean()` measures. Signs cancel in it; it is not a norm.
    - log10_cell_path: only for an LSTM with state="c". It is the Frobenius norm of diag(prod_t
        f_t): the part of d c_t / d c_0 that never passes through h.
    - log10_hidden_path: likewise, and only where asked for. It is the Frobenius norm of
        J_t - diag(prod_t f_t): the part that passes through h at least once. It is -inf at t = 1.
    - log10_frobenius_error: only for method="sketch": standard error of log10_frobenius in decades.

    Examples:
        >>> import torch, rnngrad
        >>> curves = rnngrad.jacobian_curves(torch.nn.GRU(3, 4), torch.zeros(5, 2, 3))
        >>> curves.to_frame().columns.tolist()
        ['example', 'step', 'statistic', 'log10']
    """

    state: str
    layer: int | None
    log10_frobenius: np.ndarray = ABSENT
    log10_spectral: np.ndarray = ABSENT
    log10_column_sum: np.ndarray = ABSENT
    log10_cell_path: np.ndarray = ABSENT
    log10_hidden_path: np.ndarray = ABSENT
    log10_frobenius_error: np.ndarray = ABSENT

    plot = draw_curves

    def _columns(self) -> dict[str, np.ndarray]:
        """By statistic, the curves that were asked for."""
        names = (*STATISTICS, "cell_path", HIDDEN_PATH)
        found = {name: getattr(self, f"log10_{name}") for name in names}
        return {name: values for name, values in found.items() if values is not None}

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), statistic, log10; only where there is a value."""
        return long_form("statistic", self._columns())


@prepared()
def jacobian_curves(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: Literal["h", "c", "full"] = "h",
    layer: int = -1,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    mask: np.ndarray | Tensor | None = None,
    method: Literal["exact", "sketch"] = "exact",
    statistics: Statistic | Sequence[Statistic] = STATISTICS,
    spectral_steps: Sequence[int] | np.ndarray | None = None,
    directions: int = 8,
    seed: int = 0,
) -> JacobianCurves:
    """How strongly the state at every step t depends on the initial state, per example.

    Args:
        module: nn.RNN, nn.LSTM or nn.GRU of any dtype and depth, left unchanged. Not bidirectional,
            no proj_size, no active dropout.
        inputs: (batch, time, features), (time, batch, features) or (time, features), as in forward.
        initial_state: as in module.forward; None means zeros.
        state: "h", "c" (LSTM) or "full" = (h, c).
        layer: whose state, in numerator and denominator.
        lengths: real steps per example, (batch,) integers. Curves are NaN beyond, inputs anything.
        mask: (batch, time) bool, True where steps count (within lengths). Elsewhere the state is
            kept, inputs anything.
        method: "exact", or "sketch": estimated Frobenius norms alone.
        statistics: any of "frobenius", "column_sum", "spectral", "hidden_path" (for state="c").
        spectral_steps: steps (from 1) with the costly spectral norm; None means all.
        directions, seed: number (4 to 10,000) and seed of sketch directions.

    Float64 norms are exact to 1e-9 of themselves after 1,403 steps. Column sums are exact to 1e-9
    while above 1e-2 of the norm, to 1e-6 while above 1e-6 of it. -inf means exactly zero, given a
    step's factors, which lack digits at tanh of 370 or where a GRU's h and n saturate alike.

    Examples share steps while states and inputs are equal. Directions on which J_t no longer
    depends are dropped. The bits do not depend on torch.get_num_threads().

    Memory: some (H, H) matrices per thread, up to 128 more per group that begins alike.
    Source: Pascanu, Mikolov and Bengio (2013), equation 5, as forward tangents.

    Raises:
        InputError (a ValueError): wrong shapes, names or lengths, NaN or inf, too little memory.
        TypeError: another kind of module, integer inputs, a PackedSequence.

    Examples:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> rnngrad.jacobian_curves(lstm, x, state="c").log10_frobenius.shape
        (2, 5)
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask)
    rows = problem.state_rows(state)
    asked = statistics, method, spectral_steps, directions, problem.counts.real.shape[1]
    names, chosen, count = wanted(*asked, paths=state == "c")
    size = problem.hidden * len(problem.initial)
    weights = sum(cell.weight_hh.numel() for cell in problem.cells)
    # measured: each thread holds ten matrices of a Jacobian's size, weights are there three times
    at_once = 10 * min(problem.batch, get_num_threads()) * (count or rows.stop - rows.start)
    needed = size * (at_once + problem.batch * count) + 3 * weights
    cure = "use fewer directions" if count else 'use method="sketch"'
    check_memory(8 * needed, "Jacobians and weights need", f"{cure}, or fewer examples")
    if count:
        names = ("frobenius", "frobenius_error")
        start = random_start(size, rows, problem.batch, count, seed)
    else:  # the hidden path is zero at the start
        start = np.eye(size + problem.hidden * (HIDDEN_PATH in names), size)[:, rows]
    names = {*names, "cell_path"} if state == "c" else {*names}
    plan = Plan(problem.layer_index(layer), rows, names, start, problem.counts.counted_at(chosen))
    norm = 0.5 * math.log10(rows.stop - rows.start)
    at_start = {"frobenius": norm, "cell_path": norm, HIDDEN_PATH: -math.inf}
    found = {
        name: problem.counts.over_time(values, at_start.get(name, 0.0))
        for name, values in curves(problem, plan).items()
    }
    if "spectral" in found:
        found["spectral"][:, ~chosen] = np.nan
    return JacobianCurves(state, plan.layer, **{f"log10_{n}": v for n, v in found.items()})
