"""All measures of a cell's models, from the files of the stages before, on tiny models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.params import EmbedParams, Params, ProbeParams, read_params
from rnngrad.study import WEIGHTS
from rnngrad.study.measures import measure_model
from rnngrad.study.results import MEASURES
from rnngrad.study.runs import probe_jobs
from tiny import make_sample, make_train_params

D = 3
LENGTHS = [9, 11, 7, 12, 8, 13, 6, 10]
SEEDS = [2, 5]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def params() -> Params:
    params = read_params(ROOT / "params.yaml")
    embed = params.embed.model_dump() | {"dimensions": D, "max_length": None}
    changes = {
        "embed": EmbedParams.model_validate(embed),
        "train": make_train_params(seeds=SEEDS, padding=["pre", "none"]),
        "cells": {cell: {} for cell in RECURRENT},
        "probe": ProbeParams(comments=3, initial_state="uniform", spectral_steps=2, seed=1),
    }
    return params.model_copy(update=changes)


def build_for(cell: str, params: Params, sample: TokenizedSample, vectors: np.ndarray) -> Path:
    """The files that the stages embed and train leave, below the current folder."""
    build = Path("build")
    (build / "embed").mkdir(parents=True)
    sample.save(build / "embed" / "tokens.npz")
    np.save(build / "embed" / "vectors.npy", vectors)
    predictions = {"comment": np.arange(8), "label": sample.labels, "probability": 0.6}
    for _, _, _, written, file, _ in filter(None, probe_jobs(params, cell, build).values()):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(CommentClassifier(cell, D, params.train).state_dict(), file)
        if written:
            pd.DataFrame(predictions).to_csv(written, index=False)
    return build


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_every_model_is_measured_and_twice_the_same(
    cell: str, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    distance = np.array([np.nan, 4, np.nan, 1, np.nan, 9, np.nan, np.nan], dtype=np.float32)
    build = build_for(cell, params, replace(sample, telling_distance=distance), vectors)
    jobs = probe_jobs(params, cell, build)
    models = [f"{weights}-{seed}" for seed in SEEDS for weights in WEIGHTS]
    assert list(jobs) == models + (["tutorial"] if cell == "lstm" else [])
    for name, job in jobs.items():
        for folder in (tmp_path / "once" / name, tmp_path / "twice" / name):
            folder.mkdir(parents=True)
            measure_model(folder, *job)
    for name in models:
        files = {file.name: file for file in (tmp_path / "once" / name).iterdir()}
        weights, seed = name.split("-")
        expected = {
            f"{measure}.csv"
            for measure, cells in MEASURES.items()
            if cell in cells and (measure, weights) != ("remembered", "init")
        }
        assert {*files} == expected | {"triangle.npz"}
        for file in files.values():
            assert file.read_bytes() == (tmp_path / "twice" / name / file.name).read_bytes()
            if file.suffix == ".csv":
                table = pd.read_csv(file)
                assert list(table)[:3] == ["cell", "seed", "weights"]
                assert {*table["cell"]} == {cell}
                assert {*table["seed"]} == {int(seed)}
                scaled = {"radius 0.9", "radius 1.1"} if file.stem == "powers" else set()
                assert {*table["weights"]} == {weights} | (scaled if weights == "init" else set())
        with np.load(tmp_path / "once" / name / "triangle.npz") as arrays:
            assert arrays["triangle"].shape == (10, 10)
        curves = pd.read_csv(tmp_path / "once" / name / "curves.csv")
        assert {"column_sum", "frobenius", "spectral"} <= {*curves["statistic"]}
        # the longest of the three
        assert curves["step"].max() == (13 if weights in ("init", "trained") else 12)
        assert curves["examples"].max() == 3
