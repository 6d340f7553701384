"""The effect of one step on a small change of the state, and its growth when repeated.

On padding the input is zero at every step. Around a state that no longer moves the one-step
Jacobian M = d s_t / d s_(t-1), s = h or (h, c), is the same at every step too, and M^n grows or
decays by log10 of M's spectral radius per step.

Of an LSTM with Keras' initial weights, at zero input and from the zero state, i = o = 1/2, f =
sigmoid(1), g = 0 and tanh' = 1, so that dc_t = (f I + i o W_g) dc_(t-1) = (0.731 I + 0.25 W_g)
dc_(t-1).
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import rnngrad
from rnngrad.probe import Trajectory

SETTLED = 1e-6  # the most that any entry of a state at rest still moves in a step


def state_at(path: Trajectory, t: int) -> NDArray[np.float64]:
    """s after t steps, h or (h, c), of a trajectory's first example."""
    return np.concatenate([s[0, t] for s in (path.h, path.c) if s is not None])


def rate_at(module: nn.RNNBase, state: NDArray[np.float64]) -> float:
    """Decades per step that the step from a state s predicts, the input being zero."""
    parts = torch.from_numpy(state).view(-1, 1, 1, module.hidden_size)
    start = (parts[0], parts[1]) if len(parts) == 2 else parts[0]
    path = rnngrad.trajectory(module, parts.new_zeros(1, 1, module.input_size), start)
    return float(np.log10(np.abs(np.linalg.eigvals(next(path.jacobians(0)))).max()))


def rate_at_zero_state(module: nn.RNNBase) -> float:
    """Decades per step that the step from the zero state predicts, the input being zero."""
    states = 2 if isinstance(module, nn.LSTM) else 1
    return rate_at(module, np.zeros(states * module.hidden_size))


def rate_at_settled_state(
    module: nn.RNNBase, last_steps: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> float:
    """Decades per step that the last steps of stretches of padding predict; mean over stretches.

    Examples may come to rest in different states, each of which has a rate of its own. NaN where
    one of them still moves.

    Args:
        module: of one layer.
        last_steps: of every stretch, the states before and after its last step.
    """
    rates: list[float] = []
    states: list[NDArray[np.float64]] = []
    for before, after in last_steps:
        if np.abs(before - after).max() > SETTLED:
            return np.nan
        same = [k for k, s in enumerate(states) if np.abs(s - after).max() < 10 * SETTLED]
        rates.append(rates[same[0]] if same else rate_at(module, before))
        states.append(after)
    return float(np.mean(rates)) if rates else np.nan
