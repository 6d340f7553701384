"""Everything that the stages before the report have found, read from their files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.errors import InputError
from rnngrad.params import Params

WEIGHTS = ("init", "trained")
MILESTONES = (1, 20, 100, 400, 1383)  # steps that tables show, beside the last one
GATE_COLUMNS = ["input", "activation", "share", "mean", "cell", "seed", "weights"]


@dataclass(frozen=True)
class Results:
    """Result files of one study, for the cells and conditions of its params.yaml.

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
        conditions: condition, factor, cell and the numbers of
            :mod:`rnngrad.study.conditions.table`, medians over seeds.
        condition_seeds: the same for every seed.
        condition_curves: condition, cell, step, log10, low, high.
        evidence: all cells together, by the names of :mod:`rnngrad.study.evidence`.
        triangles: by cell and weights, (T, T): which steps a weight's gradient comes from.
    """

    params: Params
    curves: pd.DataFrame
    gates: pd.DataFrame
    history: pd.DataFrame
    metrics: dict[str, dict[str, Any]]
    model_cards: dict[str, dict[str, Any]]
    data_card: dict[str, Any]
    embed_card: dict[str, Any]
    conditions: pd.DataFrame
    condition_seeds: pd.DataFrame
    condition_curves: pd.DataFrame
    evidence: dict[str, pd.DataFrame]
    triangles: dict[tuple[str, str], NDArray[np.float32]]

    @property
    def cells(self) -> list[str]:
        return list(self.params.cells)

    @property
    def numbers_of_seeds(self) -> list[int]:
        """Of trained models, by cell."""
        return [len(self.params.train_of(cell).seeds) for cell in self.cells]


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
        conditions=_read_csv(build / "conditions" / "conditions.csv"),
        condition_seeds=_read_csv(build / "conditions" / "seeds.csv"),
        condition_curves=_read_csv(build / "conditions" / "curves.csv"),
        evidence=_evidence([build / "evidence" / cell for cell in cells]),
        triangles={
            (cell, weights): triangle
            for cell in cells
            for weights, triangle in _arrays(build / "evidence" / cell / "triangles.npz").items()
        },
    )


def _evidence(folders: Sequence[Path]) -> dict[str, pd.DataFrame]:
    parts: dict[str, list[pd.DataFrame]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.csv")):
            parts.setdefault(path.stem, []).append(_read_csv(path))
    # a frame without rows has no types that another one would have to be reconciled with
    return {
        name: pd.concat([f for f in found if len(f)] or found[:1], ignore_index=True)
        for name, found in parts.items()
    }


def _arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); run dvc repro") from error


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
