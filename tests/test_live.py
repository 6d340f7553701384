"""Epochs in MLflow while training runs."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from rnngrad.errors import InputError
from rnngrad.live import EXPERIMENT, connect, live_run, make_experiment


@pytest.fixture
def silent_server(listen: Callable[..., str]) -> str:
    """It takes every connection and never says a word."""
    return f"http://{listen()}"


def logged(uri: str) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def test_nothing_is_logged_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_experiment()
    with live_run("lstm seed 1", "0123") as log:
        log((1, {"train_loss": 0.5}))


def test_epochs_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'live.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    make_experiment()
    make_experiment()
    with live_run("lstm seed 1", "0123") as log:
        for epoch in (1, 2):
            log((epoch, {"train_loss": 0.5 / epoch}))
    with pytest.raises(InputError), live_run("lstm seed 2", "4567"):
        raise InputError("training diverges")
    failed, run = logged(uri)
    assert (run.info.run_name, run.info.status) == ("lstm seed 1", "FINISHED")
    points = MlflowClient(uri).get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.25)]
    assert (failed.info.run_name, failed.info.status) == ("lstm seed 2", "FAILED")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_does_not_answer_costs_one_line_and_seconds(
    silent_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    begun = time.monotonic()
    make_experiment()
    assert time.monotonic() < begun + 10
    with live_run("lstm seed 1", "0123") as log:
        before = time.monotonic()
        for epoch in range(100):
            log((epoch, {"train_loss": 0.5}))
        assert time.monotonic() < before + 1
    assert time.monotonic() < before + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"MLflow at {silent_server}: ")
    assert line.endswith("training goes on without it")
    assert len(line) < 300
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)  # it answered, and fell silent
    with live_run("lstm seed 2", "4567") as log:
        for epoch in (1, 2):
            log((epoch, {"train_loss": 0.5}))
    assert time.monotonic() < before + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"lstm seed 2: MLflow at {silent_server}: ")


def test_an_answer_of_another_shape_is_one_line(
    listen: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server}")
    make_experiment()
    (line,) = capfd.readouterr().err.splitlines()
    assert ": cannot be used: " in line


def test_a_database_that_is_lost_on_the_way_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "live.db"
    uri = f"sqlite:///{path}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    make_experiment()
    with live_run("lstm seed 1", "0123") as log:
        log((1, {"train_loss": 0.5}))
        while not (logged(uri) and logged(uri)[0].data.metrics):
            time.sleep(0.1)
        with closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE metrics")
        log((2, {"train_loss": 0.5}))
        log((3, {"train_loss": 0.5}))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("lstm seed 1: MLflow at ")


def test_a_folder_that_cannot_be_written_to_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/new.db")
    begun = time.monotonic()
    make_experiment()
    assert time.monotonic() < begun + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert "unable to open database file" in line


@pytest.mark.parametrize("kind", ["no database", "cut", "half made"])
def test_a_broken_database_is_named_with_what_to_do(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mlflow.db"
    if kind == "no database":
        path.write_text(kind * 100)
    elif kind == "cut":
        connect(f"sqlite:///{path}", "study")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:  # as it is left by an MLflow that is ended while it makes one
        with closing(sqlite3.connect(path)) as half:
            half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
            half.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            half.commit()
    with pytest.raises(InputError, match="is broken, move it away and run the same") as caught:
        connect(f"sqlite:///{path}", "study")
    assert str(caught.value).startswith(f"MLflow at sqlite:///{path}: cannot be used: ")
    assert "\n" not in str(caught.value)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
