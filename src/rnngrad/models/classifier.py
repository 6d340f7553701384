"""A recurrent network that reads a comment and says how likely it is toxic."""

from typing import cast

from torch import Tensor, nn

from rnngrad.data.batches import Batch
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.ragged import last_hidden_states
from rnngrad.params import TrainParams

RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


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
