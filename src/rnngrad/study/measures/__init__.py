"""The measures that are taken of every model: a file each, called like the CSV that it makes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.params import TrainParams
from rnngrad.study.results import read_result
from rnngrad.study.runs import Run

PREDICTIONS = ["seed", "comment", "label", "probability"]
Tables = dict[str, pd.DataFrame]
Arrays = dict[str, dict[str, NDArray]]


def measure_model(folder: Path, *model: Any) -> None:
    """Write a CSV for every measure of a model, comments.npz and triangle.npz into its folder.

    comments.npz has the curves of every comment by statistic, float32 (B, T).

    Args:
        folder: is there.
        model: the arguments of :func:`measures`; without them the tutorial's example is measured.

    Raises:
        InputError: the embedding or the weights are missing or another model's.
    """
    tables, arrays = measures(*model) if model else _tutorial()
    for name, table in tables.items():
        digits = "%.6g" if name == "gates" else "%.6f"
        table.to_csv(folder / f"{name}.csv", index=False, float_format=digits)
    for name, own in arrays.items():
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **own)


# torch takes seconds to import: only the workers need it


def _tutorial() -> tuple[Tables, Arrays]:
    from rnngrad.study.measures.tutorial import tutorial

    return {"tutorial": tutorial()}, {}


def measures(
    run: Run,
    spectral_steps: int,
    embedding: Path,
    file: Path,
    train: TrainParams,
    predictions: Path | None,
) -> tuple[Tables, Arrays]:
    """Take all measures of a model; some have no rows for some models.

    Args:
        run: names the model and what it reads.
        spectral_steps: the number of steps at which the spectral norm is taken.
        embedding: folder of the stage embed.
        file, train: the weights, and the settings of their training.
        predictions: what the trained model says of the test split; None before training.
    """
    from rnngrad.data.batches import load_embedding
    from rnngrad.study.inputs import passages_of
    from rnngrad.study.measures import curves, remembered
    from rnngrad.study.measures.gates import gates
    from rnngrad.study.measures.influences import influences
    from rnngrad.study.measures.output_gates import output_gates
    from rnngrad.study.measures.paths import paths
    from rnngrad.study.measures.powers import powers, powers_at_radii
    from rnngrad.study.measures.shares import shares
    from rnngrad.study.open_model import open_model, state_after

    sample, vectors = load_embedding(embedding)
    model = open_model(run, sample, vectors, file, train)
    module, head, inputs, start = model
    assert head is not None
    log10 = curves.jacobian_curves(run, model, spectral_steps)
    passages = passages_of(run.reads, sample, vectors)
    at = passages, state_after(module, passages.before)
    found = shares(module, head, *at)
    tables = {
        "curves": curves.over_comments(run, log10),
        "influences": influences(module, *at, run.reads.seed),
        "output_gates": output_gates(module, head, *at, run.reads.seed),
        "remembered": pd.DataFrame(columns=remembered.COLUMNS),
        "shares": found.shares,
    }
    if predictions is not None:
        its = read_result(predictions, *PREDICTIONS).query(f"seed == {run.seed}")
        tables["remembered"] = remembered.remembered(
            module, head, its, run.reads, sample, vectors
        )
    if run.cell == "rnn":
        tables["powers"] = powers(module, inputs, start, log10["frobenius"])
        if run.weights == "init":
            scaled = powers_at_radii(module, inputs, start)
            tables["powers"] = pd.concat([tables["powers"].assign(weights="init"), scaled])
    else:
        tables["gates"] = gates(module, inputs, start)
    if run.cell == "lstm":
        tables["paths"] = paths(module, inputs, start, log10)
    labelled = {name: _labelled(table, run) for name, table in tables.items()}
    comments = {name: values.astype(np.float32) for name, values in log10.items()}
    return labelled, {"comments": comments, "triangle": {"triangle": found.triangle}}


def _labelled(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The table with the model's names in front; a column that it has keeps its values."""
    names = {"cell": run.cell, "seed": run.seed, "weights": run.weights}
    own = [column for column in table if column not in names]
    return table.assign(**{k: table.get(k, v) for k, v in names.items()})[[*names, *own]]
