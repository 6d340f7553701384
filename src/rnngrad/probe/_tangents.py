"""Forward: J_t = d s_t / d s_0 of every example at every t, and what is read off it.

An example's steps are taken in blocks: states and factors of a block, then the tangents, then a
look at the rank. The quick way keeps one power of two per matrix and is one compiled loop. It is
exact to float64 as long as no row (state unit) could underflow beside the others. A block in which
one could is taken again with one scale per row, in NumPy.

Examples and the columns of J are independent: Python threads share them. How they are cut depends
on the problem alone, so that the bits are the same whatever the number of threads.
"""

import math
from collections.abc import Callable, Iterable, Set
from copy import copy
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe import _compiled
from rnngrad.probe._problem import Problem, States
from rnngrad.probe._scaled import LOG10_2, ZERO, ScaledRows, log10_of
from rnngrad.probe._settings import exact_products, progress_bar, thread_pool
from rnngrad.probe._sharing import Sharing, alone, shared
from rnngrad.probe._statistics import HIDDEN_PATH, log10_norm_estimate, spectral_norm
from rnngrad.probe.cells import Cell, StepMaps

Array = np.ndarray
Map = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]

BLOCK_STEPS = 32  # of 128 units and more; of fewer more steps, so that calls do not count
FEW_LEADERS = 3  # up to so many run one after the other, with the columns of J in parts
PART_COLUMNS = 64  # at least so many columns in a part
KEPT_BYTES = 32 * 2**20  # of the rows that are kept for spectral norms, per thread
LOG10_DROPPED = -10  # of a row: so much of it may be missing where directions are dropped
WORTH_DROPPING = 0.8  # the rank is looked at when no more of the directions should be left
DEVICE_BYTES = 2**30  # of tangents, on other devices
SMALL_ROW = 2.0**-400  # beside the largest: its square could underflow
SPREAD_BACK = 300  # powers of two: rows this close return to the quick way


@dataclass(frozen=True)
class Plan:
    """The curves that are wanted.

    layer: whose state. rows: of [h; c; c less the cell path] that are read. names: the statistics.
    start: d [h; c; ...]_0 / d (directions), (rows, k), or (batch, rows, k) for directions that
    differ. spectral_at: (time,) bool.
    """

    layer: int
    rows: slice
    names: Set[str]
    start: Array
    spectral_at: Array

    @property
    def sketches(self) -> bool:
        """Are the directions random ones, of which none may be dropped?"""
        return self.start.ndim == 3


def identity(problem: Problem, rows: slice, hidden_path: bool = False) -> Array:
    """d [h; c]_0 / d (state)_0, (rows, k); with H more rows for the hidden path, which are zero."""
    size = problem.hidden * len(problem.states)
    start = np.eye(size)[:, rows]
    return np.vstack((start, np.zeros((problem.hidden, start.shape[1])))) if hidden_path else start


def curves(problem: Problem, plan: Plan) -> dict[str, Array]:
    """log10 by statistic, (batch, time), NaN beyond an example's length."""
    if problem.inputs.device.type == "cpu" or plan.sketches:
        return _curves_on_cpu(problem.on_cpu(), plan)
    found, left = curves_on_device(problem, plan)
    if len(left):
        for name, values in _curves_on_cpu(problem.on_cpu().take(left), plan).items():
            found[name][left] = values
    return found


def _curves_on_cpu(problem: Problem, plan: Plan) -> dict[str, Array]:
    found = {name: np.full((problem.batch, problem.steps), np.nan) for name in plan.names}
    sharing = alone(problem) if plan.sketches else shared(problem)
    lengths = problem.lengths.numpy()
    leads = sharing.leader == np.arange(problem.batch)
    leaders, others = np.flatnonzero(leads), np.flatnonzero(~leads & (sharing.branch < lengths))
    few = len(leaders) <= FEW_LEADERS
    total = int((lengths - sharing.branch).sum())
    with exact_products(), thread_pool() as pool, progress_bar(total, "Jacobians", "step") as bar:
        sweep = _Sweep(problem, plan, sharing, found, few, bar.update)
        over = repeat(pool.map if few else map)
        for _ in (map if few else pool.map)(sweep.run, leaders.tolist(), over):
            pass
        for _ in pool.map(sweep.run, others.tolist()):
            pass
    for example in np.flatnonzero(~leads):
        of_leader = slice(0, sharing.branch[example])
        for values in found.values():
            values[example, of_leader] = values[sharing.leader[example], of_leader]
    return found


class _Sweep:
    """All examples of a problem; `found` is written row by row.

    few: are the leaders so few that the columns of their J are cut into parts?
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        sharing: Sharing,
        found: dict[str, Array],
        few: bool,
        progress: Callable[[int], Any],
    ) -> None:
        self.problem, self.plan, self.sharing = problem, plan, sharing
        self.found, self.few, self.progress = found, few, progress
        self.block = BLOCK_STEPS * max(1, 128 // problem.hidden)
        # the leaders' states and tangents where others branch off
        self.left: dict[tuple[int, int], tuple[States, Tangents]] = {}

    def run(self, example: int, over: Map = map) -> None:
        """The steps that an example runs itself; `over` maps a function over parts of the work."""
        states, tangents = self._begin(example)
        begin, length = int(self.sharing.branch[example]), int(self.problem.lengths[example])
        followers = self.sharing.branch[self.sharing.leader == example]
        for start, stop in pairwise(sorted({begin, *followers.tolist(), length})):
            for block in range(start, stop, self.block):
                steps = slice(block, min(block + self.block, stop))
                *_, run = self.problem.run([example], steps, states)
                maps = run.factors.maps().each(lambda v: v[0])
                out = {name: values[example, steps] for name, values in self.found.items()}
                at = self.plan.spectral_at[steps]
                tangents.advance(maps, out, at, length - steps.stop, over)
                self.progress(steps.stop - block)
            if stop < length:
                kept = [tuple(s.copy() for s in layer) for layer in states]
                self.left[example, stop] = kept, tangents.copy(cut=False)

    def _begin(self, example: int) -> tuple[States, "Tangents"]:
        """The states of all layers, (1, H) each, and the tangents, when the example begins."""
        leader, branch = int(self.sharing.leader[example]), int(self.sharing.branch[example])
        if branch:
            states, tangents = self.left[leader, branch]
            return [tuple(s.copy() for s in layer) for layer in states], tangents.copy(cut=False)
        start = self.plan.start[example] if self.plan.sketches else self.plan.start
        layer = self.plan.layer
        tangents = Tangents(self.problem.cells[layer], start, self.plan, self.few)
        return self.problem.start([example], layer + 1), tangents


class Tangents:
    """J_t of one example: rows (state units) by k directions.

    The columns are held in parts, each at a power of two of its own, or all in `rows`, each row at
    its own. With a basis (directions, k) of orthonormal columns, J is J basis^T.
    """

    def __init__(self, cell: Cell, start: Array, plan: Plan, cut: bool) -> None:
        self.cell, self.plan, self.cut = cell, plan, cut
        self._set(start, 0)
        self.rows: ScaledRows | None = None
        self.basis: Array | None = None
        self.log_path = np.zeros(cell.hidden)  # of the product of the forget gates
        self.steps, self.look_at = 0, BLOCK_STEPS

    def copy(self, cut: bool) -> "Tangents":
        """The same, with columns that are cut into parts or not."""
        other = copy(self)
        other.cut = cut
        other._set(*self._whole())
        return other

    def _set(self, J: Array, exponent: int) -> None:
        """Hold a copy of J, all columns at one power of two."""
        parts = 1
        while self.cut and J.shape[1] >= 2 * parts * PART_COLUMNS:
            parts *= 2
        self.parts = [np.array(part, order="C") for part in np.array_split(J, parts, axis=1)]
        self.exponents = [exponent] * parts

    def advance(
        self, maps: StepMaps, out: dict[str, Array], spectral_at: Array, left: int, over: Map
    ) -> None:
        """The steps of a block: write the statistics into `out`, (t,) each, and look at the rank.

        left: steps that follow. over: what maps a function over parts of the work.
        """
        steps = len(maps.keep)
        if "cell_path" in out:
            self._cell_path(maps.keep, out["cell_path"])
        at = spectral_at & ("spectral" in out) | ("frobenius_error" in out)
        most = self._most_steps() if at.any() else steps
        for start in range(0, steps, most):
            here = slice(start, min(start + most, steps))
            some = maps.each(lambda v, here=here: v[here])
            into = {name: values[here] for name, values in out.items()}
            if self.rows is not None or not self._quickly(some, into, at[here], over):
                self._slowly(some, into, at[here])
        self.steps += steps
        if self.steps >= self.look_at and left >= BLOCK_STEPS and not self.plan.sketches:
            self._drop()

    def _cell_path(self, keep: Array, out: Array) -> None:
        with np.errstate(divide="ignore"):
            logs = np.log(keep)
        logs[0] += self.log_path
        np.cumsum(logs, axis=0, out=logs)
        self.log_path = logs[-1]
        out[:] = np.logaddexp.reduce(2 * logs, axis=1) / (2 * math.log(10))

    def _most_steps(self) -> int:
        """Steps whose rows may be kept at once."""
        rows = self.plan.rows.stop - self.plan.rows.start
        columns = sum(part.shape[1] for part in self.parts)
        return max(1, KEPT_BYTES // (8 * rows * columns))

    def _quickly(self, maps: StepMaps, out: dict[str, Array], at: Array, over: Map) -> bool:
        """All steps by the compiled loop; False, and nothing done, if one needs scales per row."""
        before = [part.copy() for part in self.parts]
        # waking a thread for one part would take as long as a small block
        over = over if len(self.parts) > 1 else map
        parts = list(over(lambda part: self._part(part, maps, at), range(len(self.parts))))
        if any(part.taken < len(at) for part in parts):
            self.parts = before
            return False
        self.exponents = [part.exponent for part in parts]
        exponents = np.stack([part.exponents for part in parts])
        top = exponents.max(axis=0)
        scales = np.ldexp(1.0, (exponents - top).clip(-2000).astype(np.int32))
        scaled = list(zip(parts, scales, strict=True))
        sums = np.concatenate([part.sums * s[:, None] for part, s in scaled], axis=1)
        kept = [part.kept * s[at][:, None, None] for part, s in scaled] if at.any() else []
        squares = sum(part.squares * s**2 for part, s in scaled)
        hidden = sum(part.hidden * s**2 for part, s in scaled)
        read = _Read(np.sqrt(squares), np.sqrt(hidden), sums, kept, top)
        self._write(read, out, at, over)
        return True

    def _part(self, index: int, maps: StepMaps, at: Array) -> "_Part":
        J, rows, steps = self.parts[index], self.plan.rows, len(at)
        squares, hidden = np.zeros((2, steps))
        exponents, sums = np.zeros(steps, dtype=np.int64), np.empty((steps, J.shape[1]))
        kept = np.empty((at.sum(), rows.stop - rows.start, J.shape[1]))
        taken, exponent = _compiled.tangent_steps(
            self.cell.W, maps.mix, maps.keep, maps.through, J, self.exponents[index],
            rows.start, rows.stop, at, squares, hidden, exponents, sums, kept,
        )  # fmt: skip
        return _Part(taken, exponent, squares, hidden, exponents, sums, kept)

    def _slowly(self, maps: StepMaps, out: dict[str, Array], at: Array) -> None:
        """All steps with one scale per row; then back to the quick way if that can be."""
        rows = self._scaled()
        for t in range(len(at)):
            rows = scaled_step(maps.each(lambda v, t=t: v[t]), self.cell.W, rows)
            J, exponent = rows.read(self.plan.rows).aligned()
            path = rows.read(slice(2 * self.cell.hidden, None))
            hidden = path.log10_norm() if len(path.exponent) else -np.inf
            one = {name: values[t : t + 1] for name, values in out.items()}
            norm = np.array([np.linalg.norm(J)])
            read = _Read(norm, 0 * norm, J.sum(axis=0)[None], [J[None]], exponent)
            self._write(read, one, at[t : t + 1], map)
            if HIDDEN_PATH in out:
                out[HIDDEN_PATH][t] = hidden
        self.rows = rows
        some = rows.exponent[rows.exponent > ZERO // 2]
        if not len(some) or some.max() - some.min() < SPREAD_BACK:
            J, exponent = rows.aligned()
            self.rows = None
            self._set(J, int(exponent) if len(some) else 0)

    def _write(self, read: "_Read", out: dict[str, Array], at: Array, over: Map) -> None:
        if "frobenius" in out:
            out["frobenius"][:] = log10_of(read.norms, read.exponents)
        if HIDDEN_PATH in out:
            out[HIDDEN_PATH][:] = log10_of(read.hidden_norms, read.exponents)
        if "column_sum" in out:
            sums = read.sums if self.basis is None else read.sums @ self.basis.T
            out["column_sum"][:] = log10_of(np.abs(sums).mean(axis=1), read.exponents)
        if not at.any():
            return
        kept = np.concatenate(read.kept, axis=2)
        if "spectral" in out:
            norms = np.concatenate(list(over(spectral_norm, np.split(kept, len(kept)))))
            out["spectral"][at] = log10_of(norms, np.broadcast_to(read.exponents, at.shape)[at])
        if "frobenius_error" in out:
            estimate, out["frobenius_error"][:] = log10_norm_estimate(kept)
            out["frobenius"][:] = estimate + read.exponents * LOG10_2

    def _whole(self) -> tuple[Array, int]:
        """All columns at one power of two."""
        top = max(self.exponents)
        scaled = zip(self.parts, self.exponents, strict=True)
        return np.concatenate([np.ldexp(p, max(e - top, -2000)) for p, e in scaled], axis=1), top

    def _scaled(self) -> ScaledRows:
        return self.rows or ScaledRows.of(*self._whole())

    def _drop(self) -> None:
        """Leave the directions away on which no row depends any more."""
        rows = self._scaled()
        log10, V = _directions(rows.mantissa)
        left = max(1, int((log10 > LOG10_DROPPED).sum()))
        if left <= 0.95 * V.shape[1]:
            Q = V[:left].T
            self.basis = Q if self.basis is None else self.basis @ Q
            if self.rows is None:
                J, exponent = self._whole()
                self._set(J @ Q, exponent)
            else:
                self.rows = ScaledRows.of(rows.mantissa @ Q, rows.exponent)
        # singular values fall by so many decades per step: when will enough be too small?
        fallen = -log10[min(int(WORTH_DROPPING * left), len(log10) - 1)]
        ahead = self.steps * (-LOG10_DROPPED / max(fallen, 1e-3) - 1)
        self.look_at = self.steps + int(np.clip(ahead, BLOCK_STEPS, self.steps))


class _Part(NamedTuple):
    """The result of the compiled loop for some columns; see `_compiled.tangent_steps`."""

    taken: int
    exponent: int
    squares: Array
    hidden: Array
    exponents: Array
    sums: Array
    kept: Array


class _Read(NamedTuple):
    """Mantissas of what is read at some steps, and their exponents (t,) or ().

    norms (t,) and hidden_norms (t,); sums (t, k); kept: parts of (m, rows, columns).
    """

    norms: Array
    hidden_norms: Array
    sums: Array
    kept: list[Array]
    exponents: Array


def _directions(rows: Array) -> tuple[Array, Array]:
    """Orthonormal directions (r, k) of rows (n, k), the most important first.

    With each, log10 of the most that any row lacks without it and those after it, as a part of
    that row; log10 (r,). By way of a QR: a Gram matrix squares the condition, and would mix the
    directions of singular values below 1e-8 of the largest.
    """
    norms = np.linalg.norm(rows, axis=1)
    there = norms > 0
    R = np.linalg.qr(rows[there] / norms[there, None], mode="r") if there.any() else rows[:1]
    _, singular, V = np.linalg.svd(R, full_matrices=False)
    missing = np.cumsum(singular[::-1] ** 2)[::-1]  # of all rows together
    return 0.5 * np.log10(missing + 1e-200), V


def scaled_step(maps: StepMaps, W: Array, J: ScaledRows) -> ScaledRows:
    """One step with a scale per row; maps without an axis of steps."""
    H, lstm = len(maps.keep), len(maps.through) > 0
    dh, last = J.read(slice(0, H)), J.read(slice(H, 2 * H) if lstm else slice(0, H))
    if not lstm:
        return last.times(maps.keep) + dh.mixed_by(maps.mix, W)
    reached = dh.mixed_by(maps.mix[:-1], W[:-1])
    last = last.times(maps.keep) + reached
    parts = [last.times(maps.through) + dh.mixed_by(maps.mix[-1:], W[-1:]), last]
    if len(J.exponent) > 2 * H:
        parts.append(J.read(slice(2 * H, None)).times(maps.keep) + reached)
    return ScaledRows.join(*parts)


def curves_on_device(problem: Problem, plan: Plan) -> tuple[dict[str, Array], Array]:
    """The same in plain torch, and the examples that need a scale per row, whose values are wrong.

    No step is shared and no direction dropped: looking for them takes a GPU longer than the steps.
    """
    found = {name: np.full((problem.batch, problem.steps), np.nan) for name in plan.names}
    most = max(1, DEVICE_BYTES // (8 * 4 * plan.start.size))
    lost = []
    for examples in np.array_split(np.arange(problem.batch), -(-problem.batch // most)):
        run = _DeviceRun(problem, plan, examples)
        for start in range(0, problem.steps, BLOCK_STEPS):
            steps = slice(start, min(start + BLOCK_STEPS, problem.steps))
            for name, values in run.block(steps).items():
                found[name][examples, steps] = values.cpu().numpy()
        lost.append(run.lost.cpu().numpy())
    beyond = np.arange(problem.steps) >= problem.lengths.numpy()[:, None]
    for values in found.values():
        values[beyond] = np.nan
    return found, np.flatnonzero(np.concatenate(lost))


class _DeviceRun:
    """Some examples at once, with one power of two each; nothing waits for the device in a block.

    lost (b,): the examples that left the range in which that is exact.
    """

    def __init__(self, problem: Problem, plan: Plan, examples: Array) -> None:
        self.problem, self.plan, self.examples = problem, plan, examples
        device, layers = problem.inputs.device, range(plan.layer + 1)
        self.states = [[s[layer, examples] for s in problem.initial] for layer in layers]
        self.cell = problem.cells[plan.layer]
        self.W = self.cell.weight_hh.unflatten(0, (-1, problem.hidden))
        start = torch.from_numpy(plan.start).to(device)
        self.J = start.expand(len(examples), -1, -1).clone()
        self.exponent = torch.zeros(len(examples), dtype=torch.int64, device=device)
        self.log_path = torch.zeros(len(examples), problem.hidden, device=device).double()
        self.lost = torch.zeros(len(examples), dtype=torch.bool, device=device)

    def block(self, steps: slice) -> dict[str, Tensor]:
        """log10 by statistic of some steps, (b, t)."""
        maps = self._factors(steps).maps()
        rows = []
        for t in range(len(maps.keep)):
            self._step(maps.each(lambda v, t=t: v[t]))
            rows.append(self._read(bool(self.plan.spectral_at[steps.start + t])))
            shift = torch.frexp(self.J.abs().amax(dim=(1, 2)))[1]
            self.J = torch.ldexp(self.J, -shift[:, None, None])
            self.exponent += shift
        found = {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}
        if "cell_path" in self.plan.names:
            logs = maps.keep.log().cumsum(dim=0) + self.log_path
            self.log_path = logs[-1]
            found["cell_path"] = torch.logsumexp(2 * logs, dim=2).T / (2 * math.log(10))
        return found

    def _factors(self, steps: slice) -> Any:
        x = self.problem.inputs[self.examples, steps].double().transpose(0, 1)
        factors: Any = None
        for layer, states in enumerate(self.states):
            path = self.problem.cells[layer].run(x, *states)
            x, factors = path.states[0][1:], path.factors
            states[:] = [s[-1] for s in path.states]
            if not torch.isfinite(x.sum() + states[-1].sum() + factors[0].sum()):
                h, mix = (v.transpose(0, 1).cpu().numpy() for v in (x, factors[0]))
                last = states[-1].cpu().numpy()
                self.problem.refuse_overflow(h, mix, last, layer, self.examples, steps)
        return factors

    def _step(self, maps: StepMaps) -> None:
        H, lstm = maps.keep.shape[1], maps.through.shape[1] > 0
        inner = len(self.W) - 1 if lstm else len(self.W)
        dh, last = self.J[:, :H], self.J[:, H : 2 * H] if lstm else self.J
        reached = torch.einsum("bgi,gij->bij", maps.mix[:, :inner], self.W[:inner]) @ dh
        new = [torch.addcmul(reached, maps.keep[:, :, None], last)]
        if lstm:
            outer = (maps.mix[:, -1, :, None] * self.W[-1]) @ dh
            new.insert(0, torch.addcmul(outer, maps.through[:, :, None], new[0]))
        if self.J.shape[1] > 2 * H:
            new.append(torch.addcmul(reached, maps.keep[:, :, None], self.J[:, 2 * H :]))
        self.J = torch.cat(new, dim=1)
        sizes = torch.linalg.vector_norm(self.J, dim=2)
        used = ((maps.mix != 0).any(dim=1) | (maps.keep != 0)).repeat(1, sizes.shape[1] // H)
        used[:, 2 * H :] = False  # the hidden path begins with zeros
        small = (sizes < SMALL_ROW * sizes.amax(dim=1, keepdim=True)) & (used | (sizes > 0))
        self.lost |= small.any(dim=1) | ~torch.isfinite(sizes).all(dim=1)

    def _read(self, spectral: bool) -> dict[str, Tensor]:
        J, H = self.J[:, self.plan.rows], self.problem.hidden
        read = {
            "frobenius": torch.linalg.vector_norm(J, dim=(1, 2)),
            "column_sum": J.sum(dim=1).abs().mean(dim=1),
            HIDDEN_PATH: torch.linalg.vector_norm(self.J[:, 2 * H :], dim=(1, 2)),
        }
        if "spectral" in self.plan.names:
            nan = torch.full_like(read["frobenius"], torch.nan)
            read["spectral"] = torch.linalg.matrix_norm(J, ord=2) if spectral else nan
        scale = self.exponent.double() * LOG10_2
        return {n: v.log10() + scale for n, v in read.items() if n in self.plan.names}
