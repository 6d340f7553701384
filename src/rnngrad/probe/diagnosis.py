"""Why is this gradient zero?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.probe._cotangents import Cotangents, LayerMaps, chunks
from rnngrad.probe._problem import Problem, problem_of
from rnngrad.probe._settings import exact_arithmetic, exact_products, in_threads, probing
from rnngrad.probe._sharing import shared
from rnngrad.probe._tangents import BLOCK_STEPS, Plan, Tangents, identity
from rnngrad.probe.cells import StepMaps
from rnngrad.probe.curves import jacobian_curves

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray

DECADES = 7  # what counts as decayed or exploding
# Where signs cancel to this many decades, a zero column sum is no sign of underflow.
CANCELLATION = 5

MEANINGS = {
    "structural": "exactly zero, whatever the arithmetic",
    "saturated": "gate derivatives round to exactly 0 in {dtype}",
    "underflow": "too small for {dtype}: 0 if flushed, else down to a plateau near {smallest:.1e}",
    "decayed": "below 1e-7 of the start, still a normal number",
    "exploding": "above 1e+7 of the start, or overflow",
    "alive": "within 1e-7 .. 1e+7 of the start",
}
HEADER = ("verdict", "first at step", "of all steps", "log10 |J| there", "meaning")


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The fate of d s_t / d s_0, and what naive autograd makes of it. Arrays are (batch, time).

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
        return _first_step(self.verdict == verdict)

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), verdict, and the arrays' values there."""
        import pandas as pd

        b, t = np.nonzero(self.verdict != "")
        names = ("verdict", "log10_frobenius", "log10_column_sum", "naive", "naive_flushed")
        values = {name: getattr(self, name)[b, t] for name in names}
        return pd.DataFrame({"example": b, "step": t + 1} | values)

    def __str__(self) -> str:
        return _table(self)


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

    Example:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> rnngrad.diagnose(lstm, x, state="c").verdict[:, -1].tolist()
        ['alive', 'alive']
    """
    _check_dtype(dtype)
    curves = jacobian_curves(
        module, inputs, initial_state, state=state, layer=layer, lengths=lengths,
        statistics=("frobenius", "column_sum"),
    )  # fmt: skip
    problem = problem_of(module, inputs, initial_state, lengths).on_cpu()
    with exact_arithmetic():
        every = np.arange(1, problem.steps + 1)
        run = _Naive(problem, problem.layer_index(layer), state, dtype, every)
        gradual, flushed = run.sums(False, True)
        with exact_products():
            saturated = run.saturated()
    rows = problem.state_rows(state)
    start = 0.5 * np.log10(rows.stop - rows.start)
    norm, sums = curves.log10_frobenius, curves.log10_column_sum
    lost = norm < math.log10(torch.finfo(dtype).smallest_normal)
    return Diagnosis(
        state=state,
        dtype=dtype,
        verdict=_verdicts(norm - start, sums, lost, gradual, flushed, saturated),
        log10_frobenius=norm,
        log10_column_sum=sums,
        naive=gradual,
        naive_flushed=flushed,
        decades_per_step=_rates(norm - start),
        horizon=_first_step(norm <= start - 1),
        title=_title(problem, state, dtype),
    )


@probing
def autograd_column_sums(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: str = "h",
    dtype: torch.dtype = torch.float32,
    flush: bool = False,
    steps: Sequence[int] | None = None,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
) -> Array:
    """The column sums mean_j |sum_i d s_t[i] / d s_0[j]| that autograd returns in a dtype.

    This is `autograd.grad(s_t.sum(), s_0)` followed by `.abs().mean()`: no scales, derivatives
    written from the outputs (1 - tanh^2, s (1 - s)), everything rounded to the dtype.

    Args:
        module, inputs, initial_state, state, layer, lengths: as in `rnngrad.jacobian_curves`.
        dtype: torch.float32 or torch.float64.
        flush: are numbers below the smallest normal one zero (TensorFlow), or rounded to a multiple
            of the smallest subnormal one (torch on CPU)? Flushing is emulated after every product.
        steps: at which steps (from 1); None means all.

    Returns:
        (batch, time) float64; NaN at other steps and beyond an example's length.

    Raises:
        InputError: another dtype, steps out of range, and whatever `jacobian_curves` refuses.

    Example:
        >>> import torch, rnngrad
        >>> rnn, x = torch.nn.RNN(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> rnngrad.autograd_column_sums(rnn, x, flush=True).shape
        (2, 5)
    """
    problem = problem_of(module, inputs, initial_state, lengths).on_cpu()
    _check_dtype(dtype)
    wanted = np.unique(np.arange(1, problem.steps + 1) if steps is None else np.array(steps, int))
    if len(wanted) and not 1 <= wanted[0] <= wanted[-1] <= problem.steps:
        raise InputError(f"steps must lie in 1..{problem.steps}")
    with exact_arithmetic():
        run = _Naive(problem, problem.layer_index(layer), state, dtype, wanted)
        return run.sums(flush)[0]


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype={dtype}: use torch.float32 or torch.float64")


class _Naive:
    """Reverse mode in the dtype that is judged."""

    def __init__(
        self, problem: Problem, layer: int, state: str, dtype: torch.dtype, wanted: Array
    ) -> None:
        self.problem, self.layer, self.dtype, self.wanted = problem, layer, dtype, wanted
        self.rows, self.sharing = problem.state_rows(state), shared(problem)
        self.shape = (problem.batch, problem.steps)

    def sums(self, *flushes: bool) -> list[Array]:
        """(batch, time) for every way to treat subnormal numbers."""
        found = {flush: np.full(self.shape, np.nan) for flush in flushes}

        def run(work: tuple[int, StepMaps]) -> None:
            self._example(*work, found)

        for examples in chunks(self.problem, self.layer + 1, 1):
            in_threads(run, self.maps(examples), len(examples), "autograd's result")
        for example, (leader, branch) in enumerate(zip(*self.sharing, strict=True)):
            for values in found.values():
                values[example, :branch] = values[leader, :branch]
        return list(found.values())

    def maps(self, examples: Array) -> Iterator[tuple[int, StepMaps]]:
        """The factors as autograd has them, (1, t, ...) for every example."""
        problem, steps = self.problem, slice(0, int(self.problem.lengths[examples].max()))
        x = problem.inputs[examples, steps].to(self.dtype).transpose(0, 1)
        maps = StepMaps(*[None] * 4)
        for layer, cell in enumerate(problem.cells[: self.layer + 1]):
            states = (s[layer, examples].to(self.dtype) for s in problem.initial)
            path = cell.to(self.dtype).run(x, *states, autograd=True)
            x, maps = path.states[0][1:], path.factors.maps()
        for at, example in enumerate(examples):
            own = slice(0, int(problem.lengths[example]))
            yield int(example), maps.each(lambda v, at=at, own=own: _example_of(v, at, own))

    def _example(self, example: int, maps: StepMaps, found: dict[bool, Array]) -> None:
        """One backward sweep, in which the loss of every wanted step joins at its step.

        The losses from `apart` on have come near subnormal numbers: flushed to zero they go a way
        of their own.
        """
        length, joined = int(self.problem.lengths[example]), self.sharing.branch[example]
        steps = self.wanted[(self.wanted > joined) & (self.wanted <= length)]
        smallest = float(torch.finfo(self.dtype).tiny)
        near = smallest / torch.finfo(self.dtype).eps  # above it, flushing is no more than rounding
        cell, every = self.problem.cells[self.layer], np.zeros(len(steps), dtype=np.int64)
        plain = Cotangents([LayerMaps(cell, maps)], every, norms=False)
        maps = maps.each(lambda v: np.where(np.abs(v) < smallest, 0, v))
        flushed = Cotangents([LayerMaps(cell, maps)], every, smallest, norms=False)
        states = slice(self.rows.start // cell.hidden, self.rows.stop // cell.hidden)
        first = apart = plain_end = end = len(steps)
        for t in reversed(range(steps[-1] if len(steps) else 0)):
            if first and steps[first - 1] == t + 1:
                first -= 1
                plain.of_layer(0, slice(first, first + 1))[states] = 1
            if True in found:
                apart = flushed.take(plain, first, apart, near)
                flushed.move(t, slice(apart, end))
            plain.move(t, slice(first, plain_end if False in found else apart))
            if t % BLOCK_STEPS == 0:  # the losses that died long ago stay zero
                plain_end, end = plain.end(first, plain_end), max(apart, flushed.end(apart, end))
        apart = flushed.take(plain, 0, apart, smallest)
        for flush, values in found.items():
            found_here = plain.of_layer(0, slice(0, len(steps)))[states].astype(np.float64)
            if flush:
                found_here[:, apart:] = flushed.of_layer(0, slice(apart, len(steps)))[states]
            values[example, steps - 1] = np.abs(found_here).mean(axis=(0, 2))

    def saturated(self) -> Array:
        """(batch, time): is the product of the dtype's own factors zero whatever the range?"""
        out = np.zeros(self.shape, dtype=bool)
        for examples in chunks(self.problem, self.layer + 1, 1):
            for example, maps in self.maps(examples):
                exact = self._exact(example)
                if any(((a == 0) & (b != 0)).any() for a, b in zip(maps, exact, strict=True)):
                    zero = _product_is_zero(self.problem, self.layer, self.rows, maps)
                    # an overflow of the forward pass is no saturation
                    finite = np.isfinite(maps.mix).all(axis=(0, 2, 3))
                    out[example, : len(zero)] = zero & np.logical_and.accumulate(finite)
        return out

    def _exact(self, example: int) -> StepMaps:
        states = self.problem.start([example], self.layer + 1)
        steps = slice(0, int(self.problem.lengths[example]))
        *_, run = self.problem.run([example], steps, states)
        return run.factors.maps()


def _example_of(v: Tensor, at: int, steps: slice) -> Array:
    return np.ascontiguousarray(v[steps, at].numpy())[None]


def _product_is_zero(problem: Problem, layer: int, rows: slice, maps: StepMaps) -> Array:
    """(t,): is J_t zero, given factors (1, t, ...)?"""
    steps = maps.keep.shape[1]
    start, mask = identity(problem, rows), np.zeros(steps, dtype=bool)
    plan = Plan(layer, rows, {"frobenius"}, start, mask)
    J = Tangents(problem.cells[layer], start, plan)
    found = {"frobenius": np.empty(steps)}
    for block in range(0, steps, BLOCK_STEPS):
        at = slice(block, block + BLOCK_STEPS)
        some = maps.each(
            lambda v, at=at: np.nan_to_num(v[0, at].astype(float), nan=1.0, posinf=1.0, neginf=1.0)
        )
        J.advance(some, {"frobenius": found["frobenius"][at]}, mask[at], steps - at.stop, map)
    return found["frobenius"] == -np.inf


def _verdicts(
    change: Array, sums: Array, lost: Array, gradual: Array, flushed: Array, saturated: Array
) -> Array:
    """`change`, `sums`: decades of the norm and of the column sum since the start, where the
    latter is 1; `lost`: is the norm itself below the dtype's normal numbers?"""
    with np.errstate(invalid="ignore"):
        cases = {
            "": np.isnan(change),
            "structural": change == -np.inf,
            "saturated": saturated,
            "underflow": (flushed == 0) & (lost | (sums > change - CANCELLATION)),
            "decayed": change < -DECADES,
            "exploding": (change > DECADES) | ~np.isfinite(gradual),
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
        f"{problem.batch} example(s), {problem.steps} steps, judged for {_short(dtype)}"
    )


def _table(diagnosis: Diagnosis) -> str:
    """Verdicts in the order in which they appear, then rate, horizon and what autograd returns."""
    found = [name for name in MEANINGS if (diagnosis.verdict == name).any()]
    found.sort(key=lambda name: float(np.nanmin(diagnosis.first_steps(name))))
    rows = [HEADER, *(_row(diagnosis, name) for name in found)]
    return "\n".join((diagnosis.title, "", *_aligned(rows), "", *_summary(diagnosis)))


def _row(diagnosis: Diagnosis, name: str) -> tuple[str, ...]:
    first = diagnosis.first_steps(name)
    b = np.flatnonzero(~np.isnan(first))
    there = diagnosis.log10_frobenius[b, first[b].astype(int) - 1]
    share = (diagnosis.verdict == name).sum() / (diagnosis.verdict != "").sum()
    limits = torch.finfo(diagnosis.dtype)
    smallest = limits.smallest_normal * limits.eps
    meaning = MEANINGS[name].format(dtype=_short(diagnosis.dtype), smallest=smallest)
    return name, _range(first, "{:.0f}"), f"{share:.0%}", _range(there, "{:+.1f}"), meaning


def _summary(diagnosis: Diagnosis) -> list[str]:
    real = diagnosis.verdict != ""
    last = real.sum(axis=1) - 1
    at_end = np.arange(len(last)), last
    zero = _first_step((diagnosis.naive_flushed == 0) & real)
    flushed = "never 0" if np.isnan(zero).all() else f"0 from step {_range(zero, '{:.0f}')}"
    rows = [
        ("rate", f"{_range(diagnosis.decades_per_step, '{:+.4f}')} decades per step"),
        ("memory horizon", f"{_horizon(diagnosis.horizon)}; the norm falls to 1/10 of its start"),
        ("at the end", f"true log10 |J| = {_range(diagnosis.log10_frobenius[at_end], '{:+.1f}')}"),
        (
            f"naive {_short(diagnosis.dtype)}",
            f"flush-to-zero: {flushed}; gradual underflow: "
            f"{_at_end(diagnosis.naive[at_end])} at the end",
        ),
    ]
    return _aligned(rows)


def _at_end(naive: np.ndarray) -> str:
    nan = int(np.isnan(naive).sum())
    if nan == len(naive):
        return "NaN"
    return _range(naive, "{:.2g}") + (f" ({nan} of {len(naive)} examples: NaN)" if nan else "")


def _horizon(horizon: np.ndarray) -> str:
    never = int(np.isnan(horizon).sum())
    if never == len(horizon):
        return "never within these steps"
    some = f" ({never} of {len(horizon)} examples: never)" if never else ""
    return f"step {_range(horizon, '{:.0f}')}{some}"


def _first_step(mask: np.ndarray) -> np.ndarray:
    """(batch,) the first step (from 1) at which the mask holds, NaN if none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1) + 1.0, np.nan)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _range(values: np.ndarray, form: str) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "-"
    low, high = form.format(known.min()), form.format(known.max())
    return low if low == high else f"{low} .. {high}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
