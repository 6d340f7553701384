"""What reverse-mode autograd returns for the question's statistic, in a given dtype, at every step.

`autograd.grad(s_t.sum(), s_0)` followed by `.abs().mean()`, for all t in one backward sweep: no
scales, derivatives written from the outputs (1 - tanh^2, s (1 - s)), everything in the dtype asked
for. Below the smallest normal number a CPU either rounds to a multiple of the smallest subnormal
number (torch's default) or flushes to zero (TensorFlow's). Flushing is emulated here, after every
product: the processor's switch belongs to the user and need not reach all threads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rnngrad.probe.cells import AUTOGRAD, Cotangent, Settle, unsettled
from rnngrad.probe.trajectory import LayerRun

BEFORE, AFTER = 4, 28  # steps before and after a guess that are searched first


def naive_column_sums(
    run: LayerRun, state: str, *, flush: bool, at: Sequence[int] | None = None
) -> Tensor:
    """mean_j |sum_i d s_t[i] / d s_0[j]| as autograd would give it, (time, b), in float64.

    `run` holds the trajectory in the dtype that is to be imitated; `at` chooses steps (from 1,
    ascending), None means all.
    """
    steps, batch, hidden = run.path.h[1:].shape
    wanted = list(range(1, steps + 1)) if at is None else list(at)
    settle = flushed if flush else unsettled
    h = run.path.h.new_zeros(batch, len(wanted), hidden)
    c = None if run.path.c is None else torch.zeros_like(h)
    seeds = [v for v, name in ((h, "h"), (c, "c")) if v is not None and state in (name, "full")]
    first = end = len(wanted)
    for t in reversed(range(wanted[-1])):
        if first and wanted[first - 1] == t + 1:
            first -= 1
            for seed in seeds:
                seed[:, first] = 1
        end = _push_back(run, t, slice(first, end), h, c, settle)
    values = torch.cat(seeds, dim=-1).double().abs().mean(dim=-1)
    return values.T


def _push_back(
    run: LayerRun, t: int, losses: slice, h: Tensor, c: Tensor | None, settle: Settle
) -> int:
    """The cotangents of some losses one step back; those from the end returned on are zero."""
    one = run.cell.one_step(run.path, slice(t, t + 1), AUTOGRAD).at(0).each(settle)
    at = Cotangent(h[:, losses], None if c is None else c[:, losses])
    back = run.cell.cotangents(one, at, settle)[2]
    h[:, losses] = settle(back.h)
    alive = (h[:, losses] != 0).any(dim=-1)
    if c is not None and back.c is not None:
        c[:, losses] = settle(back.c)
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
    return x.masked_fill(x.abs() < torch.finfo(x.dtype).tiny, 0.0)
