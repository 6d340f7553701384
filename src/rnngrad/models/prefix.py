"""The padding in front of a batch: the same zeros from the same zero state for every comment.

One example passes through it for the whole batch, with gradient, and not all of its steps need to
be run. Zero input repeats one map, whose state mostly settles: once it comes back to where it was,
up to rounding, the steps that follow are known. And backwards the cotangent mostly dies.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.models.backward import Backward, Fading, sum_of_rows
from rnngrad.models.recurrent import Steps, one_thread, steps_of, weights_of
from rnngrad.probe.products import Array
from rnngrad.probe.recurrence import Recurrence

# Steps between two looks at whether a state has come back, or a cotangent has died.
LOOK_EVERY = 32
# So many units of rounding at 1 apart, or at its size if it is larger, are no other state. Over
# LOOK_EVERY steps that is less than half a unit a step, which a steady drift would be rounded to.
ROUNDING = 4


def state_after_padding(module: nn.RNNBase, steps: int) -> Tensor | tuple[Tensor, Tensor]:
    """State (1, 1, H), or a pair for an LSTM, after ``steps`` zero inputs from the zero state.

    Differentiable with respect to the module's parameters; equal to running the module itself.
    """
    states = states_after_padding(module, steps_of(module), [steps])
    h, *c = (state[-1].view(1, 1, -1) for state in states)
    return (h, c[0]) if c else h


def states_after_padding(
    module: nn.RNNBase, known: Steps | None, steps: Sequence[int]
) -> tuple[Tensor, ...]:
    """h, and c for an LSTM, each (n, H), after each of n ascending numbers of zero inputs.

    Differentiable with respect to the module's parameters; equal to running the module itself.

    Args:
        module: one layer.
        known: ``steps_of(module)``; where that is None, the module is run.
        steps: the numbers.
    """
    if known is None:
        return _run_module(module, steps)
    parts = 2 if isinstance(module, nn.LSTM) else 1
    _, *weights = weights_of(module)
    states = cast("Tensor", _Padding.apply(known, parts, list(steps), *weights))
    return states.unbind(1)


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
        states: h, and c for an LSTM, each (n + 1, H), the zero state first.
        gates: (n, blocks H).
        period: the last state is the one that was ``period`` steps before; 0 where none came back.
    """

    states: list[Array]
    gates: Array
    period: int

    def positions(self, t: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in ``states`` the states after t steps are, whatever their number."""
        n = len(self.gates)
        return np.where(t < n, t, n - self.period + (t - n) % max(self.period, 1))


@one_thread
def _run(cell: Recurrence, steps: int, parts: int) -> _Path:
    """From the zero state; memory that no step gets to is not touched."""
    H = cell.W_T.shape[0]
    states = [np.empty((steps + 1, H), dtype=cell.b.dtype) for _ in range(parts)]
    gates = np.empty((steps, len(cell.b)), dtype=cell.b.dtype)
    for s in states:
        s[0] = 0
    for t in range(0, steps, LOOK_EVERY):
        period = _period([s[max(t - LOOK_EVERY, 0) : t + 1] for s in states])
        if period:
            return _Path([s[: t + 1] for s in states], gates[:t], period)
        stop = min(t + LOOK_EVERY, steps)
        gates[t:stop] = cell.b
        now = gates[t:stop, None]
        before, after = ([s[first:][: len(now), None] for s in states] for first in (t, t + 1))
        with np.errstate(over="ignore", invalid="ignore"):
            cell.steps(now, now, before, after)
    return _Path(states, gates, 0)


def _period(states: list[Array]) -> int:
    """How many steps before its last one a path has been there; 0 if it has not."""
    same = np.ones(len(states[0]) - 1, dtype=bool)
    for s in states:
        close = ROUNDING * np.finfo(s.dtype).eps * np.maximum(1, np.abs(s[-1]))
        same &= (np.abs(s[:-1] - s[-1]) <= close).all(axis=1)
    return len(same) - int(same.nonzero()[0][-1]) if same.any() else 0


class _Padding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: Steps, parts: int, steps: list[int], *weights: Tensor) -> Tensor:
        path = _run(known.forward, steps[-1], parts)
        ctx.save_for_backward(*weights)
        ctx.made = known.back, path, steps
        positions = path.positions(np.array(steps))
        return torch.from_numpy(np.stack([s[positions] for s in path.states], axis=1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # an error, if a weight has been changed since
        cell, path, steps = ctx.made
        back = _Back(cell, path)
        back.all_the_way(steps, gradients[0].numpy())
        delta, h = back.visits()
        sums = sum_of_rows(delta)
        return (
            *(None, None, None),
            cell.hidden_side.weight_gradient(delta, h),
            cell.input_side.bias_gradient(sums),
            cell.hidden_side.bias_gradient(sums),
        )


class _Back:
    """A cotangent on its way back along a path, and the cotangents of the gates it left there."""

    def __init__(self, cell: Backward, path: _Path) -> None:
        self.cell, self.path = cell, path
        behind, ahead = zip(*((s[:-1], s[1:]) for s in path.states), strict=True)
        self.factors = cell.factors(path.gates, behind, ahead)
        self.cotangent = [np.zeros_like(s[:1]) for s in path.states]
        self.visited: list[tuple[Array, NDArray[np.int64]]] = []

    def enter(self, cotangent: Array) -> None:
        """Add one of the states, (parts, H)."""
        for now, more in zip(self.cotangent, cotangent, strict=True):
            now += more

    @one_thread
    @np.errstate(over="ignore", invalid="ignore")  # what explodes is for the optimiser to refuse
    def all_the_way(self, steps: list[int], entering: Array) -> None:
        """To the zero state, with cotangents (n, parts, H) that enter after n numbers of steps."""
        for k in reversed(range(self.at_rest(steps, entering))):
            self.enter(entering[k])
            self.go(steps[k], steps[k - 1] if k else 0)

    def at_rest(self, steps: list[int], entering: Array) -> int:
        """How many cotangents, the earliest, are left when those that meet the same steps are done.

        Where the state is at rest, every step back is the same. Cotangents that enter there and die
        there leave what their sum leaves, wherever each of them enters.
        """
        rest = len(self.path.gates)
        early = int(np.searchsorted(steps, rest + LOOK_EVERY))
        if self.path.period != 1 or len(steps) - early < 2:
            return len(steps)
        self.enter(entering[early:].sum(axis=0))
        if self.go(steps[early], rest):
            return early
        self.visited.clear()
        for cotangent in self.cotangent:
            cotangent[:] = 0
        return len(steps)

    def go(self, after: int, before: int) -> bool:
        """From the state after ``after`` steps to the one after ``before``; zero if it dies.

        Returns:
            whether it did.
        """
        positions = self.path.positions(np.arange(before, after))
        delta = np.empty((after - before, self.path.gates.shape[1]), self.path.gates.dtype)
        fading = Fading()
        t, dead = after - before, fading.dead(self.cotangent)
        while t and not dead:
            stop = max(t - LOOK_EVERY, 0)
            for s in range(t - 1, stop - 1, -1):
                k = positions[s]
                one = tuple(v[k : k + 1] for v in self.factors)
                self.cell.back(one, self.cotangent, delta[s : s + 1])
            t, dead = stop, fading.dead(self.cotangent)
        if dead:
            for cotangent in self.cotangent:
                cotangent[:] = 0
        self.visited.append((delta[t:], positions[t:]))
        return dead

    def visits(self) -> tuple[Tensor, Tensor]:
        """Cotangents of the gates (k, blocks H) and h before the step (k, H), at all visits."""
        deltas, positions = zip(*self.visited, strict=True)
        h = self.path.states[0][np.concatenate(positions)]
        return torch.from_numpy(np.concatenate(deltas)), torch.from_numpy(h)
