"""Run the layers of a problem, a few examples at a time, and keep what the one-step maps need."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rnngrad.errors import InputError
from rnngrad.probe.cells import STABLE, Cell, DerivativeForms, OneStep
from rnngrad.probe.forward_pass import Trajectory
from rnngrad.probe.problem import Problem
from rnngrad.probe.processor import bytes_at_once
from rnngrad.probe.sharing import Schedule, Segment

TRAJECTORY_BYTES = 256 * 2**20  # per chunk of examples
CHUNK_BYTES = 64 * 2**20  # of what else is held: with fewer examples at a time calls take longest
BLOCK = 32  # steps whose derivative factors are made at once
BLOCK_BYTES = 256 * 2**10  # as many times BLOCK as the trajectory of all examples fits into
# Fewer steps where they take more per thread: in fresh memory out of cache they would take twice as
# long.
MOST_BYTES, FEWEST = 3 * 2**20, 4


@dataclass(frozen=True)
class Chunk:
    """Some examples of a problem, longest first, and how many of them are still running at t."""

    rows: Tensor  # (b,) positions in the problem's batch
    lengths: Tensor  # (b,) descending

    @property
    def steps(self) -> int:
        return int(self.lengths[0])

    def running(self) -> list[int]:
        """How many examples have a step t, for t = 0 .. steps - 1."""
        longer = self.lengths.unsqueeze(0) > torch.arange(self.steps).unsqueeze(1)
        return longer.sum(dim=1).tolist()


def chunks(problem: Problem, layers: int, bytes_per_example: int) -> Iterator[Chunk]:
    """The batch in chunks of similar length that fit the memory they are given.

    `bytes_per_example`: what the caller holds per example besides the trajectory of `layers`
    layers; on a CPU the chunk aims at 64 MiB of that.
    """
    most = bytes_at_once(problem.inputs.device, CHUNK_BYTES)
    order = torch.argsort(problem.lengths, descending=True, stable=True)
    start = 0
    while start < len(order):
        steps = int(problem.lengths[order[start]])
        size = min(
            max(1, TRAJECTORY_BYTES // (layers * trajectory_bytes(problem, steps))),
            max(1, most // bytes_per_example),
        )
        rows = order[start : start + size]
        yield Chunk(rows, problem.lengths[rows])
        start += size


def trajectory_bytes(problem: Problem, steps: int) -> int:
    """Float64 trajectory of one example and layer: a (gates), q or c, h, and the layer's input."""
    return 8 * steps * ((problem.cells[0].gates + 3) * problem.hidden + problem.inputs.shape[2])


class LayerRun(NamedTuple):
    """One layer, its input (t, b, d) and what it went through."""

    cell: Cell
    x: Tensor
    path: Trajectory


def run_layers(
    problem: Problem, chunk: Chunk, last: int, dtype: torch.dtype = torch.float64
) -> Iterator[LayerRun]:
    """Layers 0 .. last in turn, in `dtype`.

    Raises:
        InputError: the forward pass overflows in float64. In a narrower dtype it may; that is for
            the caller to judge.
    """
    x = problem.inputs[chunk.rows, : chunk.steps].to(dtype).transpose(0, 1)
    for layer, cell in enumerate(problem.cells[: last + 1]):
        cell = in_dtype(cell, dtype)
        h = problem.h[layer, chunk.rows].to(dtype)
        c = None if problem.c is None else problem.c[layer, chunk.rows].to(dtype)
        path = cell.run(x, h, c)
        if dtype == torch.float64:
            _check_overflow(path, layer, 0, chunk.rows, chunk.lengths)
        yield LayerRun(cell, x, path)
        x = path.h[1:]


def run_segments(
    problem: Problem, schedule: Schedule, layer: int
) -> Iterator[tuple[Segment, Iterator[LayerRun]]]:
    """Layer `layer` of the examples in their slots, a few steps at a time, in float64.

    Examples that are not running when the few steps begin are left out; one that ends on the way is
    run on over its padding. The blocks of a segment must be used up before the next segment.

    Raises:
        InputError: the forward pass overflows.
    """
    h = problem.h[: layer + 1, schedule.rows]
    c = None if problem.c is None else problem.c[: layer + 1, schedule.rows]
    for segment in schedule.segments():
        h = h[:, segment.source]
        c = None if c is None else c[:, segment.source]
        yield segment, _run_blocks(problem, schedule.rows[segment.examples], segment, h, c)


def _run_blocks(
    problem: Problem, rows: Tensor, segment: Segment, h: Tensor, c: Tensor | None
) -> Iterator[LayerRun]:
    """The last of the layers that h and c (layer, n, H) are of; they are moved on in place."""
    start = segment.start
    while start < segment.stop:
        n = segment.running[start - segment.start]
        steps = slice(start, min(start + _most(problem, n), segment.stop))
        now = h[:, :n], None if c is None else c[:, :n]
        yield deque(run_block(problem, rows[:n], steps, *now), maxlen=1).pop()
        start = steps.stop


def _most(problem: Problem, n: int) -> int:
    """Steps of n examples to take together."""
    bytes_of_block = n * trajectory_bytes(problem, BLOCK)
    most = bytes_at_once(problem.inputs.device, MOST_BYTES * torch.get_num_threads())
    if bytes_of_block > most:
        return max(FEWEST, BLOCK * most // bytes_of_block)
    return BLOCK * max(1, BLOCK_BYTES // bytes_of_block)


def run_block(
    problem: Problem, rows: Tensor, steps: slice, h: Tensor, c: Tensor | None
) -> Iterator[LayerRun]:
    """As many layers as h and c (layer, n, H) are of, in turn, over a few steps of n examples.

    h and c are moved on in place.
    """
    x = problem.inputs[rows, steps].double().transpose(0, 1)
    for layer, cell in enumerate(problem.cells[: len(h)]):
        path = cell.run(x, h[layer], None if c is None else c[layer])
        _check_overflow(path, layer, steps.start, rows, problem.lengths[rows])
        h[layer] = path.h[-1]
        if c is not None and path.c is not None:
            c[layer] = path.c[-1]
        yield LayerRun(cell, x, path)
        x = path.h[1:]


def _check_overflow(
    path: Trajectory, layer: int, start: int, rows: Tensor, lengths: Tensor
) -> None:
    """The path begins at step `start`; padding beyond an example's length may hold anything."""
    parts = [v for v in (path.a, path.h, path.c) if v is not None]
    # one inf or NaN would be left in the sum
    if torch.isfinite(torch.stack([v.sum() for v in parts]).sum()):
        return
    bad = _overflown(path.a) | _overflown(path.h[1:])
    if path.c is not None:
        bad |= _overflown(path.c[1:])
    if not bad.any():
        return
    bad &= torch.arange(start, start + len(bad)).unsqueeze(1) < lengths.unsqueeze(0)
    if not bad.any():
        return
    t, k = bad.nonzero()[0].tolist()
    raise InputError(
        f"the forward pass overflows float64 in layer {layer}, example {int(rows[k])}, "
        f"step {start + t + 1} (steps from 1): there is no state to take a derivative of; "
        "scale weights, inputs or initial state down"
    )


def _overflown(x: Tensor) -> Tensor:
    """(t, b): is any unit inf or NaN? Without a copy of x."""
    low, high = x.aminmax(dim=-1)
    return ~(torch.isfinite(low) & torch.isfinite(high)).cpu()


def run_layer(
    problem: Problem, chunk: Chunk, layer: int, dtype: torch.dtype = torch.float64
) -> LayerRun:
    """Layer `layer` alone: of the lower ones only the outputs are kept, while they are needed."""
    return deque(run_layers(problem, chunk, layer, dtype), maxlen=1).pop()


def in_dtype(cell: Cell, dtype: torch.dtype) -> Cell:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return replace(cell, **{name: getattr(cell, name).to(dtype) for name in names})


def one_steps(cell: Cell, path: Trajectory, forms: DerivativeForms = STABLE) -> Iterator[OneStep]:
    """The derivative factors of every step in turn, made in blocks."""
    for start in range(0, len(path.a), BLOCK):
        block = cell.one_step(path, slice(start, start + BLOCK), forms)
        for t in range(len(block.mix)):
            yield block.at(t)
