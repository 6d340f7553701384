"""Epochs in MLflow while training runs."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger

from rnngrad.errors import InputError
from rnngrad.models.live import EXPERIMENT, connect, live_logger, make_experiment


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
    with pytest.raises(InputError, match="MLflow at nonsense://elsewhere: "):
        make_experiment()


# ends itself at the n-th statement that it sends to its database
ENDED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from rnngrad.models.live import connect
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
left = [int(sys.argv[2])]
def count(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
event.listen(Engine, "before_cursor_execute", count)
connect("sqlite:///" + sys.argv[1], "study")
"""


@pytest.mark.parametrize(
    ("statement", "how"), [(3, "SIGKILL"), (60, "SIGKILL"), (60, "SIGINT"), (400, "SIGKILL")]
)
def test_a_database_ended_while_it_is_made_is_made_anew(
    statement: int, how: str, tmp_path: Path
) -> None:
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", ENDED, str(path), str(statement), how]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert not path.exists()
    client, experiment = connect(f"sqlite:///{path}", "study")
    assert client.get_experiment(experiment).name == "study"
    assert connect(f"sqlite:///{path}", "study")[1] == experiment


@pytest.mark.parametrize("content", [b"no database" * 100, None])
def test_a_broken_database_is_named_with_what_to_do(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mlflow.db"
    if content is None:  # as it is left by an MLflow that is ended while it makes one
        with closing(sqlite3.connect(path)) as half:
            half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
            half.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            half.commit()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="is broken, move it away and run the same") as caught:
        connect(f"sqlite:///{path}", "study")
    assert str(caught.value).startswith(f"MLflow at sqlite:///{path}: cannot be used: ")
    assert "\n" not in str(caught.value)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
