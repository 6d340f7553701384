"""A recurrent layer over rows that begin at different steps and end together, with its gradient.

Rows that have not begun cost nothing. Step t has the first counts[t] rows of the batch, and no step
has fewer than the one before. The rows of all steps stand one below the other:

    words, gates    those of step 0, of step 1, ...                         (N, ...)
    states          those before step 0, before step 1, ..., after the last (N + rows, H)

so that the states after a step are the first of those before the next, and a row that begins
brings its own. Inputs are given as rows of a table, because words come again: each input meets the
weights once, forward and back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from rnngrad.models import backward
from rnngrad.models.backward import Backward, Fading, sum_of_rows
from rnngrad.probe import recurrence
from rnngrad.probe.products import Array
from rnngrad.probe.recurrence import Recurrence, States

# NumPy's threads and torch's disturb each other, and a step is too small for two: it takes one, and
# the products of all steps are torch's.
one_thread = ThreadpoolController().wrap(limits=1, user_api="blas")
# Rows whose factors are made at once: few enough to stay in cache, enough to be worth the calls.
BLOCK_ROWS = 64
LOOK_EVERY = 16  # steps between two looks at whether the cotangents have died

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
CELLS = {  # by torch's name for the module's mode
    "RNN_TANH": (recurrence.RNN, backward.RNN),
    "GRU": (recurrence.GRU, backward.GRU),
    "LSTM": (recurrence.LSTM, backward.LSTM),
}


class Steps(NamedTuple):
    """The step of a cell with its present weights, forward and back."""

    forward: Recurrence
    back: Backward


def steps_of(module: nn.RNNBase, rows: int = 1) -> Steps | None:
    """Those of a module with one layer on the CPU; None where only the module itself knows them.

    Args:
        module: its weights are read here.
        rows: the most rows of a step.
    """
    W_ih, W_hh, b_ih, b_hh = weights_of(module)
    if W_hh.device.type != "cpu" or module.mode not in CELLS:
        return None
    forward, back = CELLS[module.mode]
    arrays = (p.detach().numpy() for p in (W_ih, W_hh, b_ih, b_hh))
    return Steps(forward(*arrays, rows=rows), back(W_hh.detach().numpy()))


def weights_of(module: nn.RNNBase) -> list[nn.Parameter]:
    """W_ih, W_hh, b_ih, b_hh of the one layer."""
    parameters = dict(module.named_parameters())
    return [parameters[name] for name in WEIGHTS]


@dataclass(frozen=True)
class Rows:
    """Which rows run when.

    Args:
        counts: (T,) int64, rows of each step, none fewer than before.
    """

    counts: NDArray[np.int64]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(T + 1,) where each step's rows begin, and where the last states do."""
        return np.concatenate(([0], np.cumsum(self.counts)))

    @cached_property
    def step(self) -> NDArray[np.int64]:
        """(N,) the step of each row."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def member(self) -> NDArray[np.int64]:
        """(N,) which row of the batch it is."""
        return np.arange(self.starts[-1]) - self.starts[self.step]

    @property
    def first(self) -> NDArray[np.int64]:
        """(rows,) where the batch's rows begin."""
        members = np.arange(self.counts[-1])
        return self.starts[np.searchsorted(self.counts, members, side="right")] + members

    @property
    def after(self) -> NDArray[np.int64]:
        """(N,) where the states after each row's step stand."""
        return self.starts[self.step + 1] + self.member

    def stretches(self) -> Iterator[tuple[int, int, int]]:
        """Steps of equally many rows: how many rows, where they begin, where they end."""
        more = np.flatnonzero(np.diff(self.counts, prepend=0))
        ends = self.starts[[*more, len(self.counts)]].tolist()
        yield from zip(self.counts[more].tolist(), ends, ends[1:], strict=False)

    def blocks(self) -> list[list[tuple[int, int]]]:
        """The rows of each step, as many steps together as BLOCK_ROWS holds."""
        found: list[list[tuple[int, int]]] = []
        for start, stop in pairwise(self.starts.tolist()):
            if not found or stop - found[-1][0][0] > BLOCK_ROWS:
                found.append([])
            found[-1].append((start, stop))
        return found


def last_hidden_states_of_rows(
    module: nn.RNNBase,
    steps: Steps,
    rows: Rows,
    vectors: Tensor,
    words: Tensor,
    initial: Sequence[Tensor],
) -> Tensor:
    """(rows, H): h after the last step.

    Differentiable with respect to the module's parameters and the initial states.

    Args:
        module: one layer on the CPU.
        steps: its own, for as many rows.
        rows: which run when.
        vectors: (d, D), the different inputs.
        words: (N,) int64, which of them each row of each step reads.
        initial: h, and c of an LSTM, each (rows, H), before a row's first step.
    """
    return _Recurrent.apply(steps, rows, vectors, words, *weights_of(module), *initial)


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, steps: Steps, rows: Rows, vectors: Tensor, words: Tensor, *more: Tensor
    ) -> Tensor:
        initial = more[len(WEIGHTS) :]
        W_ih, b = (torch.from_numpy(v) for v in (steps.forward.W_ih, steps.forward.b))
        gates = torch.addmm(b, vectors, W_ih.T).index_select(0, words)
        states = [s.new_empty(len(words) + len(s), s.shape[1]) for s in initial]
        for path, state in zip(states, initial, strict=True):
            path[torch.from_numpy(rows.first)] = state
        run(steps.forward, gates.numpy(), [s.numpy() for s in states], rows)
        ctx.save_for_backward(*more[: len(WEIGHTS)])
        ctx.made = steps.back, rows, vectors, words, gates, states
        return states[0][len(words) :]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # an error, if a weight has been changed since
        cell, rows, vectors, words, gates, states = ctx.made
        cotangent = [gradients[0].clone(), *(torch.zeros_like(gradients[0]) for _ in states[1:])]
        arrays = ([v.numpy() for v in part] for part in (states, cotangent))
        delta = torch.from_numpy(run_back(cell, gates.numpy(), rows, *arrays))
        reached = slice(len(words) - len(delta), len(words))
        by_word = delta.new_zeros(len(vectors), delta.shape[1])
        by_word.index_add_(0, words[reached], delta)
        sums = sum_of_rows(by_word)
        found = (
            cell.input_side.weight_gradient(by_word, vectors),
            cell.hidden_side.weight_gradient(delta, states[0][reached]),
            cell.input_side.bias_gradient(sums),
            cell.hidden_side.bias_gradient(sums),
        )
        return (None, None, None, None, *found, *cotangent)


@one_thread
def run(cell: Recurrence, gates: Array, states: States, rows: Rows) -> None:
    """All steps forward: gates (N, blocks H) hold the input part before and the gates after."""
    with np.errstate(over="ignore", invalid="ignore"):
        for n, start, stop in rows.stretches():
            now = gates[start:stop].reshape(-1, n, gates.shape[1])
            before, after = (
                [s[first : first + stop - start].reshape(len(now), n, -1) for s in states]
                for first in (start, start + n)
            )
            cell.steps(now, now, before, after)


@one_thread
@np.errstate(over="ignore", invalid="ignore")  # what explodes is for the optimiser to refuse
def run_back(cell: Backward, gates: Array, rows: Rows, states: States, cotangent: States) -> Array:
    """All steps back: the cotangent (rows, H) of the last states becomes that of the initial ones.

    Returns:
        da (n, blocks H) of the last n rows. That of the others is zero: no cotangent reached them.
    """
    delta, after = np.empty_like(gates), rows.after
    fading, looked = Fading(), len(rows.counts)
    for block in reversed(rows.blocks()):
        first, last = block[0][0], block[-1][1]
        step, n = rows.step[last - 1], block[-1][1] - block[-1][0]
        if looked - step >= LOOK_EVERY:
            looked, alive = step, [c[:n] for c in cotangent]
            if fading.dead(alive):
                for c in alive:
                    c[:] = 0
                return delta[last:]
        behind = [s[after[first:last]] for s in states]
        factors = cell.factors(gates[first:last], [s[first:last] for s in states], behind)
        for start, stop in reversed(block):
            one = tuple(v[start - first : stop - first] for v in factors)
            cell.back(one, [c[: stop - start] for c in cotangent], delta[start:stop])
    return delta
