"""What reverse-mode autograd returns for the question's statistic, in a given dtype, at every step.

`autograd.grad(s_t.sum(), s_0)` followed by `.abs().mean()`, for all t in one backward sweep: no
scales, derivatives written from the outputs (1 - tanh^2, s (1 - s)), everything in the dtype asked
for. Below the smallest normal number a CPU either rounds to a multiple of the smallest subnormal
number (torch's default) or flushes to zero (TensorFlow's). Flushing is emulated here, after every
product: the processor's switch belongs to the user and need not reach all threads.
"""

import torch
from torch import Tensor

from rnngrad.probe.cells import AUTOGRAD, Cotangent, Settle, unsettled
from rnngrad.probe.trajectory import LayerRun


def naive_column_sums(run: LayerRun, state: str, *, flush: bool) -> Tensor:
    """mean_j |sum_i d s_t[i] / d s_0[j]| as autograd would give it, (time, b), in float64.

    `run` holds the trajectory in the dtype that is to be imitated.
    """
    steps, batch, hidden = run.path.h[1:].shape
    settle = flushed if flush else unsettled
    h = run.path.h.new_zeros(batch, steps, hidden)
    c = None if run.path.c is None else torch.zeros_like(h)
    seeds = [v for v, name in ((h, "h"), (c, "c")) if v is not None and state in (name, "full")]
    end = steps
    for t in reversed(range(steps)):
        for seed in seeds:
            seed[:, t] = 1
        end = _push_back(run, t, end, h, c, settle)
    values = torch.cat(seeds, dim=-1).double().abs().mean(dim=-1)
    return values.T


def _push_back(run: LayerRun, t: int, end: int, h: Tensor, c: Tensor | None, settle: Settle) -> int:
    """The cotangents of losses t .. end - 1 one step back; those from the new end on are zero."""
    one = run.cell.one_step(run.path, slice(t, t + 1), AUTOGRAD).at(0).each(settle)
    at = Cotangent(h[:, t:end], None if c is None else c[:, t:end])
    back = run.cell.cotangents(one, at, settle)[2]
    h[:, t:end] = settle(back.h)
    alive = (h[:, t:end] != 0).any(dim=-1)
    if c is not None and back.c is not None:
        c[:, t:end] = settle(back.c)
        alive |= (c[:, t:end] != 0).any(dim=-1)
    still = alive.any(dim=0).nonzero()
    return t + int(still[-1]) + 1 if len(still) else t


def flushed(x: Tensor) -> Tensor:
    """Zero wherever |x| is below the smallest normal number of its dtype."""
    return x.masked_fill(x.abs() < torch.finfo(x.dtype).tiny, 0.0)
