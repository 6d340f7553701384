"""The padding in front of a batch: the same zeros from the same zero state for every comment.

One example passes through it for the whole batch, with gradient, and not all of its steps need to
be run. Zero input repeats one map, whose state mostly settles: once it comes back to where it was,
bit for bit, the steps that follow are known. And backwards the cotangent mostly dies.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.models.zero_input import GRU, LSTM, RNN, Array, Cell

# Steps between two looks at whether a state has come back, or a cotangent has died.
LOOK_EVERY = 32
# A cotangent that shrinks and has fallen by this factor is dead. Float32 resolves 1e-7 of the sum
# that it adds to; the rest is for the case that earlier steps would have let it grow again.
DEAD = 1e-20


def state_after_padding(module: nn.RNNBase, steps: int) -> Tensor | tuple[Tensor, Tensor]:
    """State (1, 1, H), or a pair for an LSTM, after ``steps`` zero inputs from the zero state.

    Differentiable with respect to the module's parameters; equal to running the module itself.
    """
    h, *c = (state[-1].view(1, 1, -1) for state in states_after_padding(module, [steps]))
    return (h, c[0]) if c else h


def states_after_padding(module: nn.RNNBase, steps: Sequence[int]) -> tuple[Tensor, ...]:
    """h, and c for an LSTM, each (n, H), after each of n ascending numbers of zero inputs.

    Differentiable with respect to the module's parameters; equal to running the module itself.
    """
    parameters = dict(module.named_parameters())
    weights = [parameters[name] for name in ("weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    kind = _closed_form(module)
    if kind is None or weights[0].device.type != "cpu":
        return _run_module(module, steps)
    states = cast("Tensor", _Padding.apply(*weights, kind, list(steps)))
    return states.unbind(1)


def _closed_form(module: nn.RNNBase) -> type[Cell] | None:
    if isinstance(module, nn.RNN):
        return RNN if module.nonlinearity == "tanh" else None
    return LSTM if isinstance(module, nn.LSTM) else GRU


def _run_module(module: nn.RNNBase, steps: Sequence[int]) -> tuple[Tensor, ...]:
    weight = next(module.parameters())
    zero = weight.new_zeros(1, 1, module.hidden_size)
    state = (zero, zero) if isinstance(module, nn.LSTM) else zero
    states = []
    for before, after in pairwise([0, *steps]):
        if after > before:
            state = module(weight.new_zeros(1, after - before, module.input_size), state)[1]
        states.append(state if isinstance(state, tuple) else (state,))
    return tuple(torch.cat(part, dim=1)[0] for part in zip(*states, strict=True))


class _Path(NamedTuple):
    """The steps that had to be run.

    Attributes:
        states: (n + 1, parts, H), the zero state first.
        gates: (n, g, H).
        period: the last state is the one that was ``period`` steps before; 0 where none came back.
    """

    states: Array
    gates: Array
    period: int

    def positions(self, t: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in ``states`` the states after t steps are, whatever their number."""
        n = len(self.gates)
        return np.where(t < n, t, n - self.period + (t - n) % max(self.period, 1))


def _run(cell: Cell, steps: int, H: int) -> _Path:
    states = np.empty((steps + 1, cell.parts, H), dtype=cell.W.dtype)
    gates = np.empty((steps, cell.gates, H), dtype=cell.W.dtype)
    states[0] = 0
    for t in range(0, steps, LOOK_EVERY):
        same = (states[max(t - LOOK_EVERY, 0) : t] == states[t]).all(axis=(1, 2))
        if same.any():
            return _Path(states[: t + 1], gates[:t], LOOK_EVERY - int(same.nonzero()[0][-1]))
        block = slice(t, t + LOOK_EVERY)
        for before, after, made in zip(states[block], states[t + 1 :], gates[block], strict=False):
            cell.step(before, after, made)
    return _Path(states, gates, 0)


class _Padding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, W_hh: Tensor, b_ih: Tensor, b_hh: Tensor, kind: type[Cell], steps: list[int]
    ) -> Tensor:
        ctx.save_for_backward(W_hh)
        ctx.cell = kind(*(p.detach().numpy() for p in (W_hh, b_ih, b_hh)))
        ctx.path = _run(ctx.cell, steps[-1], W_hh.shape[1])
        ctx.steps = steps
        return torch.from_numpy(ctx.path.states[ctx.path.positions(np.array(steps))])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cell: Cell = ctx.cell
        back = _Back(cell, ctx.path, ctx.saved_tensors[0].detach().numpy(), ctx.steps[-1])
        for before, after, entering in zip(
            [0, *ctx.steps][-2::-1], ctx.steps[::-1], gradients[0].numpy()[::-1], strict=True
        ):
            back.cotangent += entering
            back.go(after, before)
        delta, h = back.visits()
        hidden = delta[:, cell.hidden_side].reshape(-1, len(back.W_T[0]))
        sums = delta.sum(axis=0)
        b_ih, b_hh = (sums[side].reshape(-1) for side in (cell.input_side, cell.hidden_side))
        return (*map(torch.from_numpy, (hidden.T @ h, b_ih, b_hh)), None, None)


class _Back:
    """A cotangent on its way back along a path, and the cotangents of the gates it left there."""

    def __init__(self, cell: Cell, path: _Path, W: Array, steps: int) -> None:
        self.cell, self.states = cell, path.states
        self.factors = cell.factors(path.states, path.gates)
        self.W_T = np.ascontiguousarray(W.T)
        self.positions = path.positions(np.arange(steps))
        self.cotangent = np.zeros_like(path.states[0])
        self.delta = np.empty((steps, *path.gates.shape[1:]), dtype=W.dtype)
        self.visited: list[range] = []

    def go(self, after: int, before: int) -> None:
        """From the state after ``after`` steps to the one after ``before``; zero if it dies."""
        largest = size = self._size()
        t = after
        while t > before:
            stop = max(t - LOOK_EVERY, before)
            for s in range(t - 1, stop - 1, -1):
                self.cell.back(
                    self.factors, self.positions[s], self.W_T, self.cotangent, self.delta[s]
                )
            t, last, size = stop, size, self._size()
            largest = max(largest, size)
            if size <= DEAD * largest and size <= last:
                self.cotangent[:] = 0
                break
        self.visited.append(range(t, after))

    def _size(self) -> float:
        return float(np.abs(self.cotangent).max())

    def visits(self) -> tuple[Array, Array]:
        """Cotangents of the gates (k, g, H) and h before the step (k, H), at every step visited."""
        steps = np.concatenate([np.arange(r.start, r.stop) for r in self.visited])
        return self.delta[steps], self.states[self.positions[steps], 0]
