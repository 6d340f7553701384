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
MODEL = ["cell", "seed", "weights"]
COLUMNS = {
    "curves": [*MODEL, "statistic", "step", "log10_mean", "log10_median", "examples"],
    "gates": [*MODEL, "input", "activation", "share", "mean"],
}
HISTORY = ["seed", "epoch", "split", "loss", "accuracy"]
NAMES = ["condition", "factor", "cell"]
CONDITIONS = [*NAMES, "examples", "log10_at_end", "float32_zero_from", "horizon"]
CONDITION_CURVES = ["condition", "cell", "step", "log10", "low", "high"]
# by measure, the cells that have it and the weights it is taken of
ANY = ("rnn", "lstm", "gru")
MEASURES = {
    "curves": (ANY, WEIGHTS),
    "gates": (("lstm", "gru"), WEIGHTS),
    "influences": (ANY, WEIGHTS),
    "output_gates": (("lstm",), WEIGHTS),
    "paths": (("lstm",), WEIGHTS),
    "powers": (("rnn",), WEIGHTS),
    "remembered": (ANY, ("trained",)),
    "shares": (ANY, WEIGHTS),
}


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
            :mod:`rnngrad.study.condition_tables`, medians over seeds.
        condition_seeds: the same for every seed.
        condition_curves: condition, cell, step, log10, low, high.
        evidence: all cells together, by the names of :mod:`rnngrad.study.measures`.
        triangles: by cell and weights, (T, T) float32, medians over seeds: which steps a weight's
            gradient comes from; NaN above the diagonal.
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
    cells, train, conditions = list(params.cells), build / "train", build / "conditions"
    histories = [
        read_result(train / cell / f"seed-{seed}" / "history.csv", *HISTORY).assign(cell=cell)
        for cell in cells
        for seed in params.train_of(cell).seeds
    ]
    measures = {
        name: _measure(build, params, name)
        for name, (having, _) in MEASURES.items()
        if {*cells} & {*having}
    }
    if "lstm" in cells:
        path = build / "probe" / "lstm" / "tutorial" / "tutorial.csv"
        measures["tutorial"] = read_result(path)
    return Results(
        params=params,
        curves=measures.pop("curves"),
        gates=measures.pop("gates", pd.DataFrame(columns=COLUMNS["gates"])),
        history=pd.concat(histories),
        metrics={cell: _read_json(train / cell / "metrics.json") for cell in cells},
        model_cards={cell: _read_json(train / cell / "model_card.json") for cell in cells},
        data_card=_read_json(build / "data_card.json"),
        embed_card=_read_json(build / "embed" / "card.json"),
        conditions=read_result(conditions / "conditions.csv", *CONDITIONS),
        condition_seeds=read_result(conditions / "seeds.csv", *CONDITIONS, "seed"),
        condition_curves=read_result(conditions / "curves.csv", *CONDITION_CURVES),
        evidence=measures,
        triangles={
            (cell, weights): _median_triangle(_folders(build, params, cell, (weights,)))
            for cell in cells
            for weights in WEIGHTS
        },
    )


def _measure(build: Path, params: Params, name: str) -> pd.DataFrame:
    """The tables of all models, one below another."""
    cells, weights = MEASURES[name]
    wanted = COLUMNS.get(name, ())
    tables = [
        read_result(folder / f"{name}.csv", *wanted)
        for cell in params.cells
        if cell in cells
        for folder in _folders(build, params, cell, weights)
    ]
    # a table without rows has no types that another one would have to be reconciled with
    return pd.concat([each for each in tables if len(each)] or tables[:1], ignore_index=True)


def _folders(build: Path, params: Params, cell: str, weights: Sequence[str]) -> list[Path]:
    """The folders of a cell's models; of every seed first the one before training."""
    seeds = params.train_of(cell).seeds
    return [build / "probe" / cell / f"{each}-{seed}" for seed in seeds for each in weights]


def _median_triangle(folders: Sequence[Path]) -> NDArray[np.float32]:
    triangles = [read_arrays(folder / "triangle.npz")["triangle"] for folder in folders]
    return np.median(np.stack(triangles), axis=0).astype(np.float32)


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays that another stage wrote, by name.

    Raises:
        InputError: the file is missing or unreadable.
    """
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
