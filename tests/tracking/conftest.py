"""A study of one model, whose files lie in a folder of their own."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from published import ROOT, make_model, make_tests

from rnngrad.params import read_params
from rnngrad.study.results import Results


@pytest.fixture
def results() -> Results:
    params = read_params(ROOT / "params.yaml")
    train = params.train.model_copy(update={"padding": ["none"]})
    params = params.model_copy(update={"cells": {"lstm": {"seeds": [5]}}, "train": train})
    curves = pd.DataFrame(
        {
            "cell": "lstm",
            "seed": 5,
            "weights": ["init"] * 3 + ["trained_without_padding"],
            "statistic": "frobenius",
            "step": [1, 2, 3, 1],
            "log10_mean": [-0.5, -700.25, float("-inf"), -0.75],
        }
    )
    history = pd.DataFrame(
        {
            "cell": "lstm",
            "seed": 5,
            "weights": "trained_without_padding",
            "epoch": [1, 2],
            "split": "train",
            "loss": [0.5, 0.25],
            "accuracy": [0.5, 0.75],
        }
    )
    return Results(
        params=params,
        curves=curves,
        gates=pd.DataFrame(),
        history=history,
        tests=make_tests("lstm"),
        model_cards={},
        data_card={"sample": {"comments": 3}},
        embed_card={},
        conditions=pd.DataFrame(),
        condition_seeds=pd.DataFrame(),
        condition_curves=pd.DataFrame(
            {
                "condition": "question",
                "cell": "lstm",
                "step": [1, 2, 3],
                "log10": [-0.5, -2.5, float("-inf")],
            }
        ),
        evidence={},
        triangles={},
    )


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which MLflow has made its tables, which takes seconds, and nothing more."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture
def files(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    shutil.copy(tables, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    path = Path("reports/figures/jacobian.svg")
    path.parent.mkdir(parents=True)
    path.write_text("<svg/>")
    make_model("lstm", "none", 5)
    return [path]
