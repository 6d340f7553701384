"""What the claims are judged by, of all models of a cell, as many at a time as there are cores."""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from rnngrad.params import Params
from rnngrad.study.results import WEIGHTS
from rnngrad.workers import run_jobs


class ModelEvidence(NamedTuple):
    """Of one model.

    Attributes:
        weights: init | trained.
        frames: by name, as the modules of this package give them, behind the columns cell, seed,
            weights: shares (of the weight gradient), influences, output_gates (no rows but for an
            LSTM), remembered (by distance; no rows of an untrained model, nor where no telling word
            is known); of an LSTM also paths, of an RNN also powers, where an untrained model has
            rows of the weights radius 0.9 and radius 1.1.
        triangle: (T, T) float32, see
            :class:`~rnngrad.study.evidence.weight_gradient_shares.WeightGradientShares`.
    """

    weights: str
    frames: dict[str, pd.DataFrame]
    triangle: NDArray[np.float32]


class Evidence(NamedTuple):
    """Of all models of a cell.

    Attributes:
        frames: those of the models, one after another; of an LSTM also ``tutorial``, see
            :func:`~rnngrad.study.evidence.weight_gradient_shares.tutorial_table`.
        triangles: by weights (init | trained), (T, T) float32, entry by entry the median over
            seeds; NaN above the diagonal.
    """

    frames: dict[str, pd.DataFrame]
    triangles: dict[str, NDArray[np.float32]]


def measure_cell(cell: str, build: Path, params: Params) -> Evidence:
    """Measure every model of a cell.

    Args:
        cell: ``rnn``, ``lstm`` or ``gru``.
        build, params: see :func:`~rnngrad.study.evidence.measuring.measure_model`.

    Raises:
        InputError: an output of the stages before is missing or another model's.
    """
    models = [(seed, weights) for seed in params.train_of(cell).seeds for weights in WEIGHTS]
    jobs: list[Any] = [(_measure, cell, build, params, *model) for model in models]
    if cell == "lstm":
        jobs.append((_tutorial,))
    done = run_jobs(operator.call, jobs)
    found: list[Any] = list(tqdm(done, f"measuring {cell}", len(jobs), unit="job", disable=None))
    evidence = join(found[: len(models)])
    if cell == "lstm":
        evidence.frames["tutorial"] = found[-1]
    return evidence


# torch takes seconds to import: only the workers need it
def _measure(*model: Any) -> ModelEvidence:
    from rnngrad.study.evidence.measuring import measure_model

    return measure_model(*model)


def _tutorial() -> pd.DataFrame:
    from rnngrad.study.evidence.weight_gradient_shares import tutorial_table

    return tutorial_table()


def join(models: Sequence[ModelEvidence]) -> Evidence:
    """All models of a cell, in the order of its seeds."""
    frames = {name: _joined([model.frames[name] for model in models]) for name in models[0].frames}
    triangles: dict[str, list[NDArray[np.float32]]] = {}
    for model in models:
        triangles.setdefault(model.weights, []).append(model.triangle)
    medians = {w: np.median(np.stack(each), axis=0) for w, each in triangles.items()}
    return Evidence(frames, {w: median.astype(np.float32) for w, median in medians.items()})


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # a frame without rows has no types that another one would have to be reconciled with
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled or frames[:1], ignore_index=True)
