"""Is what a gate blocks on the way forward blocked on the way back as well, and by as much?

Forward: the state s_k of a real trajectory is moved by a finite amount, eps |s_k| in a direction v;
the module is run on, and the move of a later state is read: |s_t' - s_t| / (eps |s_k|).
Backward: with u = (s_t' - s_t) / |s_t' - s_t|, one reverse pass through the module carries u from
s_t to s_k; u^T (d s_t/d s_k) v is the gradient along the same two directions. As eps goes to 0 it
is the forward influence, whatever the gates do.
Gates: |prod_j f_j * v|, what would be left if an LSTM's change never passed through h (GRU: update
gate; an RNN has none).

s is c for an LSTM, with h_k left as it was, and h otherwise.
"""

import copy
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import rnngrad
from rnngrad.study.inputs import Passages
from rnngrad.study.measures.gates import memory_gate
from rnngrad.study.open_model import State, in_float64

LAGS = (1, 2, 5, 10, 20, 50, 100)
STARTS = 2  # steps k per comment
DIRECTIONS = 2  # per step k
SMALL, LARGE = 1e-3, 1.0  # of the norm of s_k
# a move below this part of the later state is mostly rounding
RESOLVED = 1e-12

COLUMNS = [
    "perturbation",
    "lag",
    "resolved",
    "log10_forward",
    "log10_backward",
    "log10_gates",
    "backward_difference",
    "gates_difference",
    "gates_correlation",
]


def influences(module: nn.RNNBase, passages: Passages, start: State, seed: int) -> pd.DataFrame:
    """Forward influence of a state on later ones, beside the gradient and the product of gates.

    Args:
        module: of one layer and any dtype, left as it is; a copy runs in float64.
        passages, start: what it reads, and from which state.
        seed: of the random directions.

    Returns:
        One row per perturbation and lag, over comments, steps k and directions. Columns:
        perturbation (eps, relative to the norm of s_k); lag (t - k, steps); resolved (share of the
        samples whose move of s_t stands clear of float64's rounding; only these count);
        log10_forward, log10_backward, log10_gates (medians; u is taken of the small move for both
        perturbations); backward_difference, gates_difference (median distance of the logarithms
        from log10_forward, in decades); gates_correlation (Pearson's, of log10_gates and
        log10_forward). NaN where there is nothing to take it of.
    """
    module = copy.deepcopy(module).double().requires_grad_(False)
    samples = _samples(module, passages, start, seed)
    s_k = samples.moved_by(0.0).requires_grad_()
    path = _run(module, samples, s_k)
    moves = {eps: _moves(module, samples, eps, path) for eps in (SMALL, LARGE)}
    gates = _gate_products(module, samples)
    rows = []
    for t in (lag - 1 for lag in LAGS if lag <= len(path)):
        u = nn.functional.normalize(moves[SMALL][t], dim=1, eps=1e-300)
        # of a scalar: with u as a cotangent torch would first import its symbolic shapes
        (back,) = torch.autograd.grad((path[t] * u).sum(), s_k, retain_graph=True)
        backward = (back * samples.direction).sum(dim=1).abs()
        for eps, move in moves.items():
            size = move[t].norm(dim=1)
            resolved = size > RESOLVED * path[t].detach().norm(dim=1)
            sizes = (size / (eps * samples.size), backward, gates[t])
            rows.append({"perturbation": eps, "lag": t + 1} | _compared(*sizes, resolved))
    return pd.DataFrame(rows, columns=COLUMNS)


class _Samples(NamedTuple):
    """inputs (n, T, D), the state (1, n, H) before them, unit directions (n, H), all float64."""

    inputs: Tensor
    state: State
    direction: Tensor

    @property
    def moved_state(self) -> Tensor:
        return (self.state[1] if isinstance(self.state, tuple) else self.state)[0]

    @property
    def size(self) -> Tensor:
        """(n,): the norm of s_k."""
        return self.moved_state.norm(dim=1)

    def moved_by(self, eps: float) -> Tensor:
        """(n, H): s_k + eps |s_k| v."""
        return self.moved_state + eps * self.size.unsqueeze(1) * self.direction

    def state_with(self, s: Tensor) -> State:
        return (self.state[0], s.unsqueeze(0)) if isinstance(self.state, tuple) else s.unsqueeze(0)


def _samples(module: nn.RNNBase, passages: Passages, start: State, seed: int) -> _Samples:
    """Every comment from several steps k, each in several directions."""
    inputs, state = passages.x.double(), in_float64(start)
    T = inputs.shape[1]
    reach = max(lag for lag in LAGS if lag <= T)
    begins = sorted({round(k) for k in np.linspace(0, T - reach, STARTS)})
    found = [(inputs[:, k : k + reach], _state_at(module, inputs, state, k)) for k in begins]
    stretches, states = zip(*found, strict=True)
    generator = torch.Generator().manual_seed(seed)
    n = len(inputs) * len(begins) * DIRECTIONS
    direction = torch.randn(n, module.hidden_size, generator=generator, dtype=torch.float64)
    return _Samples(
        torch.cat(stretches).repeat(DIRECTIONS, 1, 1),
        _repeated(states),
        nn.functional.normalize(direction, dim=1),
    )


def _state_at(module: nn.RNNBase, inputs: Tensor, state: State, k: int) -> State:
    return module(inputs[:, :k], state)[1] if k else state


def _repeated(states: tuple[State, ...]) -> State:
    """The states of all steps k, repeated once per direction: (1, n, H)."""
    parts = zip(*(s if isinstance(s, tuple) else (s,) for s in states), strict=True)
    joined = [torch.cat(part, dim=1).repeat(1, DIRECTIONS, 1) for part in parts]
    return (joined[0], joined[1]) if len(joined) == 2 else joined[0]


def _run(module: nn.RNNBase, samples: _Samples, s_k: Tensor) -> list[Tensor]:
    """The states s (n, H) after each step, from s_k, through the module itself."""
    state, path = samples.state_with(s_k), []
    for x in samples.inputs.split(1, dim=1):
        state = module(x, state)[1]
        path.append((state[1] if isinstance(state, tuple) else state)[0])
    return path


@torch.no_grad()
def _moves(module: nn.RNNBase, samples: _Samples, eps: float, path: list[Tensor]) -> list[Tensor]:
    moved = _run(module, samples, samples.moved_by(eps))
    return [there - here for there, here in zip(moved, path, strict=True)]


def _gate_products(module: nn.RNNBase, samples: _Samples) -> Tensor:
    """(T, n): |prod_(j <= t) f_j * v|; NaN for an RNN."""
    n, T = samples.inputs.shape[:2]
    if isinstance(module, nn.RNN):
        return torch.full((T, n), torch.nan, dtype=torch.float64)
    path = rnngrad.trajectory(module, samples.inputs, samples.state)
    gates = torch.from_numpy(memory_gate(path))
    return (gates.cumprod(dim=1) * samples.direction.unsqueeze(1)).norm(dim=2).T


def _compared(
    forward: Tensor, backward: Tensor, gates: Tensor, resolved: Tensor
) -> dict[str, float]:
    ahead, back, gate = (
        pd.Series(size[resolved].log10().numpy()) for size in (forward, backward, gates)
    )
    return {
        "resolved": resolved.double().mean().item(),
        "log10_forward": ahead.median(),
        "log10_backward": back.median(),
        "log10_gates": gate.median(),
        "backward_difference": (back - ahead).abs().median(),
        "gates_difference": (gate - ahead).abs().median(),
        "gates_correlation": gate.corr(ahead),
    }
