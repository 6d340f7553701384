"""Jacobian curves of torch's recurrent modules: ||d s_t / d s_0|| for every t, per example."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.probe.arithmetic import exact_arithmetic
from rnngrad.probe.cells import Cell
from rnngrad.probe.paths import CellPath, log10_cell_path, log10_hidden_path
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.sharing import Schedule, Segment, schedules
from rnngrad.probe.sketch import check_sketch, random_directions
from rnngrad.probe.statistics import (
    HIDDEN_PATH,
    STATISTICS,
    record,
    spectral_mask,
    wanted_statistics,
)
from rnngrad.probe.tangents import FLOAT32_FROM, Propagation, identity
from rnngrad.probe.trajectory import LayerRun, one_steps, run_segments

if TYPE_CHECKING:
    import pandas as pd

# A column sum below this part of what random signs give is taken in float64: float32 is then up to
# 5e-5 of it off (measured over 1,403 steps, from 96 units on), and the limit is 1e-4.
CANCELLATION = 8e-3

# None where not asked for; as in typeshed, Any spares those who asked a check for None
MaybeNone = Any


@dataclass(frozen=True)
class JacobianCurves:
    """log10 of the size of J_t = d s_t / d s_0, (batch, time) float64 arrays; step t is column t-1.

    NaN beyond an example's length, -inf where J_t is exactly zero, None where not asked for.

    log10_frobenius: sqrt(sum_ij J_ij^2); the identity's is log10(H) / 2.
    log10_spectral: largest singular value of J_t.
    log10_column_sum: mean over j of |sum_i J_ij|, what `autograd.grad(s_t.sum(), s_0)` followed by
        `.abs().mean()` measures. Signs cancel in it; it is not a norm.
    log10_cell_path: LSTM with state="c" only: Frobenius norm of diag(prod_t f_t), the part of
        d c_t / d c_0 that never passes through h.
    log10_hidden_path: where asked for, LSTM with state="c" only: Frobenius norm of
        J_t - diag(prod_t f_t), the part that passes through h at least once; -inf at t = 1.
    log10_frobenius_error: method="sketch" only: standard error of log10_frobenius, in decades.
    """

    state: str
    layer: int | None
    log10_frobenius: np.ndarray | MaybeNone = None
    log10_spectral: np.ndarray | MaybeNone = None
    log10_column_sum: np.ndarray | MaybeNone = None
    log10_cell_path: np.ndarray | MaybeNone = None
    log10_hidden_path: np.ndarray | MaybeNone = None
    log10_frobenius_error: np.ndarray | MaybeNone = None

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), statistic, log10; only where there is a value."""
        import pandas as pd

        frames = []
        for name in (*STATISTICS, "cell_path", HIDDEN_PATH):
            values = getattr(self, f"log10_{name}")
            if values is not None:
                b, t = np.nonzero(~np.isnan(values))
                columns = {"example": b, "step": t + 1, "statistic": name, "log10": values[b, t]}
                frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)


def jacobian_curves(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: str = "h",
    layer: int = -1,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    method: str = "exact",
    statistics: Sequence[str] = STATISTICS,
    spectral_steps: Sequence[int] | np.ndarray | None = None,
    directions: int = 8,
    seed: int = 0,
) -> JacobianCurves:
    """How strongly the state at every step t depends on the initial state, per example.

    Args:
        module: nn.RNN (tanh or relu), nn.LSTM or nn.GRU, of any dtype, left as it is.
        inputs: as module.forward takes them: (batch, time, features), (time, batch, features) or
            (time, features).
        initial_state: as module.forward takes it; None means zeros.
        state: "h", "c" (LSTM) or "full" = (h, c): numerator and denominator of the Jacobian.
        layer: whose state, with respect to the same layer's initial state.
        lengths: the number of real steps per example, (batch,) integers; the curves are NaN beyond.
        method: "exact", or "sketch": an estimate of the Frobenius norm from a few random
            directions, with a standard error per step (see `rnngrad.probe.sketch`); the other
            statistics stay None.
        statistics: which of "frobenius", "column_sum", "spectral"; the others are not computed.
        spectral_steps: steps (from 1) at which the spectral norm is taken, NaN elsewhere; None
            means all. It costs far more than the other statistics.
        directions, seed: of the sketch: how many random directions per example (at least 4), and
            which.

    Gates and states are computed in float64. The tangents are float32 for float32 modules of 96
    units and more (1e-5 relative after 1,403 steps; 1e-4 for the column sum) and float64 otherwise.
    An example whose column sum cancels too far for that is taken again in float64, which costs it
    about three times the time; without "column_sum" it never is.
    Scales are kept apart from mantissas, so nothing underflows or overflows; a value is -inf only
    if J_t is zero in exact arithmetic with the float64 values of the gates: where float64 ends, a
    sigmoid counts as 0 below -745 and the derivative of tanh as 0 beyond 372 on either side (the
    last digits go from -708 and 354 on).

    Memory: the float64 trajectory of a few examples (256 MiB) and a few (H, H) matrices for
    each of them; no (batch, time, H, H) array.

    Source: forward tangents of all initial directions at once, s_t' = M_t s_(t-1)', with M_t as in
    `rnngrad.probe.cells`; Pascanu, Mikolov and Bengio (2013), equation 5, is the product.

    Raises:
        InputError (a ValueError): wrong shapes, names, lengths, NaN or inf in inputs or weights.
        TypeError: another kind of module, integer inputs, a PackedSequence.
    """
    problem = problem_of(module, inputs, initial_state, lengths)
    rows = problem.state_rows(state)
    names = wanted_statistics(statistics, paths=state == "c")
    if method not in ("exact", "sketch"):
        raise InputError(f'method={method!r}: use "exact" or "sketch"')
    start = identity(problem.hidden * len(problem.states), rows)
    if method == "sketch":
        names = check_sketch(names, directions)
        start = random_directions(start, problem.batch, directions, seed)
    plan = _Plan(
        problem=problem,
        layer=problem.layer_index(layer),
        rows=rows,
        names=(*names, "cell_path") if state == "c" else names,
        start=start,
        spectral_at=spectral_mask(spectral_steps, problem.steps),
    )
    with exact_arithmetic(problem.inputs.device):
        arrays = _curves(plan)
    return JacobianCurves(state, plan.layer, **{f"log10_{n}": v for n, v in arrays.items()})


@dataclass(frozen=True)
class _Plan:
    """What to compute."""

    problem: Problem
    layer: int
    rows: slice  # of the Jacobian that are read
    names: tuple[str, ...]
    start: Tensor  # (rows, k) or (batch, rows, k)
    spectral_at: np.ndarray  # (time,) bool

    @property
    def dtype(self) -> torch.dtype:
        """Of the tangents."""
        if self.problem.dtype == torch.float64 or self.problem.hidden < FLOAT32_FROM:
            return torch.float64
        return torch.float32

    @property
    def cell(self) -> Cell:
        return self.problem.cells[self.layer]

    @property
    def shares(self) -> bool:
        """May one example run for another? Not where each has directions of its own."""
        return self.start.dim() == 2

    @property
    def watches_signs(self) -> bool:
        """Must column sums be watched for cancellation?"""
        return self.dtype == torch.float32 and "column_sum" in self.names

    @property
    def bytes_per_example(self) -> int:
        """Two buffers of tangents and one of matrices."""
        rows, directions = self.start.shape[-2:]
        return self.dtype.itemsize * rows * (2 * directions + self.problem.hidden)


def _curves(plan: _Plan) -> dict[str, np.ndarray]:
    shape = (plan.problem.batch, plan.problem.steps)
    out = {name: np.full(shape, np.nan) for name in plan.names}
    for schedule in schedules(plan.problem, plan.bytes_per_example, plan.shares):
        found = _in_dtype(plan, schedule, plan.dtype)
        _write(out, schedule, found)
        again = _cancelled(found, plan)
        if again.any():
            rest = Schedule.of(plan.problem, schedule.rows[again], plan.shares)
            _write(out, rest, _in_dtype(plan, rest, torch.float64))
    return out


def _write(out: dict[str, np.ndarray], schedule: Schedule, found: dict[str, Tensor]) -> None:
    for name, values in out.items():
        values[schedule.rows.numpy(), : schedule.steps] = found[name].T.cpu().numpy()


def _cancelled(found: dict[str, Tensor], plan: _Plan) -> Tensor:
    """(b,): do signs cancel so far in a column sum, at any step, that float32 is not enough?

    With random signs mean_j |sum_i J_ij| is about ||J||_F / sqrt(columns), and float32 leaves an
    error of 1e-7 to 4e-7 of that.
    """
    if not plan.watches_signs:
        return torch.zeros(1, dtype=torch.bool)
    columns = plan.start.shape[-1]
    relative = found["column_sum"] - found["frobenius"] + 0.5 * np.log10(columns)
    return (relative < np.log10(CANCELLATION)).any(dim=0).cpu()


def _in_dtype(plan: _Plan, schedule: Schedule, dtype: torch.dtype) -> dict[str, Tensor]:
    """(time, b) per statistic, with tangents in `dtype`."""
    names = {*plan.names, "frobenius"} if plan.watches_signs else plan.names
    run = _Run(plan, names, schedule, dtype)
    found = run.empty(schedule.steps, len(schedule.rows))
    for segment, blocks in run_segments(plan.problem, schedule, plan.layer):
        now = run.segment(segment, blocks)
        for name, values in found.items():
            values[segment.start : segment.stop, segment.served] = now[name][:, segment.served_by]
    return found


class _Run:
    """The examples of one schedule, each in its slot while it runs."""

    def __init__(
        self, plan: _Plan, names: Collection[str], schedule: Schedule, dtype: torch.dtype
    ) -> None:
        self.plan, self.names = plan, names
        start = plan.start if plan.start.dim() == 2 else plan.start[schedule.rows]
        self.tangents = Propagation(plan.cell, start, len(schedule.rows), dtype)
        self.cell_path = CellPath(plan.problem.h[plan.layer, schedule.rows])

    def empty(self, steps: int, examples: int) -> dict[str, Tensor]:
        """NaN for every statistic, (steps, examples)."""
        like = self.cell_path.log
        return {name: like.new_full((steps, examples), torch.nan) for name in self.names}

    def segment(self, segment: Segment, blocks: Iterator[LayerRun]) -> dict[str, Tensor]:
        """(time, slot) per statistic."""
        self.tangents.arrange(segment.source)
        self.cell_path.arrange(segment.source)
        found = self.empty(segment.stop - segment.start, len(segment.source))
        t = 0
        for block in blocks:
            rows = {name: values[t : t + len(block.x)] for name, values in found.items()}
            self._block(block, rows, segment.start + t)
            t += len(block.x)
        return found

    def _block(self, block: LayerRun, found: dict[str, Tensor], start: int) -> None:
        """Write the rows of `found`, steps `start` and later."""
        paths = self.cell_path.advance(block.path.a) if "cell_path" in found else None
        if paths is not None:
            found["cell_path"].copy_(log10_cell_path(paths))
        for t, one in enumerate(one_steps(block.cell, block.path)):
            now = self.tangents.step(one, len(one.mix))
            record(found, t, now, self.plan.rows, bool(self.plan.spectral_at[start + t]))
            if paths is not None and HIDDEN_PATH in found:
                # no rounding error here: h_0 is no function of c_0
                first = torch.tensor(-torch.inf)
                later = log10_hidden_path(now.read(self.plan.rows), paths[t])
                found[HIDDEN_PATH][t] = later if start + t else first
