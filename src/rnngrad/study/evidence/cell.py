"""All models of a cell, probed and measured for the claims, on all cores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from rnngrad.params import Params
from rnngrad.study.probed import ProbedModel
from rnngrad.study.results import WEIGHTS
from rnngrad.workers import pool


class ModelEvidence(NamedTuple):
    """The evidence of one model.

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


class MeasuredCell(NamedTuple):
    """All models of a cell.

    Attributes:
        probed: model by model; of every seed first the one before training, then the trained one.
        frames: those of the models, one after another; of an LSTM also ``tutorial``, see
            :func:`~rnngrad.study.evidence.weight_gradient_shares.tutorial_table`.
        triangles: by weights (init | trained), (T, T) float32, entry by entry the median over
            seeds; NaN above the diagonal.
    """

    probed: list[ProbedModel]
    frames: dict[str, pd.DataFrame]
    triangles: dict[str, NDArray[np.float32]]


def measure_cell(cell: str, build: Path, params: Params) -> MeasuredCell:
    """Probe and measure every model of a cell.

    Args:
        cell: ``rnn``, ``lstm`` or ``gru``.
        build: folder of the stages' outputs: embed, train/<cell>.
        params: those of these stages, and of the probe.

    Raises:
        InputError: the embedding or the weights are missing or another model's.
    """
    models = [(seed, weights) for seed in params.train_of(cell).seeds for weights in WEIGHTS]
    jobs: list[Any] = [(_measure, cell, build, params, *model) for model in models]
    if cell == "lstm":
        jobs.append((_tutorial,))
    with pool(len(jobs)) as executor:
        futures = [executor.submit(*job) for job in jobs]
        bar = tqdm(futures, f"probing {cell}", unit="model", disable=None)
        found: list[Any] = [future.result() for future in bar]
    probed, measured = zip(*found[: len(models)], strict=True)
    frames = joined_frames(measured)
    if cell == "lstm":
        frames["tutorial"] = found[-1]
    return MeasuredCell(list(probed), frames, median_triangles(measured))


# torch takes seconds to import: only the workers need it
def _measure(
    cell: str, build: Path, params: Params, seed: int, weights: str
) -> tuple[ProbedModel, ModelEvidence]:
    from rnngrad.study.evidence.measuring import measure_model
    from rnngrad.study.probing import probe_from_files

    probed = probe_from_files(cell, build, params, seed, weights)
    return probed, measure_model(cell, build, params, probed)


def _tutorial() -> pd.DataFrame:
    from rnngrad.study.evidence.weight_gradient_shares import tutorial_table

    return tutorial_table()


def joined_frames(models: Sequence[ModelEvidence]) -> dict[str, pd.DataFrame]:
    """By name, one below another."""
    return {name: _joined([model.frames[name] for model in models]) for name in models[0].frames}


def median_triangles(models: Sequence[ModelEvidence]) -> dict[str, NDArray[np.float32]]:
    """By weights, entry by entry."""
    triangles: dict[str, list[NDArray[np.float32]]] = {}
    for model in models:
        triangles.setdefault(model.weights, []).append(model.triangle)
    medians = {w: np.median(np.stack(each), axis=0) for w, each in triangles.items()}
    return {w: median.astype(np.float32) for w, median in medians.items()}


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # a frame without rows has no types that another one would have to be reconciled with
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled or frames[:1], ignore_index=True)
