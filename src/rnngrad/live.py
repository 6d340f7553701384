"""MLflow: a client of a server or a database, and epochs logged there while training runs."""

import logging
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rnngrad.errors import InputError
from rnngrad.stage import alone, whole, within

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "rnngrad"
MODEL = "rnngrad.model"  # the tag by which publishing finds a model's run
URI = "MLFLOW_TRACKING_URI"
MARK = "given_up"
SQLITE = "sqlite:///"
BROKEN = (
    "; if the database is broken, move it away and run the same command again: every result is in "
    "build/ and reports/"
)
SECONDS = 4  # that one answer may take; MLflow itself would try for four minutes
NO_FILE = re.compile(r"sqlite://$|sqlite:.*(:memory:|\?)")
NOT_BROKEN = re.compile("full|locked|readonly|unable to open")


def connect(
    uri: str, name: str, artifacts: str | None = None, seconds: float | None = None
) -> tuple["MlflowClient", str]:
    """A client of a server or database, and the id of an experiment; both are made where missing.

    A new experiment keeps its files at ``artifacts``; None leaves that to MLflow. InputError where
    that fails, or takes more than so many seconds, a minute where a database is to be made.
    """
    import_module("mlflow")  # it takes seconds, which are not the server's
    for noisy in ("alembic", "mlflow"):  # they also raise what they log
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if NO_FILE.match(uri):
        raise InputError(f"{URI}={uri} names no file, or not a file alone: {SQLITE}mlflow.db does")
    seconds = seconds or (60 if _is_database(uri) else 2 * SECONDS)
    try:
        limit = None if uri.startswith(SQLITE) else seconds
        return within(limit, lambda: _connect(uri, name, artifacts))
    except TimeoutError as error:
        line = f"MLflow at {without_password(uri)}: no answer within {seconds:g} s"
        raise InputError(line) from error
    except Exception as error:  # an address or an answer may raise anything
        raise _unusable(uri, error) from error


def _connect(uri: str, name: str, artifacts: str | None) -> tuple["MlflowClient", str]:
    from mlflow import MlflowClient
    from sqlalchemy import create_engine

    with alone(f"make {place_of(uri)}"):
        if uri.startswith(SQLITE):
            _make_database(Path(uri.removeprefix(SQLITE)))
        elif _is_database(uri):  # where nobody answers, MLflow tries for minutes
            create_engine(uri, connect_args={"connect_timeout": SECONDS}).connect().close()
        client = MlflowClient(tracking_uri=uri)
        if found := client.get_experiment_by_name(name):
            place = str(found.artifact_location)
            if artifacts and place != artifacts and place.endswith("/mlartifacts"):
                raise InputError(f"MLflow at {uri}: a copy, its files are in {place}; move it away")
            return client, found.experiment_id
        # its pages are those of trainings, and not of GenAI
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return client, client.create_experiment(name, artifact_location=artifacts, tags=kind)


def _is_database(uri: str) -> bool:
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return re.split("[:+]", uri)[0] in DATABASE_ENGINES


def place_of(uri: str) -> str:
    """Give a database's path, however the address spells it; of a server its address."""
    return str(Path(uri.removeprefix(SQLITE)).resolve()) if uri.startswith(SQLITE) else uri


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turn whatever a server or database raises into one line, an InputError."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError) as error:
        raise _unusable(uri, error) from error


def _unusable(uri: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = str(error).partition("\n")[0] or type(error).__name__
    cure = BROKEN if uri.startswith(SQLITE) and not NOT_BROKEN.search(reason) else ""
    return InputError(without_password(f"MLflow at {uri}: cannot be used: {reason}{cure}"))


def without_password(text: str) -> str:
    """Hide the password of an address that stands in a text."""
    return re.sub(r"(://[^\s:@/]*):\S*@", r"\1:***@", text)


def _make_database(path: Path) -> None:
    """Check a database, or make it under another name: MLflow leaves a broken one if ended."""
    from mlflow import MlflowClient

    with nullcontext(path) if path.exists() else whole(path) as file:
        # where nobody can write to it, MLflow would try for two minutes
        with closing(sqlite3.connect(file, timeout=SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            ((found,),) = database.execute("PRAGMA quick_check(1)").fetchall()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        MlflowClient(tracking_uri=f"{SQLITE}{file}").get_experiment_by_name(EXPERIMENT)


def make_experiment(folder: Path) -> None:
    """Make what the trainings log to, before they start: several at once get in each other's way.

    Where it cannot be used, now or later, one line says so. A mark in the trainings' ``folder``
    then keeps all of them from asking again. Nothing that tracking does stops a training.
    """
    (folder / MARK).unlink(missing_ok=True)
    if uri := os.environ.get(URI):
        try:
            connect(uri, EXPERIMENT, seconds=2 * SECONDS)
        except Exception as error:
            _give_up(folder, error)


@contextmanager
def live_run(
    name: str, model: str, folder: Path
) -> Iterator[Callable[[tuple[int, dict[str, float]]], None]]:
    """Give a function that logs an epoch and its metrics, where ``MLFLOW_TRACKING_URI`` is set.

    ``model``, the digest of what it depends on, tags the run. ``folder`` is that of
    `make_experiment`. A thread sends them: training neither waits for a server nor ends with it.
    """
    epochs: SimpleQueue[Any] = SimpleQueue()
    uri = "" if (folder / MARK).exists() else os.environ.get(URI, "")
    sender = Thread(target=_send, args=(uri, name, model, folder, epochs), daemon=True)
    sender.start()
    status = "FAILED"
    try:
        yield epochs.put
        status = "FINISHED"
    finally:
        epochs.put(status)
        sender.join(2 * SECONDS)
        if sender.is_alive():
            _give_up(folder, f"{name}: MLflow at {without_password(uri)}: no answer in time")


def _send(uri: str, name: str, model: str, folder: Path, epochs: "SimpleQueue[Any]") -> None:
    if not uri:
        return
    from mlflow.entities import Metric

    try:
        client, experiment = connect(uri, EXPERIMENT)
        run = client.create_run(experiment, tags={MODEL: model}, run_name=name).info.run_id
        while not isinstance(epoch := epochs.get(), str):
            step, metrics = epoch
            now = int(time.time() * 1000)
            client.log_batch(run, [Metric(key, metrics[key], now, step) for key in metrics])
        client.set_terminated(run, epoch)
    except Exception as error:  # a server or a database may raise anything
        _give_up(folder, f"{name}: {_unusable(uri, error)}")


def _give_up(folder: Path, reason: object) -> None:
    """Say why, unless another process has. Later models then do not wait for the server again."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch(exist_ok=False)
        tqdm.write(str(InputError(f"{reason}; training goes on without it")), file=sys.stderr)
