"""The curves of some examples: trajectory, tangents and what is read off them, step by step."""

from collections.abc import Iterator, Set
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe.paths import CellPath, log10_cell_path, log10_hidden_path
from rnngrad.probe.problem import Problem
from rnngrad.probe.sharing import Schedule, Segment
from rnngrad.probe.statistics import HIDDEN_PATH, record
from rnngrad.probe.tangents import Propagation
from rnngrad.probe.trajectory import BLOCK, LayerRun, one_steps, run_segments, trajectory_bytes


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

    def bytes_per_example(self, dtype: torch.dtype) -> tuple[int, int]:
        """Two buffers of tangents and one of matrices; these, a block's trajectory and factors."""
        rows, directions = self.start.shape[-2:]
        tangents = dtype.itemsize * rows * (2 * directions + self.problem.hidden)
        return tangents, tangents + 2 * trajectory_bytes(self.problem, BLOCK)


def curves_of(plan: Plan, schedule: Schedule, dtype: torch.dtype) -> dict[str, Tensor]:
    """(time, b) float64 per statistic, in the schedule's order, with tangents in `dtype`.

    NaN beyond an example's length.
    """
    run = _Run(plan, schedule, dtype)
    found = run.empty(schedule.steps, len(schedule.rows))
    for segment, blocks in run_segments(plan.problem, schedule, plan.layer):
        now = run.segment(segment, blocks)
        for name, values in found.items():
            values[segment.start : segment.stop, segment.served] = now[name][:, segment.served_by]
    return found


class _Run:
    """The examples of one schedule, each in its slot while it runs."""

    def __init__(self, plan: Plan, schedule: Schedule, dtype: torch.dtype) -> None:
        self.plan = plan
        start = plan.start if plan.start.dim() == 2 else plan.start[schedule.rows]
        cell = plan.problem.cells[plan.layer]
        self.tangents = Propagation(cell, start, len(schedule.rows), dtype)
        self.cell_path = CellPath(plan.problem.h[plan.layer, schedule.rows])

    def empty(self, steps: int, examples: int) -> dict[str, Tensor]:
        """NaN for every statistic, (steps, examples)."""
        like = self.cell_path.log
        return {name: like.new_full((steps, examples), torch.nan) for name in self.plan.names}

    def segment(self, segment: Segment, blocks: Iterator[LayerRun]) -> dict[str, Tensor]:
        """(time, slot) per statistic."""
        self.tangents.arrange(segment.source)
        self.cell_path.arrange(segment.source)
        found = self.empty(segment.stop - segment.start, len(segment.source))
        t = 0
        for block in blocks:
            steps = slice(t, t + len(block.x))
            here = {name: values[steps] for name, values in found.items()}
            self._block(block, here, segment.running[steps], segment.start + t)
            t += len(block.x)
        return found

    def _block(
        self, block: LayerRun, found: dict[str, Tensor], running: list[int], start: int
    ) -> None:
        """Write the rows of `found`, steps `start` and later."""
        log_product = self._cell_path(block, found, running) if "cell_path" in found else None
        for t, (n, one) in enumerate(zip(running, one_steps(block.cell, block.path), strict=True)):
            now = self.tangents.step(one, n)
            record(found, t, now, self.plan.rows, bool(self.plan.spectral_at[start + t]))
            if HIDDEN_PATH in found and log_product is not None:
                values = log10_hidden_path(now.read(self.plan.rows), log_product[t, :n])
                # at the first step exactly: no h that c_0 reaches has been read yet
                found[HIDDEN_PATH][t, :n] = values if start + t else -torch.inf

    def _cell_path(self, block: LayerRun, found: dict[str, Tensor], running: list[int]) -> Tensor:
        """Write it, and return the logs of its product (t, n, H)."""
        log_product = self.cell_path.advance(block.path.a)
        values = log10_cell_path(log_product)
        ended = torch.arange(values.shape[1]) >= torch.tensor(running).unsqueeze(1)
        found["cell_path"][:, : values.shape[1]] = values.masked_fill(
            ended.to(values.device), torch.nan
        )
        return log_product
