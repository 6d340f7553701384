"""What one step does to a small change of the state, and how fast that grows when repeated.

On padding the input is the same at every step. Around a state that no longer moves the one-step
Jacobian M = d s_t / d s_(t-1), s = h or (h, c), is the same at every step too, and M^n grows or
decays by log10 of M's spectral radius per step.

Of an LSTM with Keras' initial weights, at zero input and from the zero state, i = o = 1/2, f =
sigmoid(1), g = 0 and tanh' = 1, so that dc_t = (f I + i o W_g) dc_(t-1) = (0.731 I + 0.25 W_g)
dc_(t-1).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe.cells import STABLE, Cell
from rnngrad.probe.forward_pass import Trajectory
from rnngrad.study.evidence.stretches import Stretch

SETTLED = 1e-6  # the most that any entry of a state at rest still moves in a step


def one_step_jacobians(cell: Cell, path: Trajectory, t: int) -> Tensor:
    """d s_(t+1) / d s_t, t from 0, of every example: (b, S, S) float64, S = H or 2H for (h, c)."""
    one = cell.one_step(path, slice(t, t + 1), STABLE).at(0)
    w = cell.weight_hh.unflatten(0, (cell.gates, -1))
    H = w.shape[-1]
    S = H * len(cell.states)
    identity = torch.eye(S, dtype=w.dtype).expand(len(one.mix), S, S).contiguous()
    out = torch.empty_like(identity)
    cell.tangents(one, w, identity, out.new_empty(len(out), S, H), out)
    return out


def log10_spectral_radius(M: Tensor) -> float:
    """log10 of the largest |eigenvalue| of an (S, S) matrix."""
    return float(torch.linalg.eigvals(M).abs().max().log10())


def rate_at_zero_state(cell: Cell) -> float:
    """Decades per step that the step from the zero state predicts, the input being zero."""
    zero = cell.weight_hh.new_zeros(1, cell.weight_hh.shape[1])
    x = cell.weight_ih.new_zeros(1, 1, cell.weight_ih.shape[1])
    path = cell.run(x, zero, zero if "c" in cell.states else None)
    return log10_spectral_radius(one_step_jacobians(cell, path, 0)[0])


def rate_at_settled_state(cell: Cell, path: Trajectory, padding: Sequence[Stretch]) -> float:
    """Decades per step that the last steps of stretches of padding predict; mean over stretches.

    Examples may come to rest in different states, each of which has a rate of its own. NaN where
    one of them still moves.
    """
    rates: list[float] = []
    states: list[Tensor] = []
    for stretch in padding:
        example, last = stretch.example, stretch.stop - 1
        before, after = (_state(path, t, example) for t in (last, last + 1))
        if (after - before).abs().max() > SETTLED:
            return np.nan
        same = [k for k, s in enumerate(states) if (s - after).abs().max() < 10 * SETTLED]
        if same:
            rates.append(rates[same[0]])
        else:
            M = one_step_jacobians(cell, path, last)[example]
            rates.append(log10_spectral_radius(M))
        states.append(after)
    return float(np.mean(rates)) if rates else np.nan


def _state(path: Trajectory, t: int, example: int) -> Tensor:
    parts = (path.h,) if path.c is None else (path.h, path.c)
    return torch.cat([s[t, example] for s in parts])
