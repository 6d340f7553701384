"""Jacobian curves of torch's recurrent modules: ||d s_t / d s_0|| for every t, per example."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.probe.arithmetic import exact_arithmetic, probing
from rnngrad.probe.forward import Plan, curves_of
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.sharing import Schedule, schedules
from rnngrad.probe.sketch import check_sketch, random_directions
from rnngrad.probe.statistics import HIDDEN_PATH, STATISTICS, spectral_mask, wanted_statistics
from rnngrad.probe.tangents import FLOAT32_FROM, identity

if TYPE_CHECKING:
    import pandas as pd

# None where not asked for; as in typeshed, Any spares those who asked a check for None
MaybeNone = Any


@dataclass(frozen=True, eq=False)
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


@probing
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
        module: nn.RNN (tanh or relu), nn.LSTM or nn.GRU, of any dtype and any number of layers,
            left as it is (but for parametrizations that change when they are read, as in training
            they do). Not bidirectional, no proj_size, no forward_pre_hooks, no forward of its own,
            no dropout between layers in training mode.
        inputs: as module.forward takes them: (batch, time, features), (time, batch, features) or
            (time, features).
        initial_state: as module.forward takes it; None means zeros.
        state: "h", "c" (LSTM) or "full" = (h, c): numerator and denominator of the Jacobian.
        layer: whose state, with respect to the same layer's initial state.
        lengths: the number of real steps per example, (batch,) integers; the curves are NaN beyond,
            where inputs may hold anything.
        method: "exact", or "sketch": an estimate of the Frobenius norm from a few random
            directions, with a standard error per step (see `rnngrad.probe.sketch`); the other
            statistics stay None.
        statistics: which of "frobenius", "column_sum", "spectral", and "hidden_path" for an LSTM's
            state="c"; the others are not computed.
        spectral_steps: steps (from 1) at which the spectral norm is taken, NaN elsewhere; None
            means all. It costs far more than the other statistics.
        directions, seed: of the sketch: how many random directions per example (at least 4), and
            which.

    Gates and states are computed in float64. The tangents are float32 for float32 LSTMs and GRUs of
    96 units and more (1e-5 relative after 1,403 steps; 1e-4 for the column sum) and float64
    otherwise. For float32 modules on a CPU directions of s_0 are dropped on which no row depends
    any more, to 3e-8 of it (float64 tangents: 1e-14); with 36 or fewer left float32 tangents go on
    in float64. The steps that follow cost less and less.
    Where signs cancel too far for that, a column sum is taken again from some steps before, by
    float64 cotangents; should 512 steps not be enough, from the start. An example with more such
    sums than H / 2 is taken again in float64.
    The hidden path is J_t less the cell path, and as exact as J_t is: where it is smaller than 1e-6
    of the cell path (float32 tangents; 1e-14 in float64) nothing but rounding is left of it.
    Scales are kept apart from mantissas, so nothing underflows or overflows; a value is -inf only
    if J_t is zero in exact arithmetic with the float64 values of the gates: where float64 ends, a
    sigmoid counts as 0 below -745 and the derivative of tanh as 0 beyond 372 on either side (the
    last digits go from -708 and 354 on). In a GRU h_(t-1) - n is a factor: where both saturate to
    the same +-1, with weights in the tens or inputs in the hundreds, its digits are lost, and whole
    decades beyond. A column sum below 1e-15 of the norm is rounding, and may truly be zero.

    Examples whose initial states (of all layers) and leading inputs are equal share these steps,
    which are then computed once: padding in front costs one example, not the batch. The numbers are
    those of every example for itself, to 1e-12 decades in float64 and 1e-6 in float32.

    Memory: a few (H, H) matrices for some examples at a time (24 MiB per thread, but no more than a
    quarter of the processor's last cache and at least 8 MiB; up to 512 MiB where steps are shared
    and on other devices, and there 1 GiB more for steps that are taken together) and 64 MiB for
    column sums; nothing grows with time but the curves, and one state in 32 of examples whose sums
    are taken from the start.

    Source: forward tangents of all initial directions at once, s_t' = M_t s_(t-1)', with M_t as in
    `rnngrad.probe.cells`; Pascanu, Mikolov and Bengio (2013), equation 5, is the product.

    Raises:
        InputError (a ValueError): wrong shapes, names, lengths, NaN or inf in inputs or weights.
        TypeError: another kind of module, integer inputs, a PackedSequence.
    """
    problem = problem_of(module, inputs, initial_state, lengths)
    return curves_of_problem(
        problem, state, layer, method, statistics, spectral_steps, directions, seed
    )


def curves_of_problem(
    problem: Problem,
    state: str,
    layer: int = -1,
    method: str = "exact",
    statistics: Sequence[str] = STATISTICS,
    spectral_steps: Sequence[int] | np.ndarray | None = None,
    directions: int = 8,
    seed: int = 0,
) -> JacobianCurves:
    """`jacobian_curves` of a problem whose cells need not be those of a torch module."""
    rows = problem.state_rows(state)
    names = wanted_statistics(statistics, paths=state == "c")
    if method not in ("exact", "sketch"):
        raise InputError(f'method={method!r}: use "exact" or "sketch"')
    start = identity(problem.hidden * len(problem.states), rows)
    if method == "sketch":
        names = check_sketch(names, directions, seed)
        start = random_directions(start, problem.batch, directions, seed)
    names = (*names, "cell_path") if state == "c" else names
    plan = Plan(
        problem=problem,
        layer=problem.layer_index(layer),
        rows=rows,
        # a column sum is held against the norm
        names={*names, "frobenius"} if "column_sum" in names else {*names},
        start=start,
        spectral_at=spectral_mask(spectral_steps, problem.steps),
    )
    with exact_arithmetic(problem.inputs.device):
        arrays = _curves(plan, names)
    return JacobianCurves(state, plan.layer, **{f"log10_{n}": v for n, v in arrays.items()})


def _curves(plan: Plan, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """(batch, time) of the statistics `names`."""
    out = {name: np.full((plan.problem.batch, plan.problem.steps), np.nan) for name in names}
    dtype = _tangents_dtype(plan.problem)
    for schedule in schedules(plan.problem, *plan.bytes_per_example(dtype), plan.shares):
        found, unsettled = curves_of(plan, schedule, dtype)
        _write(out, schedule, found)
        if unsettled.any():
            rest = Schedule.of(plan.problem, schedule.rows[unsettled], plan.shares)
            _write(out, rest, curves_of(plan, rest, torch.float64).found)
    return out


def _tangents_dtype(problem: Problem) -> torch.dtype:
    """Float64 for every RNN, too.

    No gate lets pass what is large now: the next steps of an RNN may turn on directions that are
    still small, with the rounding in them. Of 96 examples of 100 units, 1,403 steps of N(0, 1)
    inputs, float32 was off by up to 8e-5 and column sums by 6e-4 (LSTM: 7e-7, 5e-6). Nor is it
    quicker, but where no direction dies: more sums are taken again.
    """
    gated = problem.cells[0].gates > 1
    if problem.dtype == torch.float64 or problem.hidden < FLOAT32_FROM or not gated:
        return torch.float64
    return torch.float32


def _write(out: dict[str, np.ndarray], schedule: Schedule, found: dict[str, Tensor]) -> None:
    for name, values in out.items():
        values[schedule.rows.numpy(), : schedule.steps] = found[name].T.cpu().numpy()
