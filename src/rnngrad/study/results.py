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
CURVES = ["cell", "seed", "weights", "statistic", "step", "log10_mean", "log10_median", "examples"]
HISTORY = ["seed", "epoch", "split", "loss", "accuracy"]
NAMES = ["condition", "factor", "cell"]
CONDITIONS = [*NAMES, "examples", "log10_at_end", "float32_zero_from", "horizon"]
CONDITION_CURVES = ["condition", "cell", "step", "log10", "low", "high"]
# those of rnngrad.study.evidence, which needs torch to say so
EVIDENCE = ["influences", "output_gates", "remembered", "shares"]  # of every cell
EVIDENCE_OF = {"rnn": ["powers"], "lstm": ["paths", "tutorial"]}


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
        """The number of seeds of each cell's trained models, in the order of the cells."""
        seeds = self.history.groupby("cell")["seed"].nunique()
        return [int(seeds[cell]) for cell in self.cells]


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
        curves=pd.concat([read_result(probe[cell] / "curves.csv", *CURVES) for cell in cells]),
        gates=pd.concat(
            [
                read_result(probe[cell] / "gates.csv", *GATE_COLUMNS)
                for cell in cells
                if cell != "rnn"
            ]
            or [pd.DataFrame(columns=GATE_COLUMNS)]
        ),
        history=pd.concat(
            [
                read_result(train[cell] / f"seed-{seed}" / "history.csv", *HISTORY).assign(
                    cell=cell
                )
                for cell in cells
                for seed in params.train_of(cell).seeds
            ]
        ),
        metrics={cell: _read_json(train[cell] / "metrics.json") for cell in cells},
        model_cards={cell: _read_json(train[cell] / "model_card.json") for cell in cells},
        data_card=_read_json(build / "data_card.json"),
        embed_card=_read_json(build / "embed" / "card.json"),
        conditions=read_result(build / "conditions" / "conditions.csv", *CONDITIONS),
        condition_seeds=read_result(build / "conditions" / "seeds.csv", *CONDITIONS, "seed"),
        condition_curves=read_result(build / "conditions" / "curves.csv", *CONDITION_CURVES),
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
        wanted = [folder / f"{name}.csv" for name in (*EVIDENCE, *EVIDENCE_OF.get(folder.name, ()))]
        for path in sorted({*folder.glob("*.csv"), *wanted}):
            parts.setdefault(path.stem, []).append(read_result(path))
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


def read_result(path: Path, *columns: str) -> pd.DataFrame:
    """A table that another stage wrote.

    Raises:
        InputError: it is missing, no CSV, or lacks one of the columns.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run dvc repro") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]}; run dvc repro")
    return table


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run dvc repro") from error
