"""The ways of torch: rnngrad, a plain forward, the products alone, jacfwd, autograd."""

from collections.abc import Callable
from timeit import repeat

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacfwd, vmap

import rnngrad
from benchmarks.cases import Problem
from benchmarks.competitors import FLOOR, PROBE, UNIT, Curves, Turn, first_steps, one_by_one

STATISTICS = ("frobenius", "column_sum")
State = tuple[Tensor, ...]
CACHE_BYTES = 8 * 2**20  # tangents that are multiplied at once
WARM = 64  # steps
# Steps times batch times H^3 that one run may take; the rest is extrapolated.
PRODUCTS_WORK, JACFWD_WORK = 7e10, 5e9


def turns(problem: Problem) -> dict[str, Callable[[], Turn]]:
    """By competitor: what takes a turn of it.

    All but rnngrad flush denormal numbers, as JAX and TensorFlow do anyway; else some processors
    take ten times as long.
    """
    T, H, B = problem.case
    some = [min(T, max(20, int(w / (B * H**3)))) for w in (PRODUCTS_WORK, JACFWD_WORK)]
    product, by_jacfwd = products(problem, some[0]), trajectory(problem, some[1])
    lstm, inputs, state = lstm_of(problem), torch.from_numpy(problem.inputs), state_of(problem)

    # what libraries do once is done before
    curves(lstm, inputs[:, :WARM], state)
    forward(lstm, inputs[:, :WARM], state)
    trajectory(problem, 1)()

    def probe() -> Turn:
        torch.set_flush_denormal(False)
        try:
            return first_steps(lambda: curves(lstm, inputs, state), T, T)
        finally:
            torch.set_flush_denormal(True)

    torch.set_flush_denormal(True)
    return {
        PROBE: probe,
        UNIT: lambda: first_steps(lambda: forward(lstm, inputs, state), T, T),
        FLOOR: lambda: first_steps(product, some[0], T),
        "jacfwd": lambda: first_steps(by_jacfwd, some[1], T),
        "autograd": lambda: one_by_one(*autograd(problem), T),
    }


def lstm_of(problem: Problem) -> nn.LSTM:
    lstm = nn.LSTM(problem.inputs.shape[2], problem.h.shape[1], batch_first=True)
    values = [*map(torch.from_numpy, problem[:3]), torch.zeros(len(problem.bias))]
    with torch.no_grad():
        for parameter, value in zip(lstm.parameters(), values, strict=True):
            parameter.copy_(value)
    return lstm


def state_of(problem: Problem) -> tuple[Tensor, Tensor]:
    """h_0 and c_0 as a module of one layer takes them: (1, B, H)."""
    return torch.from_numpy(problem.h).unsqueeze(0), torch.from_numpy(problem.c).unsqueeze(0)


def curves(
    module: nn.RNNBase, inputs: Tensor, state: State, statistics: tuple[str, ...] = STATISTICS
) -> Curves:
    lstm = isinstance(module, nn.LSTM)
    start = (state[0], state[1]) if lstm else state[0]
    found = rnngrad.jacobian_curves(
        module, inputs, start, state="c" if lstm else "h", statistics=statistics
    )
    return Curves(found.log10_column_sum, found.log10_frobenius, found.log10_spectral)


def forward(lstm: nn.LSTM, inputs: Tensor, state: State) -> Curves:
    with torch.no_grad():
        lstm(inputs, state)
    return Curves()


def products(problem: Problem, steps: int) -> Callable[[], Curves]:
    """A step of an example is one (2H, H) by (H, H) product if no direction is dropped.

    NumPy's and torch's products differ in rate, by machine; the better one counts.
    """
    _, H, B = problem.case
    at_once = min(B, max(1, CACHE_BYTES // (8 * H * H)))
    V, J, out = (np.ones((at_once, rows, H)) for rows in (2 * H, H, 2 * H))
    V_t, J_t, out_t = map(torch.from_numpy, (V, J, out))
    ways = (
        lambda n: np.matmul(V[:n], J[:n], out=out[:n]),
        lambda n: torch.bmm(V_t[:n], J_t[:n], out=out_t[:n]),
    )
    product = min(ways, key=lambda way: min(repeat(lambda: way(at_once), number=1, repeat=20)))

    def run() -> Curves:
        for start in range(0, B, at_once):
            for _ in range(steps):
                product(min(at_once, B - start))
        return Curves()

    return run


def trajectory(problem: Problem, steps: int) -> Callable[[], Curves]:
    """jacfwd of all first steps at once."""
    W_ih, W_hh, b, x, h_0, c_0 = map(torch.from_numpy, problem)

    def example(a: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return jacfwd(lambda c_0: cell_states(W_hh, a, h, c_0))(c)

    def run() -> Curves:
        with torch.no_grad():
            J = vmap(example)(x[:, :steps] @ W_ih.T + b, h_0, c_0)  # (b, t, i, j)
        column_sum = J.sum(dim=-2).abs().mean(dim=-1)
        # in two stages: float32's sum over all entries at once is 2e-5 off
        frobenius = torch.linalg.vector_norm(torch.linalg.vector_norm(J, dim=-1), dim=-1)
        return Curves(*(size.double().log10().numpy() for size in (column_sum, frobenius)))

    return run


def autograd(problem: Problem) -> tuple[Callable[[], None], Callable[[int], Curves]]:
    """The forward pass once, then `autograd.grad` of the sum of c_t, for one t after another."""
    W_ih, W_hh, b, x, h, c = map(torch.from_numpy, problem)
    c = c.clone().requires_grad_()
    states: list[Tensor] = []

    def once() -> None:
        states[:] = cell_states(W_hh, (x @ W_ih.T + b).transpose(0, 1), h, c).unbind()

    def at(t: int) -> Curves:
        (gradient,) = torch.autograd.grad(states[t - 1].sum(), c, retain_graph=True)
        return Curves(gradient.abs().mean(dim=1, keepdim=True).double().log10().numpy())

    return once, at


def cell_states(W_hh: Tensor, a: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """c at every step, time first; a (T, ..., 4H) is what the inputs bring."""
    states = []
    for a_t in a:
        i, f, g, o = (a_t + h @ W_hh.T).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(c)
    return torch.stack(states)
