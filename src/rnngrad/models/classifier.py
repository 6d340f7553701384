"""A recurrent network that reads a comment and says how likely it is toxic."""

from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.classification import BinaryAccuracy

from rnngrad.data.datamodule import Batch
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.ragged import last_hidden_states
from rnngrad.params import TrainParams

RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class CommentClassifier(pl.LightningModule):
    """One recurrent layer, its hidden state at the last step, one logistic unit.

    Initial weights are drawn from torch's global generator: seed it first.

    Args:
        cell: ``rnn`` (tanh), ``lstm`` or ``gru``.
        features: D, the dimension of the word vectors.
        params: hidden size H, initialiser and learning rate.
    """

    def __init__(self, cell: str, features: int, params: TrainParams) -> None:
        super().__init__()
        self.recurrent: nn.RNNBase = RECURRENT[cell](features, params.hidden, batch_first=True)
        self.head = nn.Linear(params.hidden, 1)
        self.learning_rate = params.learning_rate
        if params.initializer == "keras":
            initialize_like_keras(self.recurrent, params.forget_bias)
            nn.init.xavier_uniform_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.train_accuracy = BinaryAccuracy()
        self.validation_accuracy = BinaryAccuracy()

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,) of a batch of B comments."""
        return self.head(last_hidden_states(self.recurrent, batch)).squeeze(-1)

    def training_step(self, batch: Batch) -> Tensor:
        return self._loss(batch, "train", self.train_accuracy)

    def validation_step(self, batch: Batch) -> None:
        self._loss(batch, "validation", self.validation_accuracy)

    def predict_step(self, batch: Batch) -> Tensor:
        """Probabilities (B,) of being toxic."""
        return self(batch).sigmoid()

    def _loss(self, batch: Batch, split: str, accuracy: BinaryAccuracy) -> Tensor:
        logits = self(batch)
        loss = binary_cross_entropy_with_logits(logits, batch.labels)
        accuracy(logits, batch.labels.long())
        B = len(batch.labels)
        self.log(f"{split}_loss", loss, on_step=False, on_epoch=True, batch_size=B)
        self.log(f"{split}_accuracy", accuracy, on_step=False, on_epoch=True, batch_size=B)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def weights(self) -> dict[str, Tensor]:
        """The state dict on the CPU, ready for ``torch.save``."""
        return {name: cast("Tensor", value).cpu() for name, value in self.state_dict().items()}
