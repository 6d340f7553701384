"""Why is this gradient zero?"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.plot import Pictured, draw_diagnosis
from rnngrad.probe._cotangents import Cotangents, LayerMaps, chunks
from rnngrad.probe._problem import Array, Problem, problem_of
from rnngrad.probe._settings import in_threads, probing
from rnngrad.probe._sharing import shared
from rnngrad.probe._tangents import BLOCK_STEPS
from rnngrad.probe.cells import StepMaps
from rnngrad.probe.curves import JacobianCurves, jacobian_curves

if TYPE_CHECKING:
    import pandas as pd


DECADES = 7  # what counts as decayed or exploding
# Where signs cancel to this many decades, a zero column sum is no sign of underflow.
CANCELLATION = 5
# So many decades below the smallest subnormal number, one loss in so many is swept back.
FAR_DECADES, FAR_STRIDE = 10, 16
PARTS = 4  # of the batch, where it has as many examples, for as many threads

MEANINGS = {
    "structural": "exactly zero, whatever the arithmetic",
    "saturated": "gate derivatives round to exactly 0 in {dtype}",
    "underflow": "too small for {dtype}: 0 if flushed, else down to a plateau near {smallest:.1e}",
    "decayed": "below 1e-7 of the start, still a normal number",
    "exploding": "above 1e+7 of the start, or overflow",
    "alive": "within 1e-7 .. 1e+7 of the start",
}
HEADER = ("verdict", "first at step", "of all steps", "log10 |J| there", "meaning")
TITLES = {"h": "d h_t / d h_0", "c": "d c_t / d c_0", "full": "d s_t / d s_0"}


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Pictured):
    """The fate of d s_t / d s_0, and what naive autograd makes of it. Arrays are (batch, time).

    verdict: one of "structural", "saturated", "underflow", "decayed", "exploding", "alive"
        (in this precedence, see `diagnose`); "" beyond an example's length.
    log10_frobenius: the true magnitude, as in `rnngrad.jacobian_curves`; log10_column_sum likewise.
    naive: mean_j |sum_i d s_t[i] / d s_0[j]| as autograd returns it in `dtype` with gradual
        underflow (torch on CPU); naive_flushed: the same with flush-to-zero (TensorFlow).
    decades_per_step: (batch,) mean change of log10_frobenius up to its last finite value.
    horizon: (batch,) first step at which the norm is 1/10 of the identity's or less; NaN if never.
    """

    state: str
    dtype: torch.dtype
    verdict: Array
    log10_frobenius: Array
    log10_column_sum: Array
    naive: Array
    naive_flushed: Array
    decades_per_step: Array
    horizon: Array
    title: str

    plot = draw_diagnosis

    def first_steps(self, verdict: str) -> Array:
        """(batch,) the first step with this verdict (InputError if unknown); NaN if none."""
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
        table, summary = _aligned(_verdict_rows(self)), _aligned(_summary_rows(self))
        return "\n".join((self.title, "", *table, "", *summary))


@probing
def diagnose(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: str = "h",
    dtype: torch.dtype = torch.float32,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
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
    Cost: `jacobian_curves` and two naive sweeps of up to time^2 / 2 vector products each. Where the
    norm is 10 decades below the smallest subnormal number, one step in 16 is computed; if all
    of these are exactly zero, those between are taken to be zero as well.

    Raises:
        InputError: another dtype, and whatever `jacobian_curves` refuses.

    Example:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> rnngrad.diagnose(lstm, x, state="c").verdict[:, -1].tolist()
        ['alive', 'alive']
    """
    problem = problem_of(module, inputs, initial_state, lengths).on_cpu()
    naive = _Naive(problem, problem.layer_index(layer), state, dtype)
    curves = jacobian_curves(
        module, inputs, initial_state, state=state, layer=layer, lengths=lengths,
        statistics=("frobenius", "column_sum"),
    )  # fmt: skip
    norm, limits = curves.log10_frobenius, torch.finfo(dtype)
    far = norm < math.log10(limits.smallest_normal * limits.eps) - FAR_DECADES
    some = ~far | (np.arange(problem.steps) % FAR_STRIDE == 0)
    some[np.arange(problem.batch), problem.lengths - 1] = True

    def judge(example: int, maps: StepMaps) -> tuple[Array, ...]:
        own, beyond = some[example], far[example]
        gradual = naive.sums(example, maps, own)
        zero = not gradual[beyond].any()
        if not zero:
            gradual += naive.sums(example, maps, ~own)
        flushed = naive.sums(example, maps, ~beyond | (not zero), flush=True)
        return gradual, flushed, naive.saturated(maps)

    found = naive.run(judge)
    change = norm - 0.5 * np.log10(naive.rows.stop - naive.rows.start)
    return Diagnosis(
        state=state,
        dtype=dtype,
        verdict=_verdicts(curves, change, limits.tiny, found),
        log10_frobenius=norm,
        log10_column_sum=curves.log10_column_sum,
        naive=found[0],
        naive_flushed=found[1],
        decades_per_step=_rates(change),
        horizon=_first_step(change <= -1),
        title=f"{TITLES[state]} of {type(problem.cells[0]).__name__}({problem.hidden}), "
        f"{problem.batch} example(s), {problem.steps} steps, judged for {_short(dtype)}",
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
    naive = _Naive(problem, problem.layer_index(layer), state, dtype)
    every = np.arange(1, problem.steps + 1)
    chosen = every if steps is None else np.array(steps, int)
    if not np.isin(chosen, every).all():
        raise InputError(f"steps must lie in 1..{problem.steps}")
    wanted = np.isin(every, chosen)
    (found,) = naive.run(lambda example, maps: (naive.sums(example, maps, wanted, flush),))
    return np.where(wanted, found, np.nan)


class _Naive:
    """Reverse mode in the dtype that is judged."""

    def __init__(self, problem: Problem, layer: int, state: str, dtype: torch.dtype) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype={dtype}: use torch.float32 or torch.float64")
        self.problem, self.layer, self.dtype = problem, layer, dtype
        self.cell, self.rows = problem.cells[layer], problem.state_rows(state)
        self.leader, self.branch = shared(problem)
        self.lengths = problem.lengths.numpy()

    def run(self, judge: Callable[[int, StepMaps], tuple[Array, ...]]) -> list[Array]:
        """What is said of every example and its factors, (t,) each: arrays (batch, time).

        Until an example branches off, its leader's values are its own.
        """
        parts = chunks(self.problem, self.layer + 1, PARTS)
        found = in_threads(lambda e: [judge(*one) for one in self._maps(e)], parts, "autograd")
        rows = np.array([row for part in found for row in part], dtype=float)
        out = list(rows[np.argsort(np.concatenate(parts))].swapaxes(0, 1))
        for values in out:
            for example, (leader, branch) in enumerate(zip(self.leader, self.branch, strict=True)):
                values[example, :branch] = values[leader, :branch]
                values[example, self.lengths[example] :] = np.nan
        return out

    def _maps(self, examples: Array) -> Iterator[tuple[int, StepMaps]]:
        """The factors of every example as autograd has them, (1, t, ...)."""
        steps = slice(0, int(self.lengths[examples].max()))
        x = self.problem.inputs[examples, steps].to(self.dtype).transpose(0, 1)
        factors: Any = None
        for layer, cell in enumerate(self.problem.cells[: self.layer + 1]):
            states = (s[layer, examples].to(self.dtype) for s in self.problem.initial)
            path = cell.to(self.dtype).run(x, *states, autograd=True)
            x, factors = path.states[0][1:], path.factors
        for at, example in enumerate(examples.tolist()):
            own = slice(at, at + 1), slice(0, int(self.lengths[example]))
            maps = factors.maps().each(lambda v, own=own: v.transpose(0, 1).numpy()[own])
            yield example, maps

    def sums(self, example: int, maps: StepMaps, wanted: Array, flush: bool = False) -> Array:
        """Column sums of an example where wanted (t,) and not its leader's; 0 elsewhere.

        One backward sweep, in which the loss of every wanted step joins at its step.
        """
        steps = np.flatnonzero(wanted[: self.lengths[example]])
        steps, found = steps[steps >= self.branch[example]], np.zeros(len(wanted))
        smallest = float(torch.finfo(self.dtype).smallest_normal) if flush else 0.0
        if flush:
            maps = maps.each(lambda v: np.where(np.abs(v) < smallest, 0, v))
        layers, every = [LayerMaps(self.cell, maps)], np.zeros(len(steps), dtype=np.int64)
        cotangents = Cotangents(layers, every, smallest)
        states = slice(self.rows.start // self.cell.hidden, self.rows.stop // self.cell.hidden)
        of_state = cotangents.of_layer(0, slice(None))[states]
        first = end = len(steps)
        for t in reversed(range(steps.max(initial=-1) + 1)):
            joined, first = first, int(np.searchsorted(steps, t))
            of_state[:, first:joined] = 1
            cotangents.move(t, slice(first, end))
            if t % BLOCK_STEPS == 0:  # the losses that died long ago stay zero
                end = cotangents.end(first, end)
        found[steps] = np.abs(of_state.astype(np.float64)).mean(axis=(0, 2))
        return found

    def saturated(self, maps: StepMaps) -> Array:
        """(t,): does no path of the dtype's non-zero factors lead from the state at 0 to t?"""
        out = np.zeros(self.problem.steps, dtype=bool)
        mix, _, keep, through = maps.each(lambda v: v[0] != 0)
        if mix.all() and through.all():  # where a gate is 0 its derivative is as well
            return out
        linked = (self.cell.W != 0).astype(np.float32)
        reached = np.zeros(self.cell.hidden * len(self.cell.states), dtype=bool)
        reached[self.rows] = True
        for t in range(len(keep)):
            h, *c = np.split(reached, len(self.cell.states))
            arriving = (linked @ h > 0) & mix[t]
            if c:
                last = (c[0] & keep[t]) | arriving[:-1].any(axis=0)
                reached = np.concatenate(((last & through[t]) | arriving[-1], last))
            else:
                reached = (h & keep[t]) | arriving.any(axis=0)
            out[t] = not reached[self.rows].any()
        # an overflow of the forward pass is no saturation
        out[: len(keep)] &= np.logical_and.accumulate(np.isfinite(maps.mix[0]).all(axis=(1, 2)))
        return out


def _verdicts(curves: JacobianCurves, change: Array, tiny: float, naive: list[Array]) -> Array:
    """`change`: decades of the norm since the start; the column sum starts at 1."""
    gradual, flushed, saturated = naive
    with np.errstate(invalid="ignore"):
        small = curves.log10_frobenius < math.log10(tiny)
        cancels = curves.log10_column_sum <= change - CANCELLATION
        cases = {
            "": np.isnan(change),
            "structural": change == -np.inf,
            "saturated": saturated == 1,
            "underflow": (flushed == 0) & (small | ~cancels),
            "decayed": change < -DECADES,
            "exploding": (change > DECADES) | ~np.isfinite(gradual),
        }
    return np.select(list(cases.values()), list(cases), default="alive")


def _rates(change: Array) -> Array:
    """(batch,) mean decades per step up to the last finite value."""
    finite = np.isfinite(change)
    steps = finite.shape[1] - finite[:, ::-1].argmax(axis=1)
    return np.where(finite.any(axis=1), change[np.arange(len(change)), steps - 1] / steps, np.nan)


def _first_step(mask: Array) -> Array:
    """(batch,) the first step (from 1) at which the mask holds, NaN if none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1) + 1.0, np.nan)


def _verdict_rows(diagnosis: Diagnosis) -> list[Sequence[str]]:
    """The verdicts in the order in which they appear."""
    limits, rows = torch.finfo(diagnosis.dtype), {}
    words = {"dtype": _short(diagnosis.dtype), "smallest": limits.smallest_normal * limits.eps}
    for name, meaning in MEANINGS.items():
        first = diagnosis.first_steps(name)
        b = np.flatnonzero(~np.isnan(first))
        if len(b):
            there = diagnosis.log10_frobenius[b, first[b].astype(int) - 1]
            share = (diagnosis.verdict == name).sum() / (diagnosis.verdict != "").sum()
            steps, sizes = _range(first, "{:.0f}"), _range(there, "{:+.1f}")
            rows[name] = first[b].min(), name, steps, f"{share:.0%}", sizes, meaning.format(**words)
    return [HEADER, *(row for _, *row in sorted(rows.values(), key=lambda row: row[0]))]


def _summary_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    real = diagnosis.verdict != ""
    at_end = np.arange(len(real)), real.sum(axis=1) - 1
    zero = _first_step((diagnosis.naive_flushed == 0) & real)
    flushed = "never 0" if np.isnan(zero).all() else f"0 from step {_range(zero, '{:.0f}')}"
    horizon = f"step {_range(diagnosis.horizon, '{:.0f}', 'never')}"
    if np.isnan(diagnosis.horizon).all():
        horizon = "never within these steps"
    gradual = f"gradual underflow: {_range(diagnosis.naive[at_end], '{:.2g}', 'NaN')} at the end"
    return [
        ("rate", f"{_range(diagnosis.decades_per_step, '{:+.4f}')} decades per step"),
        ("memory horizon", f"{horizon}; the norm falls to 1/10 of its start"),
        ("at the end", f"true log10 |J| = {_range(diagnosis.log10_frobenius[at_end], '{:+.1f}')}"),
        (f"naive {_short(diagnosis.dtype)}", f"flush-to-zero: {flushed}; {gradual}"),
    ]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _range(values: Array, form: str, missing: str = "") -> str:
    """The smallest and the largest number, and how many of the examples have none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return missing or "-"
    text = " .. ".join(dict.fromkeys(form.format(end) for end in (known.min(), known.max())))
    absent = len(values) - len(known)
    return f"{text} ({absent} of {len(values)} examples: {missing})" if missing and absent else text


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
