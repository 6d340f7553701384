"""The measures that are taken of every model: a function each, called like the CSV it makes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnngrad.data.batches import load_embedding
from rnngrad.study.measures import curves, gates, influences, output_gates, paths, powers
from rnngrad.study.measures.reach import reach
from rnngrad.study.measures.remembered import remembered
from rnngrad.study.measures.shares import shares
from rnngrad.study.measures.tutorial import tutorial
from rnngrad.study.results import read_result
from rnngrad.study.runs import Run
from rnngrad.study.runs.open_model import open_model, open_passage


def measure_model(folder: Path, *model: Any) -> None:
    """Write a CSV for every measure of a model, and triangle.npz.

    ``model`` is a job of :func:`rnngrad.study.runs.probe_jobs`; the empty one is the tutorial's own
    example. An embedding or weights that are missing or damaged are an `InputError`.
    """
    tables = _measures(folder, *model) if model else {"tutorial": tutorial()}
    for name, table in tables.items():
        digits = "%.6g" if name == "gates" else "%.6f"
        table.to_csv(folder / f"{name}.csv", index=False, float_format=digits)


def _measures(
    folder: Path, run: Run, spectral: int, embed: Path, predictions: Path | None, *training: Any
) -> dict[str, pd.DataFrame]:
    embedding = load_embedding(embed)
    model = open_model(run, embedding, *training)
    passage = open_passage(model, embedding)
    steps = curves.log_spaced_steps(model.inputs.x.shape[1], spectral)
    log10 = curves.jacobian_curves(model, steps, paths=run.cell == "lstm")
    tables = {"curves": curves.over_comments(run, log10), "reach": reach(passage)}
    tables["influences"] = influences.influences(passage)
    tables["shares"], triangle = shares(passage)
    if predictions is not None:
        tables["remembered"] = remembered(model, embedding, read_result(predictions))
    if run.cell == "rnn":
        scaled = [powers.powers_at_radii(model)] if run.weights == "init" else []
        own = powers.powers(model, log10["frobenius"]).assign(weights=run.weights)
        tables["powers"] = pd.concat([own, *scaled], ignore_index=True)
    else:
        tables["gates"] = gates.gates(model)
    if run.cell == "lstm":
        tables["output_gates"] = output_gates.output_gates(passage)
        tables["paths"] = paths.paths(model, log10)
    np.savez_compressed(folder / "triangle.npz", triangle=triangle)
    names = run.model_dump(include={"cell", "seed", "weights"})
    # scaled kernels come with a name of their own for the weights
    return {name: pd.DataFrame({**names, **own}, index=own.index) for name, own in tables.items()}
