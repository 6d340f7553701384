"""Forward: J_t = d s_t / d s_0 of every example at every t, and the statistics of J_t.

An example's steps are taken in blocks: first states and factors, then tangents, then a look at the
rank. Between blocks every row of J (state unit) has a power of two of its own. Within a block one
compiled loop has one for the whole matrix. A block in which a row could then underflow beside the
others is taken with a scale per row, in NumPy.

Python threads share examples and the columns of J. How these are cut depends on the problem alone,
so the bits are the same whatever the number of threads.
"""

import math
from collections.abc import Callable, Iterable, Sequence, Set
from copy import copy, deepcopy
from itertools import pairwise, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, linalg

from rnngrad.errors import check_memory
from rnngrad.probe import _compiled
from rnngrad.probe._problem import Problem, States
from rnngrad.probe._scaled import LOG10_2, ZERO, Array, ScaledRows, log10_of, times_power
from rnngrad.probe._settings import bar, stop_if_ended, threads
from rnngrad.probe._sharing import shared
from rnngrad.probe._statistics import HIDDEN_PATH, log10_norm_estimate, spectral_norm
from rnngrad.probe.cells import Cell, StepMaps

Map = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]

MAX_ENTRIES, MAX_STEPS = 2**21, 256  # limits of a block: its matrices' entries, its steps
BLOCK_STEPS = 32  # at least so many steps lie between two looks at the rank
PART_COLUMNS = 64  # at least so many columns in a part, 1.2 to 1.3 times as fast on two cores
SPECTRAL_PARTS = 4  # parts of a block's matrices that threads share
LOG10_DROPPED = -10  # dropped directions may take at most so small a part of each row
FEW_ENOUGH = 0.95  # directions are dropped only where at most this part of them remains
WORTH_LOOKING = 0.8  # the next look at the rank comes when about this part should remain
DEVICE_BYTES = 2**30  # for tangents, on other devices than the CPU
MAX_SPREAD = 400  # powers of two between rows: their squares could underflow


class Plan(NamedTuple):
    """The curves that are wanted.

    layer: whose state. rows: those read of [h; c; c less the cell path]. names: the statistics.
    start: d [h; c; ...]_0 / d (directions), (S, k), or (batch, S, k) for directions that differ.
    spectral_at: (time,) bool.
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


def curves(problem: Problem, plan: Plan) -> dict[str, Array]:
    """log10 by statistic, (batch, time); beyond an example's length it means nothing."""
    if problem.inputs.device.type == "cpu" or plan.sketches:
        return _Sweep(problem.on_cpu(), plan, np.arange(problem.batch)).curves()
    found, lost = _curves_on_device(problem, plan)
    if len(lost):
        for name, values in _Sweep(problem.on_cpu(), plan, lost).curves().items():
            found[name][lost] = values[lost]
    return found


class _Sweep:
    """Some examples of a problem on the CPU; `found` is written row by row."""

    def __init__(self, problem: Problem, plan: Plan, examples: Array) -> None:
        self.problem, self.plan, self.examples = problem, plan, examples
        self.found = {name: np.full((problem.batch, problem.steps), np.nan) for name in plan.names}
        self.sharing = shared(problem, examples[:0] if plan.sketches else examples)
        self.waiting: dict[int, tuple[States, Tangents]] = {}  # for examples that branch off
        entries = (plan.rows.stop - plan.rows.start) * plan.start.shape[-1]
        self.block = max(1, min(MAX_ENTRIES // entries, MAX_STEPS))

    def curves(self) -> dict[str, Array]:
        """log10 by statistic, (batch, time): leaders run first."""
        leader, branch = (each[self.examples] for each in self.sharing)
        leads, own = leader == self.examples, self.problem.lengths.numpy()[self.examples] - branch
        copies = np.stack((leader, branch))[:, ~leads & (own > 0)]
        waiting = 8 * np.unique(copies, axis=1).shape[1] * self.plan.start.size
        check_memory(waiting, "Jacobians where examples branch off need", "use fewer examples")
        leaders, others = self.examples[leads].tolist(), self.examples[~leads & (own > 0)].tolist()
        alone = len(leaders) == 1  # then threads share its columns
        steps = bar(total=int(own.sum()), desc="Jacobians", unit="step")
        with threads() as pool, steps as self.bar:
            over = repeat(pool.map if alone else map)
            list((map if alone else pool.map)(self.run, leaders, over))
            list(pool.map(self.run, others))
        for values in self.found.values():
            self.sharing.fill(values)
        return self.found

    def run(self, example: int, over: Map = map) -> None:
        """The steps that an example runs itself; `over` maps a function over parts of the work."""
        problem, (leader, branch) = self.problem, self.sharing
        states, tangents = self.waiting.pop(example, None) or (
            problem.start([example], self.plan.layer + 1),
            Tangents(problem.cells[self.plan.layer], self.plan, example),
        )
        follow = (leader == example) & (branch < problem.lengths.numpy())  # others never run
        length, followers = int(problem.lengths[example]), np.flatnonzero(follow)
        cuts = {int(branch[example]), *branch[followers].tolist(), length}
        for start, stop in pairwise(sorted(cuts)):
            for block in range(start, stop, self.block):
                steps = slice(block, min(block + self.block, stop))
                stop_if_ended()
                *_, (*_, maps) = problem.run([example], steps, states)
                out = {name: values[example, steps] for name, values in self.found.items()}
                at = self.plan.spectral_at[steps]
                tangents.advance(maps.each(itemgetter(0)), out, at, length - steps.stop, over)
                self.bar.update(steps.stop - block)
            for follower in followers[branch[followers] == stop].tolist():
                self.waiting[follower] = deepcopy(states), copy(tangents)


class Tangents:
    """J_t of one example: rows (state units) by k directions."""

    def __init__(self, cell: Cell, plan: Plan, example: int) -> None:
        self.cell, self.plan = cell, plan
        self.J = ScaledRows.of(plan.start[example] if plan.sketches else plan.start)
        self.basis: Array | None = None  # (directions, k), orthonormal; J is J basis^T where set
        self.log_path = np.zeros(cell.hidden)  # log of the product of the forget gates
        self.steps, self.look_at = 0, BLOCK_STEPS

    def advance(
        self, maps: StepMaps, out: dict[str, Array], spectral_at: Array, remaining: int, over: Map
    ) -> None:
        """Take a block, write the statistics into `out`, (t,) each, and look at the rank.

        remaining: steps that follow. over: a `map` of a function over parts of the columns. With
        the builtin `map` the columns stay together.
        """
        at = spectral_at & ("spectral" in out) | ("frobenius_error" in out)
        # log10 of norms (t,); times 2**exponents (t,): sums (t, k), and J (n, rows, k) where `at`
        read = self._quickly(maps, at, over) or self._slowly(maps, at)
        norm, hidden_norm, sums, J, exponents = read
        if "cell_path" in out:
            with np.errstate(divide="ignore"):
                logs = np.log(maps.keep).cumsum(axis=0) + self.log_path
            self.log_path = logs[-1]
            out["cell_path"][:] = np.logaddexp.reduce(2 * logs, axis=1) / (2 * math.log(10))
        for name, values in (("frobenius", norm), (HIDDEN_PATH, hidden_norm)):
            if name in out:
                out[name][:] = values
        if "column_sum" in out:
            sums = sums if self.basis is None else sums @ self.basis.T
            out["column_sum"][:] = log10_of(np.abs(sums).mean(axis=1), exponents)
        if "spectral" in out and at.any():
            # NumPy lets other threads run during the eigenvalues of many matrices, not of one
            norms = np.concatenate(list(over(spectral_norm, np.array_split(J, SPECTRAL_PARTS))))
            out["spectral"][at] = log10_of(norms, exponents[at])
        if "frobenius_error" in out:
            estimate, out["frobenius_error"][:] = log10_norm_estimate(J)
            out["frobenius"][:] = estimate + exponents * LOG10_2
        self.steps += len(at)
        if self.steps >= self.look_at and remaining >= BLOCK_STEPS and not self.plan.sketches:
            self._drop()

    def _quickly(self, maps: StepMaps, at: Array, over: Map) -> tuple[Array, ...] | None:
        """Take steps by the compiled loop; do nothing, return None if one needs scales per row."""
        there = self.J.exponent[self.J.exponent > ZERO // 2]
        if len(there) and np.ptp(there) > MAX_SPREAD:
            return None
        J, exponent = self.J.aligned()
        rows, count = self.plan.rows, 1
        if over is not map:
            count = 2 ** max(0, int(math.log2(J.shape[1] / PART_COLUMNS)))
        over = over if count > 1 else map  # waking a thread takes as long as a small block

        def advance(J: Array) -> tuple[Any, ...]:
            return _compiled.tangent_steps(
                self.cell.W, maps.mix, maps.keep, maps.through, np.ascontiguousarray(J),
                int(exponent), rows.start, rows.stop, at,
            )  # fmt: skip

        parts = list(over(advance, np.array_split(J, count, axis=1)))
        taken, J, exponents, squares, sums, kept, hidden = zip(*parts, strict=True)
        if min(taken) < len(at):
            return None
        top = np.max(exponents, axis=0)
        scales = times_power(np.ones(1), np.array(exponents) - top)
        self.J = ScaledRows.of(_side_by_side(J, scales[:, -1]), top[-1])
        norm, hidden_norm = (
            log10_of(np.sqrt((np.array(each) * scales**2).sum(axis=0)), top)
            for each in (squares, hidden)
        )
        sums = _side_by_side(sums, scales[:, :, None])
        return norm, hidden_norm, sums, _side_by_side(kept, scales[:, at, None, None]), top

    def _slowly(self, maps: StepMaps, at: Array) -> tuple[Array, ...]:
        """Take the same steps with one scale per row."""
        path = []
        for t in range(len(at)):
            self.J = scaled_step(maps.each(itemgetter(t)), self.cell.W, self.J)
            path.append(self.J)
        every = ScaledRows(*map(np.stack, zip(*path, strict=True)))
        own, beyond = every.read(self.plan.rows), every.read(slice(2 * self.cell.hidden, None))
        J, exponents = own.aligned()
        return own.log10_norm(), beyond.log10_norm(), J.sum(axis=1), J[at], exponents

    def _drop(self) -> None:
        """Leave the directions away on which no row depends any more."""
        norms = np.linalg.norm(self.J.mantissa, axis=1)
        there = norms > 0
        rows = self.J.mantissa[there] / norms[there, None] if there.any() else self.J.mantissa[:1]
        # a Gram matrix would mix the directions of singular values below 1e-8 of the largest
        R = np.linalg.qr(rows, mode="r")
        _, singular, V = np.linalg.svd(R, full_matrices=False)
        # the largest part that a row can lose without a direction and those after it
        missing = np.cumsum(singular[::-1] ** 2)[::-1]
        log10 = 0.5 * np.log10(missing + 1e-200)
        left = max(1, int((log10 > LOG10_DROPPED).sum()))
        if left <= FEW_ENOUGH * V.shape[1]:
            Q = V[:left].T
            self.basis = Q if self.basis is None else self.basis @ Q
            self.J = ScaledRows.of(self.J.mantissa @ Q, self.J.exponent)
        # singular values go on falling at their rate so far: when will enough be too small?
        fallen = -log10[min(int(WORTH_LOOKING * left), len(log10) - 1)]
        ahead = self.steps * (-LOG10_DROPPED / max(fallen, 1e-3) - 1)
        self.look_at = self.steps + int(np.clip(ahead, BLOCK_STEPS, self.steps))


def _side_by_side(parts: Sequence[Array], scales: Array) -> Array:
    return np.concatenate([p * s for p, s in zip(parts, scales, strict=True)], axis=-1)


def scaled_step(maps: StepMaps, W: Array, J: ScaledRows) -> ScaledRows:
    """One step with a scale per row; maps without an axis of steps."""
    H = len(maps.keep)
    dh, *dc = (J.read(slice(row, row + H)) for row in range(0, len(J.exponent), H))
    if not dc:
        return dh.times(maps.keep) + dh.mixed_by(maps.mix, W)
    reached = dh.mixed_by(maps.mix[:-1], W[:-1])
    dc = [own.times(maps.keep) + reached for own in dc]  # the second is less the cell path
    dh = dc[0].times(maps.through) + dh.mixed_by(maps.mix[-1:], W[-1:])
    return ScaledRows.join(dh, *dc)


def _curves_on_device(problem: Problem, plan: Plan) -> tuple[dict[str, Array], Array]:
    """Find the curves in plain torch, and the lost examples, whose values are wrong."""
    # no step is shared, no direction dropped: looking for them takes a GPU longer than the steps
    found = {name: np.full((problem.batch, problem.steps), np.nan) for name in plan.names}
    most = max(1, DEVICE_BYTES // (8 * 4 * plan.start.size))
    lost = []
    for first in range(0, problem.batch, most):
        examples = slice(first, min(first + most, problem.batch))
        run = _DeviceRun(problem, plan, examples)
        cuts = range(0, problem.steps, BLOCK_STEPS)
        blocks = [run.block(slice(t, min(t + BLOCK_STEPS, problem.steps))) for t in cuts]
        for name, values in found.items():
            values[examples] = torch.cat([block[name] for block in blocks], dim=1).cpu().numpy()
        lost.append(run.lost.cpu().numpy())
    return found, np.flatnonzero(np.concatenate(lost))


class _DeviceRun:
    """Some examples at once, with one power of two each; nothing waits for the device.

    All rows of J take their steps together, J = V dh + keep ds, with s the last of the states.
    """

    def __init__(self, problem: Problem, plan: Plan, examples: slice) -> None:
        self.problem, self.plan, self.examples = problem, plan, examples
        batch, H, device = examples.stop - examples.start, problem.hidden, problem.inputs.device
        layers = range(plan.layer + 1)
        self.states = [[s[layer, examples] for s in problem.initial] for layer in layers]
        self.parts = plan.start.shape[0] // H  # h; h and c; or h, c and the hidden path
        W = problem.cells[plan.layer].weight_hh.unflatten(0, (-1, H))
        self.W = W.transpose(0, 1).repeat(self.parts, 1, 1)  # (rows, G, H)
        self.J = torch.from_numpy(plan.start).to(device).expand(batch, -1, -1).clone()
        self.exponent = torch.zeros(batch, dtype=torch.int64, device=device)
        self.log_path = torch.zeros(batch, H, dtype=torch.float64, device=device)
        # examples that left the range in which that is exact, or overflowed
        self.lost = torch.zeros(batch, dtype=torch.bool, device=device)

    def block(self, steps: slice) -> dict[str, Tensor]:
        """log10 by statistic of some steps, (b, t)."""
        maps, H, names = self._maps(steps), self.problem.hidden, self.plan.names
        mix, keep = self._by_row(maps)
        sizes, sums, spectral, nan = [], [], [], torch.full_like(self.log_path[:, 0], torch.nan)
        # scaled first factors bring J to order 1; within a block it stays in range, or is lost
        top = self.J.abs().amax(dim=(1, 2))
        shift = torch.frexp(top)[1]
        self.exponent = self.exponent + shift
        scale = torch.ldexp(torch.ones_like(top), -shift)[:, None]
        mix[0] *= scale
        keep[0] *= scale
        for t, at in enumerate(self.plan.spectral_at[steps]):
            self._step(mix[t], keep[t])
            J = self.J[:, self.plan.rows]
            sizes.append(linalg.vector_norm(self.J, dim=2))
            if "column_sum" in names:
                sums.append(J.sum(dim=1))
            if "spectral" in names:
                # an SVD raises where an example is lost
                spectral.append(linalg.matrix_norm(J.nan_to_num(0, 0, 0), ord=2) if at else nan)
        size = torch.stack(sizes, dim=1)
        self._note_lost(maps, size)
        read = {
            "frobenius": linalg.vector_norm(size[..., self.plan.rows], dim=2),
            HIDDEN_PATH: linalg.vector_norm(size[..., 2 * H :], dim=2),
        }
        if sums:
            read["column_sum"] = torch.stack(sums, dim=1).abs().mean(dim=2)
        if spectral:
            read["spectral"] = torch.stack(spectral, dim=1)
        scale = self.exponent.double()[:, None] * LOG10_2
        found = {name: read[name].log10() + scale for name in names & {*read}}
        if "cell_path" in names:
            logs = maps.keep.log().cumsum(dim=0) + self.log_path
            self.log_path = logs[-1]
            found["cell_path"] = torch.logsumexp(2 * logs, dim=2).T / (2 * math.log(10))
        return found

    def _maps(self, steps: slice) -> StepMaps:
        x = self.problem.inputs[self.examples, steps].double().transpose(0, 1)
        maps: Any = None
        for layer, states in enumerate(self.states):
            path = self.problem.cells[layer].run(x, *states)
            x, maps = path.states[0][1:], path.factors.maps()
            states[:] = [s[-1] for s in path.states]
            for v in (x, states[-1][None], maps.mix.flatten(2)):
                self.lost |= ~torch.isfinite(v).all(dim=0).all(dim=-1)  # the CPU says at which step
        return maps

    def _by_row(self, maps: StepMaps) -> tuple[Tensor, Tensor]:
        """Spread maps over rows of J: what each W_g dh (t, rows, b, G) and ds (t, b, rows) give."""
        mix, keep = maps.mix, maps.keep
        if maps.through.shape[-1]:
            outer = torch.cat((maps.through[:, :, None] * mix[:, :, :-1], mix[:, :, -1:]), dim=2)
            inner = torch.cat((mix[:, :, :-1], torch.zeros_like(mix[:, :, -1:])), dim=2)
            rest = self.parts - 1
            mix = torch.cat((outer, *[inner] * rest), dim=3)
            keep = torch.cat((maps.through * keep, *[keep] * rest), dim=2)
        return mix.permute(0, 3, 1, 2).contiguous(), keep.contiguous()

    def _step(self, mix: Tensor, keep: Tensor) -> None:
        last, H, n = self.J, self.problem.hidden, min(self.parts, 2)
        V = torch.bmm(mix, self.W).transpose(0, 1)
        J = torch.bmm(V, last[:, :H])
        rows, keep = J.unflatten(1, (-1, H)), keep.unflatten(1, (-1, H))[..., None]
        rows[:, :n].addcmul_(keep[:, :n], last[:, None, (n - 1) * H : n * H])
        if self.parts > 2:
            rows[:, 2:].addcmul_(keep[:, 2:], last[:, None, 2 * H :])
        self.J = J

    def _note_lost(self, maps: StepMaps, sizes: Tensor) -> None:
        used = ((maps.mix != 0).any(dim=2) | (maps.keep != 0)).transpose(0, 1)
        used = used.repeat(1, 1, self.parts)
        used[..., 2 * self.problem.hidden :] = False  # the hidden path begins with zeros
        small = (sizes < 2.0**-MAX_SPREAD) & (used | (sizes > 0))
        self.lost |= (small | ~(sizes < 2.0**MAX_SPREAD)).any(dim=2).any(dim=1)
