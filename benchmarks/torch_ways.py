"""Plain torch's ways: a forward pass, the products alone, jacfwd, T backward passes.

All flush denormal numbers, as JAX and TensorFlow do; else some processors take ten times as long.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from benchmarks.turns import Found, Problem, Turn, one_by_one, timed

LAYERS = {4: nn.LSTM, 3: nn.GRU, 1: nn.RNN}  # by their number of gates
JACFWD_WORK = 5e9  # steps times batch times H^3 that one run may take; the rest is extrapolated
PRODUCTS, AT_ONCE = 20, 8  # steps and examples whose products stay in a cache


def layer_of(problem: Problem) -> tuple[nn.RNNBase, Tensor, Any]:
    """A layer, its inputs and its initial state, as a user calls it with."""
    H, (*weights, inputs, h, c) = problem.size[1], map(torch.from_numpy, problem)
    layer = LAYERS[len(problem.bias) // H](inputs.shape[2], H, batch_first=True)
    weights.append(torch.zeros_like(weights[-1]))  # torch has two bias vectors
    layer.load_state_dict(dict(zip(layer.state_dict(), weights, strict=True)))
    return layer, inputs, (h[None], c[None]) if isinstance(layer, nn.LSTM) else h[None]


def forward(problem: Problem) -> Turn:
    torch.set_flush_denormal(True)
    lstm, inputs, state = layer_of(problem)
    with torch.no_grad():
        return timed(lambda steps: (lstm(inputs[:, :steps], state), {})[1])


def products(problem: Problem) -> Turn:
    """A step of an example is one (2H, H) by (H, H) product if no direction is dropped."""
    T, H, B = problem.size
    examples = min(B, AT_ONCE)
    V, J, out = (np.ones((examples, rows, H)) for rows in (2 * H, H, 2 * H))

    def run(_: int | None) -> Found:
        for _ in range(PRODUCTS):
            np.matmul(V, J, out=out)  # by OpenBLAS, as in rnngrad
        return {}

    return timed(run, PRODUCTS * examples / (T * B))


def jacfwd_of_all_steps(problem: Problem) -> Turn:
    """Its Jacobians of all t at once; of the first steps where they are too many."""
    torch.set_flush_denormal(True)
    W_ih, W_hh, b, x, h_0, c_0 = map(torch.from_numpy, problem)
    T, H, B = problem.size
    part = min(T, max(20, int(JACFWD_WORK / (B * H**3))))

    def cell_states(a: Tensor, h: Tensor, c: Tensor) -> Tensor:
        states = []
        for a_t in a:
            h, c = lstm_step(a_t + h @ W_hh.T, c)
            states.append(c)
        return torch.stack(states)

    @torch.no_grad()
    def run(some: int | None) -> Found:
        steps = 1 if some else part
        J = vmap(jacfwd(cell_states, argnums=2))(x[:, :steps] @ W_ih.T + b, h_0, c_0)  # b, t, i, j
        # in two stages: float32's sum over all entries at once is 2e-5 off
        sizes = J.sum(dim=-2).abs().mean(dim=-1), J.norm(dim=-1).norm(dim=-1)
        column_sum, frobenius = (size.double().log10().numpy() for size in sizes)
        steps_run = np.arange(1, steps + 1)
        return {"column_sum": column_sum, "frobenius": frobenius, "steps": steps_run}

    return timed(run, part / T)


def backward_passes(problem: Problem) -> Turn:
    """The weight-gradient triangle: a backward pass for the loss at every t."""
    torch.set_flush_denormal(True)
    row = functools.cache(lambda: triangle_rows(problem, torch.float32))  # the forward pass once
    return one_by_one(row, lambda t: row()(t), problem.size[0])


def triangle_rows(problem: Problem, dtype: torch.dtype) -> Callable[[int], np.ndarray]:
    """By t: ||delta_s h_(s-1)^T|| of sum h_t for s = 1 .. t, by autograd, for one example."""
    W_ih, W_hh, b, x, h_0, c_0 = (torch.from_numpy(array).to(dtype) for array in problem)
    a_x, h, c = (x[0] @ W_ih.T + b).requires_grad_(), h_0[0], c_0[0]
    a, states = [], [h]
    for a_t in a_x:
        a.append(a_t + W_hh @ h)
        h, c = lstm_step(a[-1], c)
        states.append(h)

    def row(t: int) -> np.ndarray:
        delta = torch.autograd.grad(states[t].sum(), a[:t], retain_graph=True)
        norms = [torch.stack(v).norm(dim=1) for v in (delta, states[:t])]
        return (norms[0] * norms[1]).detach().double().numpy()

    return row


def lstm_step(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The new h and c from the pre-activations of all gates."""
    i, f, g, o = a.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
