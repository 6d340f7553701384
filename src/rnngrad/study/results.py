"""Everything that the stages before the report have found, read from their files."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.params import Params
from rnngrad.stage import read_json, read_output
from rnngrad.study import trained_weights

# By measure, the cells that have it. Untrained models have no `remembered`.
OF_ALL = ("curves", "influences", "reach", "remembered", "shares")
MEASURES = dict.fromkeys(OF_ALL, ("rnn", "lstm", "gru"))
MEASURES |= {"gates": ("lstm", "gru"), "powers": ("rnn",)}
MEASURES |= dict.fromkeys(("output_gates", "paths"), ("lstm",))
GATES = ["cell", "seed", "weights", "input", "activation", "share", "mean"]


@dataclass(frozen=True)
class Results:
    """Result files of one study, for the cells and conditions of its params.yaml.

    Tables of models stand below one another, behind cell, seed and weights, a key of
    `rnngrad.study.WEIGHTS`. Columns: see `rnngrad.study.measures` and `.condition_tables`.
    """

    params: Params
    curves: pd.DataFrame
    gates: pd.DataFrame
    history: pd.DataFrame  # trained weights: epoch, split, loss, accuracy
    tests: pd.DataFrame  # trained weights: the metrics on the test split
    model_cards: dict[str, dict[str, Any]]  # the settings and counts of the stages before
    data_card: dict[str, Any]
    embed_card: dict[str, Any]
    conditions: pd.DataFrame
    condition_seeds: pd.DataFrame
    condition_curves: pd.DataFrame
    evidence: dict[str, pd.DataFrame]  # the other measures, which judge claims
    # by cell and weights, (T, T) medians over seeds: which steps a weight's gradient comes from
    triangles: dict[tuple[str, str], NDArray[np.float32]]

    @property
    def cells(self) -> list[str]:
        return list(self.params.cells)

    @property
    def weights(self) -> list[str]:
        return ["init", *trained_weights(self.params).values()]


def load_results(build: Path, params: Params) -> Results:
    """Read the result files below ``build``; one that is missing or damaged is an `InputError`."""
    cells, train, conditions = list(params.cells), build / "train", build / "conditions"
    tables: defaultdict[str, list[pd.DataFrame]] = defaultdict(list)
    triangles: defaultdict[tuple[str, str], list[NDArray]] = defaultdict(list)
    seeds = [(cell, seed) for cell in cells for seed in params.train_of(cell).seeds]
    models = [(None, "init"), *trained_weights(params).items()]
    for (cell, seed), (padding, weights) in product(seeds, models):
        if padding:
            folder = train / cell / padding / f"seed-{seed}"
            names = {"cell": cell, "weights": weights}
            tables["history"].append(read_result(folder / "history.csv").assign(**names))
            test = read_json(folder / "test.json", "dvc repro")["metrics"]
            tables["tests"].append(pd.DataFrame([names | {"seed": seed} | test]))
        folder = build / "probe" / cell / f"{weights}-{seed}"
        for name, having in MEASURES.items():
            if cell in having and (name, weights) != ("remembered", "init"):
                tables[name].append(read_result(folder / f"{name}.csv"))
        triangles[cell, weights].append(read_arrays(folder / "triangle.npz")["triangle"])
    if "lstm" in cells:
        tables["tutorial"].append(read_result(build / "probe/lstm/tutorial/tutorial.csv"))
    # tables without rows are left out: their columns have no types to reconcile
    found = {
        name: pd.concat([each for each in own if len(each)] or own[:1], ignore_index=True)
        for name, own in tables.items()
    }
    return Results(
        params=params,
        curves=found.pop("curves"),
        gates=found.pop("gates", pd.DataFrame(columns=GATES)),
        history=found.pop("history"),
        tests=found.pop("tests"),
        model_cards={c: read_json(train / c / "model_card.json", "dvc repro") for c in cells},
        data_card=read_json(build / "data_card.json", "dvc repro"),
        embed_card=read_json(build / "embed" / "card.json", "dvc repro"),
        conditions=read_result(conditions / "conditions.csv"),
        condition_seeds=read_result(conditions / "seeds.csv"),
        condition_curves=read_result(conditions / "curves.csv"),
        evidence=found,
        triangles={model: np.median(np.stack(own), axis=0) for model, own in triangles.items()},
    )


def read_result(path: Path) -> pd.DataFrame:
    """A table that another stage wrote; one that is missing or damaged is an `InputError`."""
    return read_output(path, "dvc repro", pd.read_csv)


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays that another stage wrote, by name; an `InputError` as in :func:`read_result`."""
    return read_output(path, "dvc repro", lambda path: dict(np.load(path, allow_pickle=False)))
