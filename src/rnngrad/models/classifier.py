"""A recurrent network that reads a comment and says how likely it is toxic."""

from typing import cast

import torch
from torch import Tensor, nn

from rnngrad.data.batches import Batch
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.shared_padding import State, run_layer, state_after_padding
from rnngrad.params import TrainParams

RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# Comments run together if none has fewer words than this share of the longest one's. A larger share
# saves padding, and needs more runs with few comments.
SIMILAR = 0.5


class CommentClassifier(nn.Module):
    """One recurrent layer, its hidden state at the last step, one logistic unit.

    Initial weights are drawn from torch's global generator: seed it first.

    Args:
        cell: ``rnn`` (tanh), ``lstm`` or ``gru``.
        features: D, the dimension of the word vectors.
        params: hidden size H and initialiser.
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

    def weights(self) -> dict[str, Tensor]:
        """The state dict on the CPU, ready for ``torch.save``."""
        return {name: cast("Tensor", value).cpu() for name, value in self.state_dict().items()}


def last_hidden_states(module: nn.RNNBase, batch: Batch) -> Tensor:
    """(B, H): each comment's h after its step ``lengths``, from the zero state.

    Equal to running the module over the whole batch with ``shared_prefix`` zeros in front.

    Args:
        module: one layer with ``batch_first=True``.
        batch: B comments.
    """
    counts, order = torch.sort(batch.lengths - batch.starts, descending=True, stable=True)
    # with padding in front, shorter comments begin later: each group goes on where the last began
    padded: State = ()
    passed, found = 0, []
    for rows in order.split(_similar(counts.tolist())):
        starts, lengths = batch.starts[rows], batch.lengths[rows]
        first = int(starts.min())
        steps = batch.shared_prefix + first
        padded, passed = state_after_padding(module, steps - passed, padded), steps
        state = tuple(part.expand(1, len(rows), -1).contiguous() for part in padded)
        h, _ = run_layer(module, batch.inputs[rows, first : int(lengths.max())], state)
        found.append(h[torch.arange(len(rows), device=h.device), lengths - first - 1])
    return torch.cat(found)[order.argsort()]


def _similar(counts: list[int]) -> list[int]:
    """The sizes of the groups of similar counts; the counts are in descending order."""
    sizes, longest = [0], counts[0]
    for count in counts:
        if count < SIMILAR * longest:
            longest = count
            sizes.append(0)
        sizes[-1] += 1
    return sizes
