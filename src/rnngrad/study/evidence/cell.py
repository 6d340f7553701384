"""What is measured of each model for the claims about learning and about blocked gradients."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.params import EmbedParams, TrainParams
from rnngrad.study.evidence import influence, output_gate_path, telling, weight_gradient_shares
from rnngrad.study.evidence.passages import Model, Passages, models_of, read_passages

KEYS = ["cell", "seed", "weights"]
COLUMNS = {
    "shares": weight_gradient_shares.COLUMNS,
    "influences": influence.COLUMNS,
    "output_gates": output_gate_path.COLUMNS,
    "remembered": telling.COLUMNS,
}


class Evidence(NamedTuple):
    """Of all models of one cell; every frame begins with the columns cell, seed, weights.

    Attributes:
        shares: see :func:`~rnngrad.study.evidence.weight_gradient_shares.weight_gradient_shares`.
        influences: see :func:`~rnngrad.study.evidence.influence.influence`.
        output_gates: see :func:`~rnngrad.study.evidence.output_gate_path.output_gate_path`;
            no rows but for an LSTM.
        remembered: see :func:`~rnngrad.study.evidence.telling.remembered_by_distance`; trained
            models only, no rows where no telling word is known.
        triangles: by weights (init | trained), (T, T) float32, the median over seeds.
    """

    shares: pd.DataFrame
    influences: pd.DataFrame
    output_gates: pd.DataFrame
    remembered: pd.DataFrame
    triangles: dict[str, NDArray[np.float32]]

    def frames(self) -> dict[str, pd.DataFrame]:
        """The frames by their names."""
        return {name: getattr(self, name) for name in COLUMNS}


def measure_cell(
    cell: str,
    folder: Path,
    train: TrainParams,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    embed: EmbedParams,
    seed: int,
) -> Evidence:
    """Measure every model of a cell.

    Args:
        cell, folder, train: which models, the output folder of their training, their settings.
        sample, vectors, embed: what they read.
        seed: of the random directions.

    Raises:
        InputError: a weight file is missing or another model's.
    """
    measure = _Measure(cell, read_passages(sample, vectors, embed), seed)
    predictions = pd.read_csv(folder / "predictions.csv")
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    triangles: dict[str, list[NDArray[np.float32]]] = {}
    for model in models_of(cell, folder, train, vectors.shape[1]):
        measured, triangle = measure(model)
        triangles.setdefault(model.weights, []).append(triangle)
        if model.weights == "trained":
            its = predictions[predictions["seed"] == model.seed].drop(columns="seed")
            measured["remembered"] = telling.remembered_by_distance(
                model.classifier, its, sample, vectors, embed
            )
        for name, frame in measured.items():
            frames[name].append(_labelled(frame, cell, model))
    joined = {name: _joined(parts, COLUMNS[name]) for name, parts in frames.items()}
    medians = {
        weights: weight_gradient_shares.median_triangle(each) for weights, each in triangles.items()
    }
    return Evidence(**joined, triangles=medians)


class _Measure(NamedTuple):
    """What is measured of every model on the same passages."""

    cell: str
    passages: Passages
    seed: int

    def __call__(self, model: Model) -> tuple[dict[str, pd.DataFrame], NDArray[np.float32]]:
        classifier, passages = model.classifier, self.passages
        start = passages.start(classifier.recurrent)
        found = weight_gradient_shares.weight_gradient_shares(classifier, passages, start)
        measured = {
            "shares": found.shares,
            "influences": influence.influence(classifier.recurrent, passages, start, self.seed),
        }
        if self.cell == "lstm":
            measured["output_gates"] = output_gate_path.output_gate_path(
                classifier, passages, start, self.seed
            )
        return measured, found.triangle


def _labelled(frame: pd.DataFrame, cell: str, model: Model) -> pd.DataFrame:
    names = {"cell": cell, "seed": model.seed, "weights": model.weights}
    return frame.assign(**names)[[*names, *frame.columns]]


def _joined(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    filled = [frame for frame in frames if not frame.empty]
    if not filled:
        return pd.DataFrame(columns=[*KEYS, *columns])
    return pd.concat(filled, ignore_index=True)
