"""A batch of comments of different lengths, without the steps in which a comment is only padded.

A packed sequence would do the same, but its backward pass on the CPU is slower than the padding.
Instead the comments, from the longest to the shortest, are cut into groups, and the steps into as
many segments: with padding in front a group joins the batch at its longest comment's first word,
with the state that the padding has led to; with padding behind it leaves after the last word.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.data.batches import Batch
from rnngrad.models.prefix import states_after_padding

State = tuple[Tensor, ...]  # h, and c for an LSTM, each (1, B, H)

# What one more call of the module costs on a CPU, in steps of one comment.
CALL_COST = 64.0


def last_hidden_states(module: nn.RNNBase, batch: Batch) -> Tensor:
    """(B, H): each comment's h after its step ``lengths``, from the zero state.

    Equal to running the module, which has one layer and ``batch_first=True``, over the whole batch
    with ``shared_prefix`` zeros in front. Only a comment's own zeros are left out: no comment may
    have some in front and others behind.
    """
    words = batch.lengths - batch.starts
    order = torch.argsort(words, descending=True, stable=True)
    # elsewhere than on a CPU a step costs the same for few comments and for many
    cost = CALL_COST if batch.inputs.device.type == "cpu" else float("inf")
    first = groups(words[order].tolist(), cost)
    pass_over = _joining if batch.shared_prefix or bool(batch.starts.any()) else _leaving
    hidden = pass_over(module, batch, order, first)
    return torch.empty_like(hidden).index_copy(0, order, hidden)


def groups(lengths: list[int], call_cost: float) -> list[int]:
    """Where to cut descending lengths: the positions at which a group begins, 0 first.

    A group costs its longest length for each member, and ``call_cost``; the sum is the smallest.
    """
    L = np.array(lengths)
    n = len(L)
    cost = np.zeros(n + 1)  # of the first 0 .. n comments
    first = np.zeros(n + 1, dtype=np.int64)  # where the last of their groups begins
    for end in range(1, n + 1):
        begin = np.arange(end)
        costs = cost[:end] + L[:end] * (end - begin) + np.where(begin, call_cost, 0.0)
        first[end] = costs.argmin()
        cost[end] = costs.min()
    cuts = [int(first[n])]
    while cuts[0]:
        cuts.insert(0, int(first[cuts[0]]))
    return cuts


def _joining(module: nn.RNNBase, batch: Batch, order: Tensor, first: list[int]) -> Tensor:
    inputs = batch.inputs[order]
    begins = batch.starts[order[first]].tolist()
    padded = states_after_padding(module, [batch.shared_prefix + begin for begin in begins])
    members = np.diff([*first, len(order)]).tolist()
    state = tuple(s.new_empty(1, 0, module.hidden_size) for s in padded)
    for group, (begin, end) in enumerate(pairwise([*begins, inputs.shape[1]])):
        joining = (s[group].expand(1, members[group], -1) for s in padded)
        state = tuple(torch.cat(pair, dim=1) for pair in zip(state, joining, strict=True))
        _, state = _run(module, inputs[: state[0].shape[1], begin:end], state)
    return state[0][0]


def _leaving(module: nn.RNNBase, batch: Batch, order: Tensor, first: list[int]) -> Tensor:
    inputs, last = batch.inputs[order], batch.lengths[order] - 1
    state: State | None = None
    begin, stop = 0, len(order)
    left: list[Tensor] = []
    for start in reversed(first):
        end = int(last[start]) + 1
        kept = None if state is None else tuple(s[:, :stop] for s in state)
        hidden, state = _run(module, inputs[:stop, begin:end], kept)
        left.insert(0, hidden[torch.arange(start, stop), last[start:stop] - begin])
        begin, stop = end, start
    return torch.cat(left)


def _run(module: nn.RNNBase, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
    start = state[0] if state is not None and len(state) == 1 else state
    hidden, end = module(inputs, start)
    return hidden, end if isinstance(end, tuple) else (end,)
