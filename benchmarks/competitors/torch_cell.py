"""An LSTM step in plain torch operations, for torch.func."""

import torch
from torch import Tensor
from torch.func import jvp, vmap

from benchmarks.cases import Problem

Weights = tuple[Tensor, Tensor, Tensor]
State = tuple[Tensor, Tensor]


def weights_of(problem: Problem, dtype: torch.dtype = torch.float32) -> Weights:
    """W_ih (4H, D), W_hh (4H, H), b (4H,)."""
    arrays = (problem.weight_ih, problem.weight_hh, problem.bias)
    W_ih, W_hh, b = (torch.from_numpy(array).to(dtype) for array in arrays)
    return W_ih, W_hh, b


def projected(weights: Weights, x: Tensor) -> Tensor:
    """W_ih x + b of all steps: (..., D) to (..., 4H)."""
    return x @ weights[0].T + weights[2]


def step(weights: Weights, a: Tensor, h: Tensor, c: Tensor) -> State:
    """One step, from what the input brings a (..., 4H)."""
    i, f, g, o = (a + h @ weights[1].T).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def cell_states(weights: Weights, a: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """c at every step, time first; a (T, ..., 4H)."""
    states = []
    for a_t in a:
        h, c = step(weights, a_t, h, c)
        states.append(c)
    return torch.stack(states)


def advance(weights: Weights, a: Tensor, state: State, tangents: State) -> tuple[State, State]:
    """One step of the state and of all its tangents, (k, ..., H) each."""

    def one(dh: Tensor, dc: Tensor) -> State:
        return jvp(lambda h, c: step(weights, a, h, c), state, (dh, dc))[1]

    return step(weights, a, *state), vmap(one)(*tangents)
