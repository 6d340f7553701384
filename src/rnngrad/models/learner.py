"""A classifier with its loss, its optimiser and its metrics, for Lightning's trainer."""

from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAccuracy

from rnngrad.data.batches import Batch
from rnngrad.errors import InputError
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import TrainParams

SPLITS = ("train", "validation")
METRICS = {"loss": MeanMetric, "accuracy": BinaryAccuracy}


class Learner(pl.LightningModule):
    """Trains a :class:`CommentClassifier` of its own with Adam and the cross-entropy (nats).

    Args:
        cell, features, params: of the classifier; ``params`` also holds the learning rate.
    """

    def __init__(self, cell: str, features: int, params: TrainParams) -> None:
        super().__init__()
        self.classifier = CommentClassifier(cell, features, params)
        self.learning_rate = params.learning_rate
        self.metrics = torch.nn.ModuleDict(
            {f"{split}_{name}": METRICS[name]() for split in SPLITS for name in METRICS}
        )

    def training_step(self, batch: Batch) -> Tensor:
        loss = self._loss(batch, "train")
        if self.trainer.is_last_batch:
            self._log("train")
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Before Lightning clips: with an infinite norm that would leave nothing but NaN.

        Raises:
            InputError: a gradient is not finite.
        """
        gradients = [p.grad for p in self.classifier.parameters() if p.grad is not None]
        if not torch.isfinite(torch.stack([g.abs().amax() for g in gradients])).all():
            raise InputError(
                f"the gradient is beyond float32 in epoch {self.current_epoch + 1}: it explodes on "
                "its way back, or training diverges; set another forget_bias or initializer, "
                "embed.padding to none, or a smaller learning_rate"
            )

    def validation_step(self, batch: Batch) -> None:
        self._loss(batch, "validation")

    def on_validation_epoch_end(self) -> None:
        self._log("validation")

    def predict_step(self, batch: Batch) -> Tensor:
        """Probabilities (B,) of being toxic."""
        return self.classifier(batch).sigmoid()

    def _loss(self, batch: Batch, split: str) -> Tensor:
        logits = self.classifier(batch)
        loss = binary_cross_entropy_with_logits(logits, batch.labels)
        self._metric(split, "loss").update(loss.detach(), weight=len(batch.labels))
        self._metric(split, "accuracy").update(logits, batch.labels.long())
        return loss

    def _metric(self, split: str, name: str) -> Metric:
        return cast("Metric", self.metrics[f"{split}_{name}"])

    def _log(self, split: str) -> None:
        # once per epoch: Lightning's bookkeeping would take its time for every batch
        for name in METRICS:
            self.log(f"{split}_{name}", self._metric(split, name), on_step=False, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate, fused=True)
