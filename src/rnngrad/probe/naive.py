"""What reverse-mode autograd returns for the question's statistic, in a given dtype, at every step.

`autograd.grad(s_t.sum(), s_0)` followed by `.abs().mean()`, for all t in one backward sweep: no
scales, derivatives written from the outputs (1 - tanh^2, s (1 - s)), everything in the dtype asked
for. Below the smallest normal number a CPU either rounds to a multiple of the smallest subnormal
number (torch's default) or flushes to zero (TensorFlow's). Flushing is emulated here, after every
product: the processor's switch belongs to the user and need not reach all threads.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rnngrad.probe.cells import AUTOGRAD, Cotangent, OneStep, Settle, unsettled
from rnngrad.probe.trajectory import BLOCK, LayerRun

BEFORE, AFTER = 4, 28  # steps before and after a guess that are searched first


def naive_column_sums(
    run: LayerRun, state: str, *, flush: bool, at: Sequence[int] | None = None
) -> Tensor:
    """mean_j |sum_i d s_t[i] / d s_0[j]| as autograd would give it, (time, b), in float64.

    `run` holds the trajectory in the dtype that is to be imitated; `at` chooses steps (from 1,
    ascending), None means all. While all examples are alike (padding in front), one of them is
    swept for all.
    """
    wanted = list(range(1, len(run.path.a) + 1)) if at is None else list(at)
    settle, batch = flushed if flush else unsettled, run.x.shape[1]
    alike = bisect_right(wanted, _steps_alike(run))
    parts = []
    if alike:
        one = _swept(_first_example(run), state, settle, wanted[:alike], batch)
        parts.append(one.expand(-1, batch))
    if alike < len(wanted):
        parts.append(_swept(run, state, settle, wanted[alike:], 1))
    return torch.cat(parts)


def _steps_alike(run: LayerRun) -> int:
    """For how many steps do all examples have one initial state and one input?"""
    starts = [s[0] for s in (run.path.h, run.path.c) if s is not None]
    if any(bool((start != start[:1]).any()) for start in starts):
        return 0
    alike = (run.x == run.x[:, :1]).flatten(1).all(dim=1)
    return int(alike.cumprod(dim=0).sum())


def _first_example(run: LayerRun) -> LayerRun:
    first = {name: v[:, :1] for name, v in run.path._asdict().items() if v is not None}
    return LayerRun(run.cell, run.x[:, :1], run.path._replace(**first))


def _swept(run: LayerRun, state: str, settle: Settle, wanted: list[int], least: int) -> Tensor:
    """(wanted, b): one backward sweep, in which the loss of every wanted step joins at its step.

    `least`: losses per product, if need be with some that have not joined yet. A product of one row
    is summed in another order than autograd's of the batch, and that shows where float32 is stuck
    at its smallest subnormal numbers.
    """
    batch, hidden = run.path.h.shape[1:]
    h = run.path.h.new_zeros(batch, len(wanted), hidden)
    c = None if run.path.c is None else torch.zeros_like(h)
    cotangents = {name: v for name, v in (("h", h), ("c", c)) if v is not None}
    first = end = len(wanted)
    for t, one in _backward(run, wanted[-1], settle):
        if first and wanted[first - 1] == t + 1:
            first -= 1
            for name, v in cotangents.items():
                v[:, first] = 1.0 if state in (name, "full") else 0.0
        if first < end:
            _push_back(run, one, slice(min(first, max(end - least, 0)), end), h, c, settle)
        if t % BLOCK == 0:
            end = _alive(slice(first, end), h, c)
    chosen = [v for name, v in cotangents.items() if state in (name, "full")]
    return torch.cat(chosen, dim=-1).double().abs().mean(dim=-1).T


def _backward(run: LayerRun, steps: int, settle: Settle) -> Iterator[tuple[int, OneStep]]:
    """t and its derivative factors, t = steps - 1 .. 0, made in blocks."""
    for start in reversed(range(0, steps, BLOCK)):
        block = run.cell.one_step(run.path, slice(start, min(start + BLOCK, steps)), AUTOGRAD)
        block = block.each(settle)
        for t in reversed(range(len(block.mix))):
            yield start + t, block.at(t)


def _push_back(
    run: LayerRun, one: OneStep, losses: slice, h: Tensor, c: Tensor | None, settle: Settle
) -> None:
    """The cotangents of some losses one step back, in place."""
    at = Cotangent(h[:, losses], None if c is None else c[:, losses])
    back = run.cell.cotangents(one, at, settle)[2]
    h[:, losses] = settle(back.h)
    if c is not None and back.c is not None:
        c[:, losses] = settle(back.c)


def _alive(losses: slice, h: Tensor, c: Tensor | None) -> int:
    """The end of the losses that still have cotangents; those from there on are zero, and stay."""
    alive = (h[:, losses] != 0).any(dim=-1)
    if c is not None:
        alive |= (c[:, losses] != 0).any(dim=-1)
    still = alive.any(dim=0).nonzero()
    return losses.start + int(still[-1]) + 1 if len(still) else losses.start


def first_zero_step(run: LayerRun, state: str, near: int) -> int | None:
    """The first step from which autograd's result is zero in every entry, under flush-to-zero.

    Searched for around `near` first, where the true mean passes the smallest normal number: the
    largest entries follow it within some steps. The result is taken to stay zero once it is. None
    if it is not zero at the last step.
    """
    last = len(run.path.a)
    low, high = 0, last + 1  # not zero at low, zero at high
    at = list(range(max(near - BEFORE, 1), min(near + AFTER, last) + 1))
    while at:
        sums = naive_column_sums(run, state, flush=True, at=at)
        zero = dict(zip(at, (sums == 0).all(dim=1).tolist(), strict=True))
        low = max(low, *(step for step in at if not zero[step]), 0)
        high = min(high, *(step for step in at if zero[step] and step > low), high)
        at = sorted({low + (high - low) * k // 17 for k in range(1, 17)} - {low, high})
    return high if high <= last else None


def flushed(x: Tensor) -> Tensor:
    """Zero wherever |x| is below the smallest normal number of its dtype."""
    limits = torch.finfo(x.dtype)
    return torch.nn.functional.hardshrink(x, limits.tiny * (1 - limits.eps))
