"""Everything that the stages before the report have found, read from their files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rnngrad.errors import InputError
from rnngrad.params import Params

WEIGHTS = ("init", "trained")
MILESTONES = (1, 20, 100, 400, 1383)  # steps that tables show, beside the last one
GATE_COLUMNS = ["input", "activation", "share", "mean", "cell", "seed", "weights"]


@dataclass(frozen=True)
class Results:
    """Result files of one study, for the cells of its params.yaml.

    Attributes:
        curves: cell, seed, weights (init | trained), state, statistic, step, log10_mean,
            log10_median, log10_low, log10_high, examples.
        gates: input (padding | words), activation (bin centre), share, mean, cell, seed, weights;
            the LSTM's forget gate and the GRU's update gate, no rows where there is neither.
        history: cell, seed, epoch, split, loss, accuracy.
        metrics: by cell and test metric, the mean over seeds with its 95% interval.
        model_cards: by cell.
        data_card: counts and lengths of the sample.
        embed_card: vocabulary and coverage of the word vectors.
    """

    params: Params
    curves: pd.DataFrame
    gates: pd.DataFrame
    history: pd.DataFrame
    metrics: dict[str, dict[str, Any]]
    model_cards: dict[str, dict[str, Any]]
    data_card: dict[str, Any]
    embed_card: dict[str, Any]

    @property
    def cells(self) -> list[str]:
        return list(self.params.cells)


def load_results(build: Path, params: Params) -> Results:
    """Read the result files below ``build``.

    Raises:
        InputError: a file is missing or unreadable.
    """
    cells = list(params.cells)
    train = {cell: build / "train" / cell for cell in cells}
    probe = {cell: build / "probe" / cell for cell in cells}
    return Results(
        params=params,
        curves=pd.concat([_read_csv(probe[cell] / "curves.csv") for cell in cells]),
        gates=pd.concat(
            [_read_csv(probe[cell] / "gates.csv") for cell in cells if cell != "rnn"]
            or [pd.DataFrame(columns=GATE_COLUMNS)]
        ),
        history=pd.concat(
            [_read_csv(train[cell] / "history.csv").assign(cell=cell) for cell in cells]
        ),
        metrics={cell: _read_json(train[cell] / "metrics.json") for cell in cells},
        model_cards={cell: _read_json(train[cell] / "model_card.json") for cell in cells},
        data_card=_read_json(build / "data_card.json"),
        embed_card=_read_json(build / "embed" / "card.json"),
    )


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run dvc repro") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run dvc repro") from error
