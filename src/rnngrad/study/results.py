"""Everything that the stages before the report have found, read from their files."""

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.errors import InputError
from rnngrad.params import Params
from rnngrad.stage import read_output
from rnngrad.study import trained

GATES = ["cell", "seed", "weights", "input", "activation", "share", "mean"]
HISTORY = ["seed", "epoch", "split", "loss", "accuracy"]
NAMES = ["condition", "factor", "cell"]
CONDITIONS = [*NAMES, "examples", "log10_at_end", "float32_zero_from", "horizon"]
CONDITION_CURVES = ["condition", "cell", "step", "log10", "low", "high"]
ANY = ("rnn", "lstm", "gru")
MEASURES = {  # the cells that have it
    "curves": ANY,
    "gates": ("lstm", "gru"),
    "influences": ANY,
    "output_gates": ("lstm",),
    "paths": ("lstm",),
    "powers": ("rnn",),
    "reach": ANY,
    "remembered": ANY,  # once they are trained
    "shares": ANY,
}


@dataclass(frozen=True)
class Results:
    """Result files of one study, for the cells and conditions of its params.yaml.

    Attributes:
        curves, gates, evidence: the tables of :mod:`rnngrad.study.measures`, those of all models
            below one another, behind cell, seed and weights (a key of `rnngrad.study.WEIGHTS`).
        history: cell, weights (trained ones), seed, epoch, split, loss, accuracy.
        tests: cell, weights, seed, and the metrics on the test split.
        model_cards, data_card, embed_card: the settings and counts of the stages before.
        conditions, condition_seeds, condition_curves: see :mod:`rnngrad.study.condition_tables`.
        triangles: by cell and weights, (T, T) float32, medians over seeds: which steps a weight's
            gradient comes from; NaN above the diagonal.
    """

    params: Params
    curves: pd.DataFrame
    gates: pd.DataFrame
    history: pd.DataFrame
    tests: pd.DataFrame
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
    def weights(self) -> list[str]:
        return ["init", *trained(self.params).values()]


def load_results(build: Path, params: Params) -> Results:
    """Read the result files below ``build``.

    Raises:
        InputError: a file is missing or unreadable.
    """
    cells, train, conditions = list(params.cells), build / "train", build / "conditions"
    histories: list[pd.DataFrame] = []
    tests: list[dict[str, Any]] = []
    tables: defaultdict[str, list[pd.DataFrame]] = defaultdict(list)
    triangles: defaultdict[tuple[str, str], list[NDArray]] = defaultdict(list)
    seeds = [(cell, seed) for cell in cells for seed in params.train_of(cell).seeds]
    models = [(None, "init"), *trained(params).items()]
    for (cell, seed), (padding, weights) in product(seeds, models):
        if padding:
            folder = train / cell / padding / f"seed-{seed}"
            names = {"cell": cell, "weights": weights}
            histories.append(read_result(folder / "history.csv", *HISTORY).assign(**names))
            tests.append(names | {"seed": seed} | _read_json(folder / "test.json")["metrics"])
        folder = build / "probe" / cell / f"{weights}-{seed}"
        for name, having in MEASURES.items():
            if cell in having and (name, weights) != ("remembered", "init"):
                tables[name].append(read_result(folder / f"{name}.csv"))
        triangles[cell, weights].append(read_arrays(folder / "triangle.npz")["triangle"])
    if "lstm" in cells:
        path = build / "probe" / "lstm" / "tutorial" / "tutorial.csv"
        tables["tutorial"].append(read_result(path))
    # a table without rows has no types that another one would have to be reconciled with
    measures = {
        name: pd.concat([each for each in found if len(each)] or found[:1], ignore_index=True)
        for name, found in tables.items()
    }
    return Results(
        params=params,
        curves=measures.pop("curves"),
        gates=measures.pop("gates", pd.DataFrame(columns=GATES)),
        history=pd.concat(histories),
        tests=pd.DataFrame(tests),
        model_cards={cell: _read_json(train / cell / "model_card.json") for cell in cells},
        data_card=_read_json(build / "data_card.json"),
        embed_card=_read_json(build / "embed" / "card.json"),
        conditions=read_result(conditions / "conditions.csv", *CONDITIONS),
        condition_seeds=read_result(conditions / "seeds.csv", *CONDITIONS, "seed"),
        condition_curves=read_result(conditions / "curves.csv", *CONDITION_CURVES),
        evidence=measures,
        triangles={model: np.median(np.stack(found), axis=0) for model, found in triangles.items()},
    )


def read_result(path: Path, *columns: str) -> pd.DataFrame:
    """A table that another stage wrote.

    Raises:
        InputError: it is missing, no CSV, or lacks one of the columns.
    """
    table = read_output(path, "dvc repro", pd.read_csv)
    for column in columns:
        if column not in table:
            raise InputError(f"{path}: has no column {column}; run dvc repro")
    return table


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays that another stage wrote, by name.

    Raises:
        InputError: the file is missing or unreadable.
    """

    def load(path: Path) -> dict[str, NDArray]:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    return read_output(path, "dvc repro", load)


def _read_json(path: Path) -> dict[str, Any]:
    return read_output(path, "dvc repro", lambda path: json.loads(path.read_text()))
