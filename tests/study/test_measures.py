"""All measurements of a cell's models, from the files of the stages before, on tiny models."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.models.weights import weight_file
from rnngrad.params import EmbedParams, Params, ProbeParams, TrainParams, read_params
from rnngrad.study.evidence import path_rates, recurrent_powers
from rnngrad.study.evidence.cell import ModelEvidence, measure_cell, median_triangles
from rnngrad.study.evidence.measuring import COLUMNS
from rnngrad.study.results import WEIGHTS

D = 3
LENGTHS = [9, 11, 7, 12, 8, 13, 6, 10]
KEYS = ["cell", "seed", "weights"]
SEEDS = [2, 5]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(
    make_embed: Callable[..., EmbedParams], make_train_params: Callable[..., TrainParams]
) -> Params:
    probe = ProbeParams(comments=3, initial_state="uniform", spectral_steps=2, seed=1)
    changes = {
        "embed": make_embed("pre"),
        "train": make_train_params(seeds=SEEDS),
        "cells": {cell: {} for cell in RECURRENT},
        "probe": probe,
    }
    return read_params(ROOT / "params.yaml").model_copy(update=changes)


def build_for(
    cell: str, params: Params, sample: TokenizedSample, vectors: np.ndarray, build: Path
) -> None:
    """The files that the stages embed and train leave."""
    embed, train = build / "embed", build / "train" / cell
    for folder in (embed, train):
        folder.mkdir(parents=True)
    sample.save(embed / "tokens.npz")
    np.save(embed / "vectors.npy", vectors)
    predictions = {"comment": np.arange(8), "label": sample.labels, "probability": 0.6}
    by_seed = [pd.DataFrame(predictions).assign(seed=seed) for seed in SEEDS]
    pd.concat(by_seed).to_csv(train / "predictions.csv", index=False)
    for seed in SEEDS:
        for weights in WEIGHTS:
            classifier = CommentClassifier(cell, D, params.train)
            torch.save(classifier.weights(), weight_file(train, weights, seed))


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_every_model_is_measured_and_twice_the_same(
    cell: str,
    params: Params,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    distance = np.array([np.nan, 4, np.nan, 1, np.nan, 9, np.nan, np.nan], dtype=np.float32)
    build_for(cell, params, replace(sample, telling_distance=distance), vectors, tmp_path)
    models = [(seed, weights) for seed in SEEDS for weights in WEIGHTS]

    monkeypatch.setattr("rnngrad.study.evidence.cell.pool", lambda _: ThreadPoolExecutor(1))
    found, again = (measure_cell(cell, tmp_path, params) for _ in range(2))
    rates = {
        "lstm": {"paths": path_rates.COLUMNS},
        "rnn": {"powers": recurrent_powers.COLUMNS},
        "gru": {},
    }
    tutorial = ["tutorial"] if cell == "lstm" else []
    assert {*found.frames} == {*COLUMNS, *rates[cell], *tutorial}
    for name, columns in (COLUMNS | rates[cell]).items():
        frame = found.frames[name]
        assert frame.to_csv() == again.frames[name].to_csv()
        assert list(frame) == KEYS + columns
        assert measured(frame) == expected(cell, name, models)
    assert [(model.seed, model.weights) for model in found.probed] == models
    assert list(found.triangles) == ["init", "trained"]
    assert all(triangle.shape == (10, 10) for triangle in found.triangles.values())


def measured(frame: pd.DataFrame) -> list[tuple[int, str]]:
    """Which models, in order."""
    return [*frame[["seed", "weights"]].drop_duplicates().itertuples(index=False, name=None)]


def expected(cell: str, name: str, models: list[tuple[int, str]]) -> list[tuple[int, str]]:
    if name == "output_gates" and cell != "lstm":
        return []
    if name == "remembered":
        return [(seed, weights) for seed, weights in models if weights == "trained"]
    if name == "powers":
        of_seed = ["init", "radius 0.9", "radius 1.1", "trained"]
        return [(seed, weights) for seed in SEEDS for weights in of_seed]
    return models


def test_triangles_are_medians_of_the_same_weights() -> None:
    one = np.array([[0, np.nan], [-2, 0]], dtype=np.float32)
    models = [ModelEvidence("init", {}, one + k) for k in (0, 1, 5)]
    found = median_triangles([*models, ModelEvidence("trained", {}, one)])
    np.testing.assert_array_equal(found["init"], one + 1)
    np.testing.assert_array_equal(found["trained"], one)
    assert found["init"].dtype == np.float32
