"""Epochs in MLflow while training runs."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger

from rnngrad.errors import InputError
from rnngrad.models.live import EXPERIMENT, live_logger, make_experiment


def test_nothing_is_logged_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_experiment()
    assert live_logger("lstm seed 1") is False


def test_trainings_log_to_an_experiment_made_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'live.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    make_experiment()
    make_experiment()
    found = MlflowClient(uri).get_experiment_by_name(EXPERIMENT)
    logger = live_logger("lstm seed 1")
    assert found is not None
    assert isinstance(logger, MLFlowLogger)
    assert logger.experiment_id == found.experiment_id


def test_a_database_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://elsewhere")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI=nonsense://elsewhere cannot be used"):
        make_experiment()
