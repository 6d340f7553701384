"""Epochs in MLflow while training runs."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
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


def test_nothing_is_logged_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_experiment(tmp_path)
    with live_run("lstm seed 1", "0123", tmp_path) as log:
        log((1, {"train_loss": 0.5}))


def test_epochs_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'live.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    make_experiment(tmp_path)
    make_experiment(tmp_path)
    with live_run("lstm seed 1", "0123", tmp_path) as log:
        for epoch in (1, 2):
            log((epoch, {"train_loss": 0.5 / epoch}))
    with pytest.raises(InputError), live_run("lstm seed 2", "4567", tmp_path):
        raise InputError("training diverges")
    failed, run = logged(uri)
    assert (run.info.run_name, run.info.status) == ("lstm seed 1", "FINISHED")
    points = MlflowClient(uri).get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.25)]
    assert (failed.info.run_name, failed.info.status) == ("lstm seed 2", "FAILED")


def test_a_server_that_does_not_answer_costs_one_line_and_seconds(
    silent_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    begun = time.monotonic()
    make_experiment(tmp_path)
    assert time.monotonic() < begun + 10
    with live_run("lstm seed 1", "0123", tmp_path) as log:
        before = time.monotonic()
        for epoch in range(100):
            log((epoch, {"train_loss": 0.5}))
        assert time.monotonic() < before + 1
    assert time.monotonic() < before + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"MLflow at {silent_server}: ")
    assert line.endswith("training goes on without it")
    assert len(line) < 300


def test_a_server_that_drips_does_not_stop_training(
    listen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every byte comes in time; the answer never does."""
    server = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", drip=b" ")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server}")
    begun = time.monotonic()
    make_experiment(tmp_path)
    assert time.monotonic() < begun + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(": no answer within 8 s; training goes on without it")


def log_three_models(folder: Path) -> None:
    for seed in (1, 2, 3):
        with live_run(f"lstm seed {seed}", "0123", folder) as log:
            log((1, {"train_loss": 0.5}))


def test_a_server_that_fell_silent_costs_all_processes_one_line_and_seconds(
    silent_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It answered when the experiment was made, and no model after the first ones asks it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    make = multiprocessing.get_context("fork").Process
    begun = time.monotonic()
    workers = [make(target=log_three_models, args=(tmp_path / "new",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert time.monotonic() < begun + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"lstm seed 1: MLflow at {silent_server}: ")
    assert line.endswith("; training goes on without it")


def test_a_server_that_is_back_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://elsewhere")
    make_experiment(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'live.db'}")
    log_three_models(tmp_path)
    assert not (tmp_path / "live.db").exists()
    make_experiment(tmp_path)
    log_three_models(tmp_path)
    assert len(logged(os.environ["MLFLOW_TRACKING_URI"])) == 3


def test_an_answer_of_another_shape_is_one_line(
    listen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server}")
    make_experiment(tmp_path)
    (line,) = capfd.readouterr().err.splitlines()
    assert ": cannot be used: " in line


def test_a_database_that_is_lost_on_the_way_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "live.db"
    uri = f"sqlite:///{path}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    make_experiment(tmp_path)
    with live_run("lstm seed 1", "0123", tmp_path) as log:
        log((1, {"train_loss": 0.5}))
        while not (logged(uri) and logged(uri)[0].data.metrics):
            time.sleep(0.1)
        with closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE metrics")
        log((2, {"train_loss": 0.5}))
        log((3, {"train_loss": 0.5}))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("lstm seed 1: MLflow at ")


def test_a_database_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://elsewhere")
    make_experiment(tmp_path)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("MLflow at nonsense://elsewhere: cannot be used: ")


def test_a_folder_that_cannot_be_written_to_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/new.db")
    begun = time.monotonic()
    make_experiment(tmp_path)
    assert time.monotonic() < begun + 10
    (line,) = capfd.readouterr().err.splitlines()
    assert "unable to open database file" in line


def test_a_database_that_another_process_holds_is_one_line_within_seconds(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connect(f"sqlite:///{path}", "study")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with pytest.raises(InputError, match=r"cannot be used: database is locked$"):
            connect(f"sqlite:///{path}", "study")
        assert time.monotonic() < begun + 10


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_database_that_is_cut_is_one_line(share: float, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.db", tmp_path / "mlflow.db"
    connect(f"sqlite:///{whole}", "study")
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="is broken, move it away") as caught:
        connect(f"sqlite:///{path}", "study")
    assert len(str(caught.value)) <= 300


# ends itself at the n-th statement that it sends to its database
ENDED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from rnngrad.live import connect
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
