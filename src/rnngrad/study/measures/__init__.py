"""The measures that are taken of every model: a file each, called like the CSV that it makes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.data.batches import load_embedding
from rnngrad.params import TrainParams
from rnngrad.study.inputs import passages_of
from rnngrad.study.measures import (
    curves,
    gates,
    influences,
    output_gates,
    paths,
    powers,
    remembered,
    shares,
    tutorial,
)
from rnngrad.study.open_model import open_model, state_after
from rnngrad.study.results import read_result
from rnngrad.study.runs import Run

Tables = dict[str, pd.DataFrame]
Arrays = dict[str, dict[str, NDArray]]


def measure_model(folder: Path, *model: Any) -> None:
    """Write a CSV for every measure of a model, comments.npz and triangle.npz.

    comments.npz has the curves of every comment by statistic.

    Args:
        folder: is there.
        model: arguments of :func:`measures`; without them the tutorial's example is measured.

    Raises:
        InputError: the embedding or the weights are missing or another model's.
    """
    tables, arrays = measures(*model) if model else ({"tutorial": tutorial.tutorial()}, {})
    for name, table in tables.items():
        digits = "%.6g" if name == "gates" else "%.6f"
        table.to_csv(folder / f"{name}.csv", index=False, float_format=digits)
    for name, own in arrays.items():
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **own)


def measures(
    run: Run,
    spectral_steps: int,
    embed: Path,
    file: Path,
    train: TrainParams,
    predictions: Path | None,
) -> tuple[Tables, Arrays]:
    """Take all measures that the kind of model has.

    Args:
        run: names the model and its inputs.
        spectral_steps: the number of steps at which the spectral norm is taken.
        embed: folder of the stage embed.
        file, train, predictions: weights and settings of the training, and the trained model's
            predictions; None before training.
    """
    embedding = load_embedding(embed)
    model = module, head, inputs, start = open_model(run, embedding, file, train)
    log10 = curves.jacobian_curves(run, model, spectral_steps)
    before, x, labels = passages_of(run, embedding)
    state = state_after(module, before)
    its_shares, triangle = shares.shares(module, head, x, state)
    tables = {
        "curves": curves.over_comments(run, log10),
        "influences": influences.influences(module, x, state, run.inputs_seed),
        "shares": its_shares,
    }
    if predictions is not None:
        its = read_result(predictions, "seed", "comment", "label", "probability")
        its = its[its["seed"] == run.seed]
        tables["remembered"] = remembered.remembered(module, head, run, embedding, its)
    if run.cell == "rnn":
        tables["powers"] = powers.powers(module, inputs, start, log10["frobenius"])
        if run.weights == "init":
            scaled = powers.powers_at_radii(module, inputs, start)
            tables["powers"] = pd.concat([tables["powers"].assign(weights="init"), scaled])
    else:
        tables["gates"] = gates.gates(module, inputs, start)
    if run.cell == "lstm":
        tables["output_gates"] = output_gates.output_gates(
            module, head, x, labels, state, run.inputs_seed
        )
        tables["paths"] = paths.paths(module, inputs, start, log10)
    comments = {name: values.astype(np.float32) for name, values in log10.items()}
    arrays = {"comments": comments, "triangle": {"triangle": triangle}}
    return {name: _labelled(table, run) for name, table in tables.items()}, arrays


def _labelled(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The table with the model's names in front; a column that it has keeps its values."""
    names = run.model_dump(include={"cell", "seed", "weights"})
    own = table.columns.difference([*names], sort=False)
    return table.assign(**{k: table.get(k, v) for k, v in names.items()})[[*names, *own]]
