"""Why is this gradient zero?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError, check_memory
from rnngrad.plot import DERIVATIVES, ColumnSums, Pictured, draw_diagnosis, span, text_table
from rnngrad.probe._cotangents import Cotangents, chunks
from rnngrad.probe._problem import Problem, problem_of
from rnngrad.probe._scaled import Array
from rnngrad.probe._settings import bar, prepared, threads
from rnngrad.probe._sharing import shared
from rnngrad.probe._statistics import chosen_steps
from rnngrad.probe._tangents import BLOCK_STEPS
from rnngrad.probe.cells import StepMaps
from rnngrad.probe.curves import JacobianCurves, jacobian_curves

if TYPE_CHECKING:
    import pandas as pd

DECADES = 7  # a change by more decades counts as decayed or exploding
# Where signs cancel to this many decades, a zero column sum is no sign of underflow.
CANCELLATION = 5
# If a norm is FAR_DECADES below the smallest subnormal number, one loss in FAR_STRIDE is swept
# back. This makes the call 1.6 to 3.4 times as fast.
FAR_DECADES, FAR_STRIDE = 10, 16
PARTS = 4  # parts of the batch, where it has as many examples, for as many threads

Verdict = Literal["structural", "saturated", "underflow", "decayed", "exploding", "alive"]
MEANINGS: dict[Verdict, str] = {
    "structural": "exactly zero in float64, too: no way leads there",
    "saturated": "gate derivatives round to exactly 0",
    "underflow": "too small for autograd: 0, or about {:.1e}",
    "decayed": "below 1e-7 of the start, not yet too small",
    "exploding": "above 1e+7 of the start, or overflow",
    "alive": "within 1e-7 .. 1e+7 of the start",
}


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Pictured):
    """The fate of d s_t / d s_0, and what naive autograd makes of it. Arrays are (batch, time).

    - verdict: one of "structural", "saturated", "underflow", "decayed", "exploding", "alive"
        (in this precedence, see `diagnose`); "" beyond an example's length.
    - log10_frobenius, log10_column_sum: the true magnitudes, as in `rnngrad.jacobian_curves`.
    - curves: what `rnngrad.jacobian_curves` found, without the spectral norm.
    - state, dtype, title: whose Jacobian was judged, for which arithmetic, and how it is printed.
    - naive, naive_flushed: mean_j |sum_i d s_t[i] / d s_0[j]| as autograd returns it in `dtype`.
        Underflow is gradual, as in torch on CPU, or flushed to zero (TensorFlow).
    - decades_per_step: (batch,) mean change of log10_frobenius per step that counts, up to its last
        finite value.
    - horizon: (batch,) first step at which the norm is 1/10 of the identity's or less; NaN: never.

    Examples:
        >>> import torch, rnngrad
        >>> found = rnngrad.diagnose(torch.nn.GRU(3, 4), torch.zeros(5, 2, 3))
        >>> found.verdict[0].tolist()
        ['alive', 'alive', 'alive', 'alive', 'alive']
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
    curves: JacobianCurves
    title: str

    plot = draw_diagnosis

    def first_steps(self, verdict: Verdict) -> Array:
        """(batch,) the first step with this verdict (InputError if unknown); NaN if none."""
        if verdict not in MEANINGS:
            raise InputError(f"verdict={verdict!r}: use one of {', '.join(MEANINGS)}")
        return _first_step(self.verdict == verdict)

    @property
    def zero_from(self) -> Array:
        """(batch,) the step from which `naive_flushed` is zero for good; NaN if it never is."""
        real = self.verdict != ""
        backwards = ((self.naive_flushed != 0) & real)[:, ::-1]
        return _first_step(real & ~np.logical_or.accumulate(backwards, axis=1)[:, ::-1])

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), verdict, and the arrays' values there."""
        import pandas as pd

        b, t = np.nonzero(self.verdict != "")
        names = ("verdict", "log10_frobenius", "log10_column_sum", "naive", "naive_flushed")
        values = {name: getattr(self, name)[b, t] for name in names}
        return pd.DataFrame({"example": b, "step": t + 1} | values)

    def __str__(self) -> str:
        tables = _verdict_lines(self), _summary_lines(self)
        return "\n\n".join((self.title, *map(text_table, tables)))


@prepared()
def diagnose(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: Literal["h", "c", "full"] = "h",
    dtype: torch.dtype = torch.float32,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
) -> Diagnosis:
    """Say of every step whether d s_t / d s_0 is zero, lost in rounding, small, large or fine.

    Print the result. The verdicts per example and step, in this precedence:

    - structural: d s_t / d s_0 is exactly zero (a dead relu, a gate at 0, no way through W_hh).
    - saturated: it is not, but autograd writes derivative factors as 1 - tanh^2 and s (1 - s). In
        `dtype` so many of these are exactly zero that their product is.
    - underflow: autograd's column sum in `dtype` has fallen below the smallest normal number. It is
        zero under flush-to-zero (TensorFlow), a false plateau under gradual underflow (torch on
        CPU). Where signs cancel to zero, the norm decides: it is below that number as well.
    - decayed: the Frobenius norm is below 1e-7 of its starting value.
    - exploding: it is above 1e7 of it, or autograd's result is infinite or NaN.
    - alive: none of these.

    Args:
        module, inputs, initial_state, state, layer, lengths, mask: as in `rnngrad.jacobian_curves`.
        dtype: the arithmetic to judge, torch.float32 or torch.float64.

    Beyond `jacobian_curves` it takes cotangents (time, H) of a few examples, and two sweeps of
    up to time^2 / 2 vector products. Of steps far below the smallest number it looks at a 16th.

    Raises:
        InputError: another dtype, and whatever `jacobian_curves` refuses.

    Examples:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> rnngrad.diagnose(lstm, x, state="c").verdict[:, -1].tolist()
        ['alive', 'alive']
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask).on_cpu()
    naive = _Naive(problem, problem.layer_index(layer), state, dtype)
    size = 250 * math.prod(problem.counts.real.shape)  # measured, mostly words
    check_memory(size, "verdicts of all steps need", "pass fewer examples or steps")
    curves = jacobian_curves(
        module, inputs, initial_state, state=state, layer=layer, lengths=lengths, mask=mask,
        statistics=("frobenius", "column_sum"),
    )  # fmt: skip
    limits, counts, last = torch.finfo(dtype), problem.counts, len(problem.cells) - 1
    least = math.log10(limits.smallest_normal * limits.eps) - FAR_DECADES

    def judge(example: int, maps: StepMaps) -> tuple[Array, ...]:
        norm = curves.log10_frobenius[example][counts.real[example].numpy()]
        steps, far = np.arange(len(norm)), np.flatnonzero(norm < least)
        if not naive.sums(example, maps, far[::-FAR_STRIDE][::-1]).any():
            steps = np.setdiff1d(steps, far)
        sums = (naive.sums(example, maps, steps, flush) for flush in (False, True))
        return *sums, naive.saturated(maps)

    starts = (1.0, 1.0, 0.0)
    found = [counts.over_time(*each) for each in zip(naive.run(judge, 3), starts, strict=True)]
    change = curves.log10_frobenius - 0.5 * np.log10(naive.rows.stop - naive.rows.start)
    return Diagnosis(
        state=state,
        dtype=dtype,
        verdict=_verdicts(curves, change, limits.tiny, found),
        log10_frobenius=curves.log10_frobenius,
        log10_column_sum=curves.log10_column_sum,
        naive=found[0],
        naive_flushed=found[1],
        decades_per_step=_rates(change, counts.real.numpy()),
        horizon=_first_step(change <= -1),
        curves=curves,
        title=f"{DERIVATIVES[state]} of {type(problem.cells[0]).__name__}({problem.hidden}), "
        + (f"layer {naive.layer} of 0 to {last}, " if last else "")
        + f"{problem.batch} example(s), {change.shape[1]} steps, judged for {dtype}",
    )


@prepared()
def autograd_column_sums(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    state: Literal["h", "c", "full"] = "h",
    dtype: torch.dtype = torch.float32,
    flush: bool = False,
    steps: Sequence[int] | None = None,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
) -> ColumnSums:
    """The column sums mean_j |sum_i d s_t[i] / d s_0[j]| that autograd returns in a dtype.

    This is `autograd.grad(s_t.sum(), s_0).double().abs().mean()`: no scales, all rounded to the
    dtype before that, derivatives from the outputs (1 - tanh^2, s (1 - s)).

    Args:
        module, inputs, initial_state, state, layer, lengths, mask: as in `rnngrad.jacobian_curves`.
        dtype: torch.float32 or torch.float64.
        flush: True emulates TensorFlow: numbers below the smallest normal one are 0 after every
            product. False rounds to multiples of the smallest subnormal one (torch on CPU).
        steps: at which steps (from 1); None means all.

    Returns:
        An array (batch, time) with `plot`, float64; NaN at other steps and beyond the lengths.

    Raises:
        InputError: another dtype, steps out of range, and whatever `jacobian_curves` refuses.

    Examples:
        >>> import torch, rnngrad
        >>> rnn, x = torch.nn.RNN(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> rnngrad.autograd_column_sums(rnn, x, flush=True).shape
        (2, 5)
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask).on_cpu()
    counts, naive = problem.counts, _Naive(problem, problem.layer_index(layer), state, dtype)
    wanted = chosen_steps(steps, counts.real.shape[1], "steps")
    at = np.flatnonzero(counts.counted_at(wanted))
    (found,) = naive.run(lambda example, maps: (naive.sums(example, maps, at, flush),), 1)
    return np.where(wanted, counts.over_time(found, 1.0), np.nan).view(ColumnSums)


class _Naive:
    """Autograd's way through a problem, in the dtype that is judged."""

    def __init__(self, problem: Problem, layer: int, state: str, dtype: torch.dtype) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype={dtype}: use torch.float32 or torch.float64")
        self.problem, self.layer, self.dtype = problem, layer, dtype
        self.cell, self.rows = problem.cells[layer], problem.state_rows(state)
        self.sharing = shared(problem, np.arange(problem.batch))
        self.lengths, self.parts = problem.lengths.numpy(), chunks(problem, layer + 1, PARTS)

    def run(self, judge: Callable[[int, StepMaps], tuple[Array, ...]], count: int) -> Array:
        """Give (count, batch, time) of what `judge` makes of autograd's factors (1, t, ...)."""
        out = np.full((count, self.problem.batch, self.problem.steps), np.nan)

        def run(examples: Array) -> None:
            steps = slice(0, int(self.lengths[examples].max()))
            x = self.problem.inputs[examples, steps].to(self.dtype).transpose(0, 1)
            factors: Any = None
            for layer, cell in enumerate(self.problem.cells[: self.layer + 1]):
                states = (s[layer, examples].to(self.dtype) for s in self.problem.initial)
                path = cell.to(self.dtype).run(x, *states, autograd=True)
                x, factors = path.states[0][1:], path.factors
            maps = factors.maps().each(lambda v: v.transpose(0, 1).numpy())
            for at, example in enumerate(examples.tolist()):
                steps = slice(0, int(self.lengths[example]))
                own = maps.each(itemgetter((slice(at, at + 1), steps)))
                out[:, example, steps] = judge(example, own)
                progress.update()

        examples = bar(total=self.problem.batch, desc="autograd", unit="example")
        with threads() as pool, examples as progress:
            list(pool.map(run, self.parts))
        for values in out:
            self.sharing.fill(values)
        return out

    def sums(self, example: int, maps: StepMaps, steps: Array, flush: bool = False) -> Array:
        """Sweep back once: column sums (t,) at some steps (from 0) after branching; 0 elsewhere."""
        found, smallest = np.zeros(self.lengths[example]), 0.0
        steps = steps[(steps >= self.sharing.branch[example]) & (steps < len(found))]
        if flush:
            smallest = float(torch.finfo(self.dtype).smallest_normal)
            maps = maps.each(lambda v: np.where(np.abs(v) < smallest, 0, v))
        cotangents = Cotangents([self.cell], [maps], len(steps), smallest)
        states = slice(self.rows.start // self.cell.hidden, self.rows.stop // self.cell.hidden)
        of_state = cotangents.by_layer[0, states]
        first = end = len(steps)
        for t in reversed(range(steps.max(initial=-1) + 1)):
            joined, first = first, int(np.searchsorted(steps, t))
            of_state[:, first:joined] = 1
            for _ in cotangents.back(t, slice(first, end)):
                pass
            if t % BLOCK_STEPS == 0:  # leaving dead losses out is 1.6 times as fast
                alive = np.flatnonzero(cotangents.by_layer[0, :, first:end].any(axis=(0, 2)))
                end = first + int(alive.max(initial=-1)) + 1
        found[steps] = np.abs(of_state.astype(np.float64)).mean(axis=(0, 2))
        return found

    def saturated(self, maps: StepMaps) -> Array:
        """Say at which t (t,) no path of the dtype's non-zero factors leads there from 0."""
        mix, _, keep, through = maps.each(lambda v: v[0] != 0)
        out, H, lstm = np.zeros(len(keep), dtype=bool), self.cell.hidden, through.shape[1] > 0
        if mix.all() and through.all():  # where a gate is 0 its derivative is as well
            return out
        linked = (self.cell.W != 0).astype(np.float32)
        reached = np.zeros(2 * H if lstm else H, dtype=bool)
        reached[self.rows] = True
        for t in range(len(keep)):
            arriving = (linked @ reached[:H] > 0) & mix[t]
            last = (reached[-H:] & keep[t]) | arriving[: -1 if lstm else None].any(axis=0)
            reached = np.append((last & through[t]) | arriving[-1], last) if lstm else last
            out[t] = not reached[self.rows].any()
        return out


def _verdicts(curves: JacobianCurves, change: Array, tiny: float, naive: list[Array]) -> Array:
    """`change` is in decades of the norm since the start; the column sum starts at 1."""
    gradual, flushed, saturated = naive
    with np.errstate(invalid="ignore"):
        small = curves.log10_frobenius < math.log10(tiny)
        cancels = curves.log10_column_sum <= change - CANCELLATION
        cases = {
            "": np.isnan(change),
            "structural": change == -np.inf,
            "saturated": (saturated == 1) & (gradual == 0),
            "underflow": (flushed == 0) & (small | ~cancels),
            "decayed": change < -DECADES,
            "exploding": (change > DECADES) | ~np.isfinite(gradual),
        }
    return np.select(list(cases.values()), list(cases), default="alive")


def _rates(change: Array, real: Array) -> Array:
    """(batch,) mean decades per step that counts up to the last finite value."""
    finite = np.isfinite(change) & real
    last = np.arange(len(finite)), finite.shape[1] - 1 - finite[:, ::-1].argmax(axis=1)
    return np.where(finite.any(axis=1), change[last] / real.cumsum(axis=1)[last], np.nan)


def _first_step(mask: Array) -> Array:
    """(batch,) the first step (from 1) at which the mask holds, NaN if none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1) + 1.0, np.nan)


def _verdict_lines(diagnosis: Diagnosis) -> list[Sequence[str]]:
    """The verdicts in the order in which they appear."""
    limits, rows = torch.finfo(diagnosis.dtype), []
    for name, meaning in MEANINGS.items():
        here = diagnosis.verdict == name
        if here.any():
            first = diagnosis.first_steps(name)
            sizes = span(diagnosis.log10_frobenius[here & (here.cumsum(axis=1) == 1)], "+.1f")
            share = f"{here.sum() / (diagnosis.verdict != '').sum():.1%}"
            said = meaning.format(limits.tiny * limits.eps)
            row = name, span(first, ".0f", absent="never"), share, sizes, said
            rows.append((np.nanmin(first), *row))
    header = "verdict", "first at\nstep", "of all\nsteps", "log10 norm\nthere", "meaning"
    return [header, *(row for _, *row in sorted(rows))]


def _summary_lines(diagnosis: Diagnosis) -> list[Sequence[str]]:
    real = diagnosis.verdict != ""
    at_end = np.arange(len(real)), real.sum(axis=1) - 1
    horizon = span(diagnosis.horizon, ".0f", "step {}", "never within these steps")
    flushed = span(diagnosis.zero_from, ".0f", "0 from step {}", "never 0")
    gradual = span(diagnosis.naive[at_end], ".2g", absent="NaN")
    naive = f"flush-to-zero: {flushed}; without it {gradual} at the end"
    return [
        ("rate", f"{span(diagnosis.decades_per_step, '+.4f')} decades per step"),
        ("memory horizon", f"norm at 1/10 of its start: {horizon}"),
        ("at the end", f"true log10 |J| = {span(diagnosis.log10_frobenius[at_end], '+.1f')}"),
        ("autograd's sum", naive),
    ]
