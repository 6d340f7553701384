import json
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.errors import InputError
from rnngrad.models.training import EpochHistory, train_model
from rnngrad.params import TrainParams
from rnngrad.study.runs.open_model import load_classifier
from tiny import make_train_params

D = 5
# Lightning's advice; pytest shows what the stage itself ignores
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
]


@pytest.fixture
def params() -> TrainParams:
    return make_train_params(hidden=8)


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 comments of 2 to 12 words whose label is whether word 1 occurs in them."""
    folder = tmp_path_factory.mktemp("embed")
    rng = np.random.default_rng(0)
    comments = [rng.integers(2, 20, n) for n in rng.integers(2, 13, 120)]
    labels = np.arange(120) % 2
    for comment, label in zip(comments, labels, strict=True):
        if label:
            comment[rng.integers(len(comment))] = 1
    sample = TokenizedSample(
        tokens=np.concatenate(comments).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(c) for c in comments])]).astype(np.int64),
        labels=labels.astype(np.int8),
        splits=np.repeat(["train", "validation", "test"], [80, 20, 20]),
        telling_distance=np.full(120, np.nan, dtype=np.float32),
    )
    vectors = rng.standard_normal((21, D)).astype(np.float32)
    vectors[0] = 0
    sample.save(folder / "tokens.npz")
    np.save(folder / "vectors.npy", vectors)
    return folder


def train(folder: Path, cell: str, embed: Path, params: TrainParams, run: Path) -> Path:
    """The folder with the results of seed 3."""
    folder.mkdir()
    train_model(folder, run, cell, params, 20, embed)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_learns_and_repeats_to_the_last_bit(
    embed: Path, params: TrainParams, tmp_path: Path
) -> None:
    params = params.model_copy(update={"epochs": 12})
    first = train(tmp_path / "first", "lstm", embed, params, tmp_path / "a")
    history = pd.read_csv(first / "history.csv")
    loss = history.query("split == 'train'")["loss"]
    assert loss.iloc[-1] < 0.6 * loss.iloc[0]
    assert list(history) == ["seed", "epoch", "split", "loss", "accuracy"]
    predictions = pd.read_csv(first / "predictions.csv")
    assert list(predictions) == ["seed", "comment", "label", "probability"]
    assert sorted(predictions["comment"]) == list(range(100, 120))
    test = json.loads((first / "test.json").read_text())
    assert set(test["metrics"]) == {"loss", "accuracy", "auroc", "f1"}
    assert test["metrics"]["accuracy"] == pytest.approx(
        ((predictions["probability"] > 0.5) == predictions["label"]).mean(), abs=1e-6
    )
    assert (test["comments"], test["parameters"]) == (20, 4 * 8 * (D + 8 + 2) + 9)
    weights = [torch.load(first / f"{name}-3.pt")["head.weight"] for name in ("init", "trained")]
    assert not torch.equal(*weights)
    again = train(tmp_path / "again", "lstm", embed, params, tmp_path / "b")
    assert contents(first) == contents(again)


def test_a_killed_training_resumes_to_the_same_result(
    embed: Path, params: TrainParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "1", "rnn", embed, params, tmp_path / "whole")
    record = EpochHistory.on_train_epoch_end

    def die(self: EpochHistory, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("killed in the third epoch")
        record(self, trainer, module)

    with monkeypatch.context() as broken:
        broken.setattr(EpochHistory, "on_train_epoch_end", die)
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path / "2", "rnn", embed, params, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "last.ckpt").exists()
    begun = []
    monkeypatch.setattr(
        EpochHistory,
        "on_train_epoch_start",
        lambda _, trainer, __: begun.append(trainer.current_epoch),
    )
    resumed = train(tmp_path / "3", "rnn", embed, params, tmp_path / "stopped")
    assert begun == [2, 3]  # the third of four is begun anew
    assert contents(whole) == contents(resumed)


class ReadyError(Exception):
    """Training would begin."""


@pytest.mark.parametrize(("gpus", "device"), [(4, "cuda:2"), (2, "cuda:0"), (1, "cuda:0")])
def test_trainings_take_the_gpus_in_turn_and_one_each(
    gpus: int,
    device: str,
    embed: Path,
    params: TrainParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[tuple[int, str, str]] = []

    def fit(self: pl.Trainer, *_: object, **__: object) -> None:
        strategy = self.strategy
        taken.append((self.num_devices, str(strategy.root_device), type(strategy).__name__))
        raise ReadyError

    monkeypatch.setattr("rnngrad.models.training.worker_number", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pl.Trainer, "fit", fit)
    with pytest.raises(ReadyError):
        train_model(tmp_path, tmp_path / "run", "rnn", params, 20, embed)
    assert taken == [(1, device, "SingleDeviceStrategy")]


@pytest.mark.parametrize("content", [None, b"", b"no weights", b"PK\x03\x04"])
def test_a_file_without_weights_is_named(
    content: bytes | None, params: TrainParams, tmp_path: Path
) -> None:
    path = tmp_path / "init-1.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"init-1.pt: .* run dvc repro") as caught:
        load_classifier(path, "rnn", D, params)
    assert "\n" not in str(caught.value)


def test_a_disk_too_small_for_the_weights_is_an_error_of_the_system(
    embed: Path, params: TrainParams, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            train_model(tmp_path, tmp_path / "run", "lstm", params, 20, embed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore:Encountered `nan` values")
def test_a_gradient_that_is_not_finite_is_one_line(embed: Path, tmp_path: Path) -> None:
    params = make_train_params(hidden=8).model_copy(update={"learning_rate": 3e38})
    with pytest.raises(InputError, match="lstm, seed 3, padding pre: the gradient is beyond"):
        train_model(tmp_path, tmp_path / "run", "lstm", params, 20, embed)
