"""A classifier with its loss, its optimiser and its metrics, for Lightning's trainer."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.classification import BinaryAccuracy

from rnngrad.data.batches import Batch
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import TrainParams


class Learner(pl.LightningModule):
    """Trains a :class:`CommentClassifier` of its own with Adam and the cross-entropy (nats).

    Args:
        cell, features, params: of the classifier; ``params`` also holds the learning rate.
    """

    def __init__(self, cell: str, features: int, params: TrainParams) -> None:
        super().__init__()
        self.classifier = CommentClassifier(cell, features, params)
        self.learning_rate = params.learning_rate
        self.train_accuracy = BinaryAccuracy()
        self.validation_accuracy = BinaryAccuracy()

    def training_step(self, batch: Batch) -> Tensor:
        return self._loss(batch, "train", self.train_accuracy)

    def validation_step(self, batch: Batch) -> None:
        self._loss(batch, "validation", self.validation_accuracy)

    def predict_step(self, batch: Batch) -> Tensor:
        """Probabilities (B,) of being toxic."""
        return self.classifier(batch).sigmoid()

    def _loss(self, batch: Batch, split: str, accuracy: BinaryAccuracy) -> Tensor:
        logits = self.classifier(batch)
        loss = binary_cross_entropy_with_logits(logits, batch.labels)
        accuracy(logits, batch.labels.long())
        B = len(batch.labels)
        self.log(f"{split}_loss", loss, on_step=False, on_epoch=True, batch_size=B)
        self.log(f"{split}_accuracy", accuracy, on_step=False, on_epoch=True, batch_size=B)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
