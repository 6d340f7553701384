"""Train one model with Lightning; an interrupted training goes on from where it stopped."""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits
from tqdm import tqdm

from rnngrad.data.batches import Batch, CommentBatches, load_embedding
from rnngrad.data.tokenized import SPLITS
from rnngrad.errors import InputError, needs
from rnngrad.live import live_run
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import TrainParams
from rnngrad.workers import worker_number

with needs("study"):
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import Callback, ModelCheckpoint
    from torchmetrics import MeanMetric, MetricCollection
    from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score

# At every fit Lightning names accelerators and advises workers: batches of frozen vectors are cheap
for noisy in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
for said in ("does not have many workers", "exists and is not empty", "isinstance.treespec, Leaf"):
    warnings.filterwarnings("ignore", f".*{said}")


class Learner(pl.LightningModule):
    """Trains a :class:`CommentClassifier` of its own with Adam and the cross-entropy (nats)."""

    def __init__(self, who: str, cell: str, features: int, params: TrainParams) -> None:
        super().__init__()
        self.who = who
        self.classifier = CommentClassifier(cell, features, params)
        self.learning_rate = params.learning_rate
        metrics = MetricCollection({"loss": MeanMetric(), "accuracy": BinaryAccuracy()})
        self.train_metrics = metrics.clone(prefix="train_")
        self.validation_metrics = metrics.clone(prefix="validation_")

    def training_step(self, batch: Batch) -> Tensor:
        loss = self._loss(batch, self.train_metrics)
        # once per epoch: Lightning's bookkeeping would take time for every batch
        if self.trainer.is_last_batch:
            self.log_dict(self.train_metrics, on_step=False, on_epoch=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # before Lightning clips: with an infinite norm that would leave nothing but NaN
        gradients = [p.grad for p in self.classifier.parameters() if p.grad is not None]
        if not nn.utils.get_total_norm(gradients, torch.inf).isfinite():
            raise InputError(
                f"{self.who}: the gradient is beyond float32 in epoch {self.current_epoch + 1}: it "
                "explodes on its way back, or training diverges; set another forget_bias or "
                "initializer, train.padding to [none], or a smaller learning_rate"
            )

    def validation_step(self, batch: Batch) -> None:
        self._loss(batch, self.validation_metrics)
        self.log_dict(self.validation_metrics)

    def predict_step(self, batch: Batch) -> Tensor:
        """Probabilities (B,) of being toxic."""
        return self.classifier(batch).sigmoid()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate, fused=True)

    def _loss(self, batch: Batch, metrics: MetricCollection) -> Tensor:
        logits = self.classifier(batch)
        loss = binary_cross_entropy_with_logits(logits, batch.labels)
        metrics.update(
            value=loss.detach(), weight=len(logits), preds=logits, target=batch.labels.long()
        )
        return loss


class EpochHistory(Callback):
    """Loss and accuracy of both splits after every epoch; travels in the checkpoints.

    Its bar says which model and epoch; there is none where there is no terminal.
    """

    def __init__(self, who: str, line: int, log_live: Callable[[Any], None]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.who, self.log_live = who, log_live
        self.bar = tqdm(desc=who, position=line, disable=None, leave=False, dynamic_ncols=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.bar.reset(total=int(trainer.num_training_batches))
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bar.set_description(f"{self.who}, epoch {epoch}")

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        epoch = trainer.current_epoch + 1
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.log_live((epoch, found))
        for split in ("train", "validation"):
            values = {metric: found[f"{split}_{metric}"] for metric in ("loss", "accuracy")}
            self.rows.append({"epoch": epoch, "split": split, **values})
        self.bar.set_postfix(validation=f"{found['validation_accuracy']:.1%}")

    def teardown(self, *_: Any, **__: Any) -> None:
        self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


def train_model(
    folder: Path, checkpoints: Path, cell: str, params: TrainParams, limit: int | None, embed: Path
) -> None:
    """Train the model of the one seed and padding in ``params``; its results go into ``folder``.

    It learns from the output ``embed`` of that stage, from the last ``limit`` words of a comment
    or all. It goes on from ``checkpoints/last.ckpt`` where there is one.
    """
    (seed,), (padding,), turn = params.seeds, params.padding, worker_number()
    who, gpus = f"{cell}, seed {seed}, padding {padding}", torch.cuda.device_count()
    sample, vectors = load_embedding(embed)
    train, validation, test = (
        CommentBatches(sample, vectors, sample.indices_of(split), padding, sample.max_length(limit))
        for split in SPLITS
    )
    validation, test = validation.from_short_to_long(), test.from_short_to_long()
    pl.seed_everything(seed, verbose=False)
    model = Learner(who, cell, vectors.shape[1], params)
    _save(model.classifier, folder / f"init-{seed}.pt")
    last = _whole(checkpoints / "last.ckpt")
    batches = train.shuffled(params.batch_size, seed), validation.in_order(4 * params.batch_size)
    with live_run(f"{cell} {padding} seed {seed}", checkpoints.name) as log:
        history = EpochHistory(who, turn, log)
        saved = ModelCheckpoint(checkpoints, "last", every_n_epochs=1, enable_version_counter=False)
        trainer = pl.Trainer(
            max_epochs=params.epochs,
            gradient_clip_val=params.clip_norm,
            deterministic=True,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
            # left to itself, Lightning takes all GPUs for each of several trainings at a time
            devices=[turn % gpus] if gpus else 1,
            logger=False,
            callbacks=[history, saved],
            default_root_dir=checkpoints,
        )
        trainer.fit(model, *batches, ckpt_path=last)
    predicted: Any = trainer.predict(model, test.in_order(4 * params.batch_size))
    probability, label = torch.cat(predicted).cpu(), torch.from_numpy(sample.labels[test.comments])
    _save(model.classifier, folder / f"trained-{seed}.pt")
    own = {"seed": seed, "comment": test.comments, "label": label, "probability": probability}
    tables = {"history": [{"seed": seed, **row} for row in history.rows], "predictions": own}
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
    scores: Any = {"accuracy": BinaryAccuracy(), "auroc": BinaryAUROC(), "f1": BinaryF1Score()}
    metrics = MetricCollection(scores)(probability, label)
    metrics["loss"] = binary_cross_entropy(probability, label.float())
    found = {
        "comments": len(test),
        "metrics": {name: round(float(value), 6) for name, value in metrics.items()},
        "parameters": sum(weight.numel() for weight in model.classifier.parameters()),
    }
    (folder / "test.json").write_text(json.dumps(found, indent=2) + "\n")
    tqdm.write(f"{who}: test accuracy {metrics['accuracy']:.3f}")


def _whole(checkpoint: Path) -> Path | None:
    """Give a checkpoint that is there, and as it was written: torch looks at no checksum."""
    with suppress(Exception), ZipFile(checkpoint) as parts:  # a damaged file may raise anything
        return None if parts.testzip() else checkpoint
    return None


def _save(classifier: CommentClassifier, path: Path) -> None:
    """Write the weights by way of memory: torch calls a full disk a RuntimeError of 40 lines."""
    content = BytesIO()
    torch.save({name: w.cpu() for name, w in classifier.state_dict().items()}, content)
    path.write_bytes(content.getbuffer())
