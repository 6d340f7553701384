"""Stretches of words in test comments, and the states from which the models read them."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.shared_padding import state_after_padding
from rnngrad.params import EmbedParams
from rnngrad.study.gates import State

COMMENTS = 4
STEPS = 128  # few comments have more words, and 100 steps are to be seen from more than one start


class Passages(NamedTuple):
    """The same number of words of several comments, none of them padding.

    Attributes:
        padding: zero inputs that come first in every comment.
        before: (B, S, D) float32, what is read between those and the passage.
        inputs: (B, T, D) float32, the passage.
        labels: (B,) float32, 0 or 1.
    """

    padding: int
    before: Tensor
    inputs: Tensor
    labels: Tensor

    def start(self, module: nn.RNNBase) -> State:
        """The state (1, B, H), or a pair for an LSTM, before the passages' first word."""
        state = state_after_zeros(module, self.padding, len(self.inputs))
        with torch.no_grad():
            return module(self.before, state)[1] if self.before.shape[1] else state


def state_after_zeros(module: nn.RNNBase, steps: int, examples: int) -> State:
    """The state (1, B, H) of every example, or a pair, after the padding that all of them share."""
    with torch.no_grad():
        parts = state_after_padding(module, steps)
    h, *c = (part.expand(-1, examples, -1).contiguous() for part in parts)
    return (h, c[0]) if c else h


def read_passages(
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    embed: EmbedParams,
    comments: int = COMMENTS,
    steps: int = STEPS,
) -> Passages:
    """The shortest test comments that have ``steps`` words.

    With padding in front, their last words; otherwise their first ones, read from the zero state.
    Where there are not that many of the length, the longest ones, and as many steps as the shortest
    of them has.
    """
    test = sample.indices_of("test")
    lengths = np.minimum(sample.lengths[test], sample.max_length(embed.max_length))
    order = np.argsort(lengths, kind="stable")
    first = min(int((lengths < steps).sum()), max(len(test) - comments, 0))
    chosen = order[first : first + comments]
    T = min(steps, int(lengths[chosen].min()))
    front = embed.padding == "pre"
    batches = CommentBatches(
        sample,
        vectors,
        test[chosen],
        "pre" if front else "none",
        sample.max_length(embed.max_length),
    )
    batch = batches[list(range(len(chosen)))]
    begin = batch.inputs.shape[1] - T if front else 0
    return Passages(
        padding=batch.shared_prefix,
        before=batch.inputs[:, :begin],
        inputs=batch.inputs[:, begin : begin + T],
        labels=batch.labels,
    )


def some(state: State, examples: slice) -> State:
    """The states of some of the examples."""
    if isinstance(state, tuple):
        h, c = (s[:, examples].contiguous() for s in state)
        return h, c
    return state[:, examples].contiguous()


def in_float64(state: State) -> State:
    return (state[0].double(), state[1].double()) if isinstance(state, tuple) else state.double()
