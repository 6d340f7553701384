"""The curves of some examples: trajectory, tangents and what is read off them, step by step."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe.blocks import advance
from rnngrad.probe.cells import STABLE
from rnngrad.probe.column_sums import CancelledSums
from rnngrad.probe.directions import taken_by_gate
from rnngrad.probe.paths import CellPath, log10_cell_path, log10_hidden_path
from rnngrad.probe.problem import Problem
from rnngrad.probe.sharing import Schedule, Segment
from rnngrad.probe.statistics import HIDDEN_PATH, record
from rnngrad.probe.sums_from_start import log10_sums_from_start
from rnngrad.probe.tangents import Propagation
from rnngrad.probe.trajectory import BLOCK, LayerRun, run_segments, trajectory_bytes


@dataclass(frozen=True)
class Plan:
    """What to compute."""

    problem: Problem
    layer: int
    rows: slice  # of the Jacobian that are read
    names: Set[str]
    start: Tensor  # (rows, k) or (batch, rows, k)
    spectral_at: np.ndarray  # (time,) bool

    @property
    def shares(self) -> bool:
        """May one example run for another? Not where each has directions of its own."""
        return self.start.dim() == 2

    @property
    def drops(self) -> bool:
        """May directions be dropped? A float64 module's tangents are to be exact to float64, and a
        sketch's directions are few already. On a GPU looking for them may take longer than all
        steps: 2 ms for a matrix of 100 (pytorch issue 174674)."""
        on_cpu = self.problem.inputs.device.type == "cpu"
        return on_cpu and self.problem.dtype != torch.float64 and self.start.dim() == 2

    def settles_sums(self, dtype: torch.dtype) -> bool:
        """Are column sums read off tangents that are not exact enough where signs cancel?"""
        return dtype == torch.float32 and "column_sum" in self.names

    def bytes_per_example(self, dtype: torch.dtype) -> tuple[int, int]:
        """Two buffers of tangents and one of matrices; these, a block's trajectory and factors."""
        rows, directions = self.start.shape[-2:]
        by_gate = taken_by_gate(directions, self.problem.cells[self.layer])
        matrix = 0 if by_gate else self.problem.hidden
        tangents = dtype.itemsize * rows * (2 * directions + matrix)
        return tangents, tangents + 2 * trajectory_bytes(self.problem, BLOCK)


class Curves(NamedTuple):
    """log10 by statistic, (time, b) float64, NaN beyond an example's length.

    unsettled: (b,) examples with a column sum that the tangents' dtype cannot tell.
    """

    found: dict[str, Tensor]
    unsettled: Tensor


def curves_of(plan: Plan, schedule: Schedule, dtype: torch.dtype) -> Curves:
    """The examples of a schedule, in its order, with tangents in `dtype`."""
    run = _Run(plan, schedule, dtype)
    found = run.empty(schedule.steps, len(schedule.rows))
    unsettled = torch.zeros(len(schedule.rows), dtype=torch.bool)
    for segment, blocks in run_segments(plan.problem, schedule, plan.layer):
        now = run.segment(segment, blocks)
        for name, values in found.items():
            values[segment.start : segment.stop, segment.served] = now.found[name][
                :, segment.served_by
            ]
        unsettled[segment.served] |= now.unsettled[segment.served_by]
    return Curves(found, unsettled)


class _Run:
    """The examples of one schedule, each in its slot while it runs."""

    def __init__(self, plan: Plan, schedule: Schedule, dtype: torch.dtype) -> None:
        self.plan, self.steps, self.rows = plan, schedule.steps, schedule.rows
        start = plan.start if plan.start.dim() == 2 else plan.start[schedule.rows]
        cell = plan.problem.cells[plan.layer]
        running, slots = int((schedule.branch == 0).sum()), len(schedule.rows)
        self.tangents = Propagation(cell, start, running, dtype, slots, plan.drops)
        self.cell_path = CellPath(plan.problem.h[plan.layer, schedule.rows])
        self.sums = None
        if plan.settles_sums(dtype):
            self.sums = CancelledSums(self.tangents, plan.rows, running)

    def empty(self, steps: int, examples: int) -> dict[str, Tensor]:
        """NaN for every statistic, (steps, examples)."""
        like = self.cell_path.log
        return {name: like.new_full((steps, examples), torch.nan) for name in self.plan.names}

    def segment(self, segment: Segment, blocks: Iterator[LayerRun]) -> Curves:
        """(time, slot) per statistic."""
        self.tangents.arrange(segment.source)
        self.cell_path.arrange(segment.source)
        if self.sums is not None:
            self.sums.arrange(segment.source)
        found = self.empty(segment.stop - segment.start, len(segment.source))
        lost = torch.zeros(segment.stop - segment.start, len(segment.source), dtype=torch.bool)
        t = 0
        for block in blocks:
            steps = slice(t, t + len(block.x))
            here = {name: values[steps] for name, values in found.items()}
            unsure = self._block(block, here, segment.running[steps], segment.start + t)
            lost[steps, : unsure.shape[1]] = unsure
            t += len(block.x)
            left = self.steps - segment.start - t
            self.tangents.compress(segment.running[t - 1], len(block.x), left)
        return Curves(found, self._settled_from_start(segment, found, lost))

    def _settled_from_start(
        self, segment: Segment, found: dict[str, Tensor], lost: Tensor
    ) -> Tensor:
        """Write the column sums that are lost (t, n); return (n,), where they stay so."""
        problem = self.plan.problem
        # more cotangents would take longer than the example's tangents in float64
        unsettled = lost.sum(dim=0) > problem.hidden // 2
        t, slots = (lost & ~unsettled).nonzero(as_tuple=True)
        if len(t):
            examples = self.rows[segment.examples][slots]
            sums = log10_sums_from_start(
                problem, self.plan.layer, self.plan.rows, examples, segment.start + t
            )
            found["column_sum"][t, slots] = sums
            unsettled[slots[~torch.isfinite(sums.cpu())]] = True
        return unsettled

    def _block(
        self, block: LayerRun, found: dict[str, Tensor], running: list[int], start: int
    ) -> Tensor:
        """Write the rows of `found`, steps `start` and later; return which column sums are lost."""
        factors = block.cell.one_step(block.path, slice(None), STABLE)
        log_product = None
        if "cell_path" in found and factors.keep is not None:
            log_product = self._cell_path(factors.keep, found, running)
        spectral_at = self.plan.spectral_at[start : start + len(running)]
        for steps, now in advance(self.tangents, factors, running):
            n = running[steps.start]
            record(found, steps, now, self.plan.rows, spectral_at[steps])
            if HIDDEN_PATH in found and log_product is not None:
                paths = log_product[steps, :n].flatten(0, 1)
                values = log10_hidden_path(now.read(self.plan.rows), paths)
                found[HIDDEN_PATH][steps, :n] = values.unflatten(0, (-1, n))
        if HIDDEN_PATH in found and not start:
            # exactly: no h that c_0 reaches has been read yet
            found[HIDDEN_PATH][0] = -torch.inf
        if self.sums is None:
            return torch.zeros(len(running), running[0], dtype=torch.bool)
        here = {name: values[:, : running[0]] for name, values in found.items()}
        return self.sums.settle(factors, running[-1], here)

    def _cell_path(self, f: Tensor, found: dict[str, Tensor], running: list[int]) -> Tensor:
        """Write it, and return the logs of its product (t, n, H), from the forget gates."""
        log_product = self.cell_path.advance(f)
        values = log10_cell_path(log_product)
        ended = torch.arange(values.shape[1]) >= torch.tensor(running).unsqueeze(1)
        found["cell_path"][:, : values.shape[1]] = values.masked_fill(
            ended.to(values.device), torch.nan
        )
        return log_product
