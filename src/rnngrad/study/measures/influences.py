"""Is what a gate blocks on the way forward blocked on the way back as well, and by as much?

Forward: the state s_k of a real trajectory is moved by eps |s_k| in a direction v. The module is
run on, and the move of a later state is read: |s_t' - s_t| / (eps |s_k|).
Backward: let u = (s_t' - s_t) / |s_t' - s_t|. One reverse pass gives u^T (d s_t/d s_k) v, the
gradient along the same two directions. As eps goes to 0 it is the forward influence.
Gates: |prod_j f_j * v| would be left if an LSTM's change never passed through h. A GRU has its
update gate for f, an RNN no gate. For an LSTM s is c, with h_k left as it was, otherwise h.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils._pytree import tree_map

import rnngrad
from rnngrad.study.measures.gates import memory_gate
from rnngrad.study.runs.open_model import Opened, State, state_after

LAGS = (1, 2, 5, 10, 20, 50, 100)
STARTS = 2  # steps k per comment
DIRECTIONS = 2  # per step k
SMALL, LARGE = 1e-3, 1.0  # eps, in parts of the norm of s_k


def influences(model: Opened) -> pd.DataFrame:
    """Forward influence of a state on later ones, beside the gradient and the product of gates.

    A row per perturbation (eps) and lag (t - k), over comments, steps k and random directions v, in
    float64. resolved: share of samples whose move stands clear of rounding; only these count.
    log10_*: medians, with u of the small move. *_difference: median distance from log10_forward.
    gates_correlation: Pearson's, of log10_gates and log10_forward.
    """
    _, module, _, inputs, start = model.double()
    module.requires_grad_(False)
    x, state = _samples(module, inputs.x, start)
    s_k = _s(state)
    generator = torch.Generator().manual_seed(model.run.inputs_seed)
    v = normalize(torch.randn(s_k.shape, generator=generator, dtype=torch.float64), dim=1)
    size = s_k.norm(dim=1)
    moved = {eps: _run(module, x, state, s_k + eps * size[:, None] * v) for eps in (SMALL, LARGE)}
    path = _run(module, x, state, s_k.requires_grad_())
    gates = x.new_full((x.shape[1], len(x)), torch.nan)  # an RNN has none
    if not isinstance(module, nn.RNN):
        gate = torch.from_numpy(memory_gate(rnngrad.trajectory(module, x, state)))
        gates = (gate.cumprod(dim=1) * v.unsqueeze(1)).norm(dim=2).T
    rows = []
    for t in (lag - 1 for lag in LAGS if lag <= len(path)):
        s_t = path[t].detach()
        u = normalize(moved[SMALL][t] - s_t, dim=1, eps=1e-300)
        # grad gets a scalar: with u as a cotangent torch would first import its symbolic shapes
        (back,) = torch.autograd.grad((path[t] * u).sum(), s_k, retain_graph=True)
        backward = (back * v).sum(dim=1).abs()
        for eps, there in moved.items():
            move = (there[t] - s_t).norm(dim=1)
            resolved = move > 1e-12 * s_t.norm(dim=1)  # below that it is mostly rounding
            sizes = (move / (eps * size), backward, gates[t])
            ahead, back, gate = (pd.Series(each[resolved].log10().numpy()) for each in sizes)
            row = {
                "perturbation": eps,
                "lag": t + 1,
                "resolved": resolved.double().mean().item(),
                "log10_forward": ahead.median(),
                "log10_backward": back.median(),
                "log10_gates": gate.median(),
                "backward_difference": (back - ahead).abs().median(),
                "gates_difference": (gate - ahead).abs().median(),
                "gates_correlation": gate.corr(ahead),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _samples(module: nn.RNNBase, x: Tensor, start: State) -> tuple[Tensor, State]:
    """Every comment from several steps k, once per direction: inputs, and the states before."""
    T = x.shape[1]
    reach = max(lag for lag in LAGS if lag <= T)
    begins = sorted({round(k) for k in np.linspace(0, T - reach, STARTS)})
    states = [state_after(module, x[:, :k], start) for k in begins]
    inputs = torch.cat([x[:, k : k + reach] for k in begins]).repeat(DIRECTIONS, 1, 1)
    return inputs, tree_map(lambda *s: torch.cat(s, dim=1).repeat(1, DIRECTIONS, 1), *states)


def _run(module: nn.RNNBase, x: Tensor, state: State, s_k: Tensor) -> list[Tensor]:
    """The states s (n, H) after each step, from s_k, through the module itself."""
    state, path = (state[0], s_k[None]) if isinstance(state, tuple) else s_k[None], []
    for x_t in x.split(1, dim=1):
        state = module(x_t, state)[1]
        path.append(_s(state))
    return path


def _s(state: State) -> Tensor:
    return (state[1] if isinstance(state, tuple) else state)[0]
