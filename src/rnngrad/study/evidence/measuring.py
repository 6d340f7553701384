"""The measurements of one model for the claims."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.data.batches import load_embedding
from rnngrad.models.classifier import CommentClassifier
from rnngrad.models.weights import load_classifier, weight_file
from rnngrad.params import Params, ProbeParams
from rnngrad.study.evidence import influence, output_gate_path, telling, weight_gradient_shares
from rnngrad.study.evidence.cell import ModelEvidence
from rnngrad.study.evidence.passages import Passages, read_passages
from rnngrad.study.evidence.path_rates import path_rates
from rnngrad.study.evidence.recurrent_powers import powers_at_radii, recurrent_powers
from rnngrad.study.probed import ProbedModel
from rnngrad.study.probing import ProbeInputs, initial_state, probe_inputs
from rnngrad.study.results import read_result

PREDICTIONS = ["seed", "comment", "label", "probability"]
# of every cell, with or without rows
COLUMNS = {
    "shares": weight_gradient_shares.COLUMNS,
    "influences": influence.COLUMNS,
    "output_gates": output_gate_path.COLUMNS,
    "remembered": telling.COLUMNS,
}


def measure_model(cell: str, build: Path, params: Params, probed: ProbedModel) -> ModelEvidence:
    """Measure one model.

    Args:
        cell, probed: which one, and what the probe has found in it.
        build: folder of the stages' outputs: embed, train/<cell>.
        params: those of these stages.

    Raises:
        InputError: the embedding or the weights are missing or another model's.
    """
    seed, weights = probed.seed, probed.weights
    sample, vectors = load_embedding(build / "embed")
    path = weight_file(build / "train" / cell, weights, seed)
    classifier = load_classifier(path, cell, vectors.shape[1], params.train_of(cell))
    passages = read_passages(sample, vectors, params.embed)
    frames = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
    found, triangle = _on_passages(classifier, passages, params.probe.seed)
    frames |= found
    if weights == "trained":
        predictions = read_result(path.with_name("predictions.csv"), *PREDICTIONS)
        its = predictions[predictions["seed"] == seed].drop(columns="seed")
        frames["remembered"] = telling.remembered_by_distance(
            classifier, its, sample, vectors, params.embed
        )
    if cell != "gru":
        inputs = probe_inputs(sample, vectors, params.embed, params.probe)
        frames |= _rates(classifier.recurrent, inputs, params.probe, probed)
    names = {"cell": cell, "seed": seed, "weights": weights}
    labelled = {name: _labelled(frame, names) for name, frame in frames.items()}
    return ModelEvidence(weights, labelled, triangle)


def _on_passages(
    classifier: CommentClassifier, passages: Passages, seed: int
) -> tuple[dict[str, pd.DataFrame], NDArray[np.float32]]:
    """The measurements on stretches of words, and the triangle."""
    module = classifier.recurrent
    start = passages.start(module)
    found = weight_gradient_shares.weight_gradient_shares(classifier, passages, start)
    frames = {
        "shares": found.shares,
        "influences": influence.influence(module, passages, start, seed),
    }
    if isinstance(module, nn.LSTM):
        frames["output_gates"] = output_gate_path.output_gate_path(
            classifier, passages, start, seed
        )
    return frames, found.triangle


def _rates(
    module: nn.RNNBase, inputs: ProbeInputs, probe: ProbeParams, probed: ProbedModel
) -> dict[str, pd.DataFrame]:
    start = initial_state(module, len(inputs.inputs), probe)
    if isinstance(module, nn.LSTM):
        return {"paths": path_rates(module, inputs, start, probed.log10)}
    h = cast("Tensor", start)
    powers = recurrent_powers(module, inputs, h, probed.log10["frobenius"])
    if probed.weights == "init":
        scaled = powers_at_radii(module, inputs, h)
        powers = pd.concat([powers.assign(weights=probed.weights), scaled], ignore_index=True)
    return {"powers": powers}


def _labelled(frame: pd.DataFrame, names: dict[str, Any]) -> pd.DataFrame:
    """The frame with the names as its first columns; a column that it has keeps its values."""
    own = [column for column in frame if column not in names]
    return frame.assign(**{k: frame.get(k, v) for k, v in names.items()})[[*names, *own]]
