"""Training one model, with progress, and from where it stopped when interrupted."""

import logging
import warnings
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_f1_score,
)
from tqdm import tqdm

from rnngrad.data.datamodule import CommentData
from rnngrad.errors import InputError
from rnngrad.models.learner import Learner
from rnngrad.models.live import live_logger
from rnngrad.models.results import TrainedSeed
from rnngrad.params import TrainParams

# Lightning says at every fit which accelerators there are and that data loaders could have workers;
# batches of frozen vectors are cheap, and the progress bar is what a person wants to see.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*does not have many workers.*")
warnings.filterwarnings("ignore", ".*exists and is not empty.*")
warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")


CHECKPOINT = {"state_dict", "optimizer_states", "callbacks", "loops", "pytorch-lightning_version"}


class EpochHistory(Callback):
    """Loss and accuracy of both splits after every epoch; travels in the checkpoints."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for split in ("train", "validation"):
            row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "split": split}
            for metric in ("loss", "accuracy"):
                row[metric] = float(trainer.callback_metrics[f"{split}_{metric}"])
            self.rows.append(row)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class EpochProgress(TQDMProgressBar):
    """One bar per seed that says which cell, seed and epoch; none where there is no terminal."""

    def __init__(self, description: str, line: int) -> None:
        super().__init__(refresh_rate=5)
        self.description = description
        self.line = line

    def init_train_tqdm(self) -> Tqdm:
        return Tqdm(
            desc=self.description,
            position=self.line,
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def init_predict_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.train_progress_bar.set_description(f"{self.description}, {epoch}")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        found = trainer.callback_metrics.get("validation_accuracy")
        return {} if found is None else {"validation": f"{float(found):.1%}"}


def train_seed(
    cell: str,
    seed: int,
    data: CommentData,
    params: TrainParams,
    checkpoints: Path,
    turn: int = 0,
) -> TrainedSeed:
    """Train one model; go on from ``checkpoints/last.ckpt`` where there is one.

    ``turn`` is its number among those that train at a time: its progress bar stands so many lines
    below the first, and it takes that GPU of those that there are, from the first again.

    Epoch metrics also go to MLflow while training runs if ``MLFLOW_TRACKING_URI`` is set. Results
    are the same with and without it.

    Raises:
        InputError: a gradient is not finite, or a result.
    """
    pl.seed_everything(seed, verbose=False)
    features = data.splits["train"].vectors.shape[1]
    model = Learner(cell, features, params)
    initial = {name: value.clone() for name, value in model.classifier.weights().items()}
    history = EpochHistory()
    trainer = pl.Trainer(
        max_epochs=params.epochs,
        gradient_clip_val=params.clip_norm,
        deterministic=True,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        devices=_one_device(turn),
        logger=live_logger(f"{cell} seed {seed}"),
        callbacks=[
            history,
            EpochProgress(f"{cell}, seed {seed}", turn),
            ModelCheckpoint(checkpoints, "last", every_n_epochs=1, enable_version_counter=False),
        ],
        default_root_dir=checkpoints,
    )
    last = _resumable(checkpoints / "last.ckpt", f"{cell}, seed {seed}")
    try:
        trainer.fit(model, datamodule=data, ckpt_path=last)
    except InputError as error:
        raise InputError(f"{cell}, seed {seed}: {error}") from error
    predictions = _predict(trainer, model, data)
    losses = [row["loss"] for row in history.rows]
    if not np.isfinite([*losses, *predictions["probability"]]).all():
        raise InputError(f"{cell}, seed {seed}: a loss is not finite; set a smaller learning_rate")
    test = _test_metrics(predictions)
    tqdm.write(f"{cell}, seed {seed}: test accuracy {test['accuracy']:.3f}")
    return TrainedSeed(
        initial=initial,
        trained=model.classifier.weights(),
        history=pd.DataFrame(history.rows).assign(seed=seed),
        predictions=predictions.assign(seed=seed),
        test=test,
    )


def _one_device(turn: int) -> int | list[int]:
    """Left to itself, Lightning takes all GPUs for each of the trainings that run at a time."""
    gpus = torch.cuda.device_count()
    return [turn % gpus] if gpus else 1


def _resumable(last: Path, who: str) -> Path | None:
    """The checkpoint to go on from; a damaged one is set aside and none."""
    if not last.exists():
        return None
    try:
        with ZipFile(last) as parts:  # torch looks at no checksum
            whole = parts.testzip() is None
        # Lightning would run what a pickle says
        found = torch.load(last, map_location="cpu", weights_only=True)
        whole &= found.keys() >= CHECKPOINT
    except Exception:  # there is no end of what a damaged file may raise
        whole = False
    if whole:
        return last
    aside = Path(mkdtemp(prefix="damaged-", dir=last.parent)) / last.name
    last.rename(aside)
    tqdm.write(f"{who}: {last} is damaged; set aside as {aside}, training starts from the start")
    return None


def _predict(trainer: pl.Trainer, model: Learner, data: CommentData) -> pd.DataFrame:
    batches = cast("list[Tensor]", trainer.predict(model, datamodule=data))
    comments = data.predicted_comments()
    return pd.DataFrame(
        {
            "comment": comments,
            "label": data.splits["test"].sample.labels[comments].astype(np.int8),
            "probability": torch.cat(batches).cpu().numpy(),
        }
    )


def _test_metrics(predictions: pd.DataFrame) -> dict[str, float]:
    probability = torch.from_numpy(predictions["probability"].to_numpy(copy=True))
    label = torch.from_numpy(predictions["label"].to_numpy(copy=True)).long()
    loss = torch.nn.functional.binary_cross_entropy(probability, label.float())
    metrics = {
        "loss": loss,
        "accuracy": binary_accuracy(probability, label),
        "auroc": binary_auroc(probability, label),
        "f1": binary_f1_score(probability, label),
    }
    return {name: round(float(value), 6) for name, value in metrics.items()}
