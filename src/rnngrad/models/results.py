"""The results of training, and the files of a trained cell. Needs no torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from rnngrad.intervals import mean_interval
from rnngrad.params import TrainParams

if TYPE_CHECKING:
    from torch import Tensor


class TrainedSeed(NamedTuple):
    """The results of training one seed.

    Attributes:
        initial: state dict before the first update.
        trained: state dict after the last epoch.
        history: seed, epoch (from 1), split, loss (nats), accuracy.
        predictions: seed, comment (position in the sample), label, probability of the test split.
        test: loss (nats), accuracy, auroc, f1 on the test split.
    """

    initial: "dict[str, Tensor]"
    trained: "dict[str, Tensor]"
    history: pd.DataFrame
    predictions: pd.DataFrame
    test: dict[str, float]


class SeedResult(NamedTuple):
    """The same with the state dicts in files.

    Attributes:
        files: of the state dicts, named as they are to be.
        parameters: numbers in one of them.
        history, predictions, test: as in :class:`TrainedSeed`.
    """

    files: tuple[Path, ...]
    parameters: int
    history: pd.DataFrame
    predictions: pd.DataFrame
    test: dict[str, float]


def write_results(
    folder: Path, cell: str, params: TrainParams, trained: Sequence[SeedResult]
) -> None:
    """Write epoch history, test predictions, metrics and the model card of one cell.

    The files of the weights are moved.
    """
    folder.mkdir()
    for result in trained:
        for path in result.files:
            path.rename(folder / path.name)
    history = pd.concat([result.history for result in trained])
    history[["seed", "epoch", "split", "loss", "accuracy"]].to_csv(
        folder / "history.csv", index=False, float_format="%.6f"
    )
    predictions = pd.concat([result.predictions for result in trained])
    predictions[["seed", "comment", "label", "probability"]].to_csv(
        folder / "predictions.csv", index=False, float_format="%.6f"
    )
    tests = {metric: [result.test[metric] for result in trained] for metric in trained[0].test}
    metrics = {metric: mean_interval(values) for metric, values in tests.items()}
    _write_json(folder / "metrics.json", metrics)
    card = {
        "cell": cell,
        "parameters": trained[0].parameters,
        "settings": params.model_dump(),
        "test": {"per_seed": tests, "over_seeds": metrics},
        "test_comments": len(trained[0].predictions),
    }
    _write_json(folder / "model_card.json", card)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
