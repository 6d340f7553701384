"""All measurements of a cell in one go, on a few tiny models."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.models.weights import weight_file
from rnngrad.params import EmbedParams, TrainParams
from rnngrad.study.evidence.cell import COLUMNS, KEYS, Evidence, measure_cell

D = 3
LENGTHS = [9, 11, 7, 12, 8, 13, 6, 10]


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_every_model_is_measured_and_twice_the_same(
    cell: str,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    make_embed: Callable[..., EmbedParams],
    make_train_params: Callable[..., TrainParams],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    train = make_train_params(seeds=[2, 5])
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    distance = np.array([np.nan, 4, np.nan, 1, np.nan, 9, np.nan, np.nan], dtype=np.float32)
    sample = replace(sample, telling_distance=distance)
    for seed in train.seeds:
        for weights in ("init", "trained"):
            torch.save(
                CommentClassifier(cell, D, train).weights(), weight_file(tmp_path, weights, seed)
            )
    predictions = {"comment": np.arange(8), "label": sample.labels, "probability": 0.6}
    pd.concat([pd.DataFrame(predictions).assign(seed=seed) for seed in train.seeds]).to_csv(
        tmp_path / "predictions.csv", index=False
    )

    def measure() -> Evidence:
        return measure_cell(cell, tmp_path, train, sample, vectors, make_embed("pre"), seed=1)

    found, again = measure(), measure()
    for name, columns in COLUMNS.items():
        frame = getattr(found, name)
        assert list(frame) == KEYS + columns
        assert frame.to_csv() == getattr(again, name).to_csv()
        models = {*frame[["seed", "weights"]].itertuples(index=False, name=None)}
        both = {(seed, weights) for seed in (2, 5) for weights in ("init", "trained")}
        if name == "remembered":
            assert models == {(2, "trained"), (5, "trained")}
        else:
            assert models == (set() if name == "output_gates" and cell != "lstm" else both)
    assert {*found.triangles} == {"init", "trained"}
    assert all(triangle.shape == (10, 10) for triangle in found.triangles.values())
