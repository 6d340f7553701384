"""A recurrent network that reads a comment and says how likely it is toxic."""

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from rnngrad.data.batches import Batch
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.shared_padding import run_layer, state_after_padding
from rnngrad.params import TrainParams

RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# A comment runs with one that is longer by so many steps at most, which cost about one more call.
STEPS_APART = 16


class CommentClassifier(nn.Module):
    """One recurrent layer over D features, its hidden state at the last step, one logistic unit.

    Initial weights are drawn from torch's global generator: seed it first.
    """

    def __init__(self, cell: str, features: int, params: TrainParams) -> None:
        super().__init__()
        self.recurrent: nn.RNNBase = RECURRENT[cell](features, params.hidden, batch_first=True)
        self.head = nn.Linear(params.hidden, 1)
        if params.initializer == "keras":
            initialize_like_keras(self.recurrent, params.forget_bias)
            nn.init.xavier_uniform_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,) of a batch of B comments."""
        return self.head(last_hidden_states(self.recurrent, batch)).squeeze(-1)


def last_hidden_states(module: nn.RNNBase, batch: Batch) -> Tensor:
    """(B, H): each comment's h after its step ``lengths``, from the zero state.

    Equal to running the module, of one layer, over the batch with ``shared_prefix`` zeros in front.
    The comments all begin together, or all end together.
    """
    words, order = torch.sort(batch.lengths - batch.starts, descending=True, stable=True)
    counts, lengths = words.tolist(), batch.lengths[order]

    def longer(one: int, other: int) -> int:
        return one if counts[one] - counts[other] <= STEPS_APART else other

    longest = [*accumulate(range(len(counts)), longer)]  # for each comment, the one it runs with
    begins, ends = batch.starts[order][longest], lengths[longest]
    padded = state_after_padding(module, batch.shared_prefix)
    state = tuple(part[:, :0] for part in padded)
    passed, found = 0, []
    # with padding in front, shorter comments join the longer ones; without, they leave them
    for first, last in pairwise(torch.cat([begins, ends]).unique().tolist()):
        rows = int(((begins <= first) & (last <= ends)).sum())
        joining = rows - state[0].shape[1]
        if joining > 0:
            padded, passed = state_after_padding(module, first - passed, padded), first
            new = (part.expand(1, joining, -1) for part in padded)
            state = tuple(torch.cat(parts, dim=1) for parts in zip(state, new, strict=True))
        state = tuple(part[:, :rows].contiguous() for part in state)
        h, state = run_layer(module, batch.inputs[order[:rows], first:last], state)
        read = (lengths[:rows] <= last).nonzero().squeeze(1)
        if len(read):
            found.append(h[read, lengths[read] - first - 1])
    return torch.cat(found[::-1])[order.argsort()]
