"""A result that is published in tests, and what MLflow then has."""

from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from rnngrad import live, tracking
from rnngrad.study.results import Results

MODELS = Path("build/train")
ROOT = Path(__file__).parents[2]
METRICS = {"lstm": {"trained": {"test": {"accuracy": 0.75, "auroc": None}}}}


def make_tests(*cells: str, weights: str = "trained_without_padding") -> pd.DataFrame:
    rows = [(cell, weights, seed, 0.75) for cell in cells for seed in (1, 2, 3, 4, 5)]
    return pd.DataFrame(rows, columns=["cell", "weights", "seed", "accuracy"])


def make_model(cell: str, padding: str, seed: int) -> None:
    folder = MODELS / cell / padding / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("init", "trained"):
        (folder / f"{name}-{seed}.pt").write_bytes(b"weights")
    (folder / "digest.txt").write_text("0123456789abcdef" * 4)


def publish(results: Results, files: list[Path], uri: str) -> bool:
    return tracking.publish(results, METRICS, "an answer", files, files, MODELS, uri)


def runs_of(uri: str) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(live.EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def statuses(uri: str) -> list[str]:
    return [run.info.status for run in runs_of(uri)]
