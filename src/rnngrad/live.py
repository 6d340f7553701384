"""MLflow: a client of a server or a database, and epochs logged there while training runs."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rnngrad.errors import InputError
from rnngrad.stage import within

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "rnngrad"
MODEL = "rnngrad.model"  # the tag by which publishing finds a model's run
URI = "MLFLOW_TRACKING_URI"
BROKEN = "; if the database is broken, move it away and run the same again: results are in build/"
SECONDS = 4  # that one answer may take; MLflow itself would try for four minutes
LONGEST = 60  # seconds in which a database is made


def connect(uri: str, name: str, artifacts: str | None = None) -> tuple["MlflowClient", str]:
    """A client of a server or database, and the id of an experiment; both are made where missing.

    A new experiment keeps its files at ``artifacts``; None leaves that to MLflow. InputError where
    that fails, or takes more than a minute.
    """
    from mlflow import MlflowClient  # it takes seconds, which are not the server's
    from mlflow.store.db import utils

    for noisy in ("alembic", "mlflow"):  # they also raise what they log
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    utils.MAX_RETRY_COUNT = 1  # MLflow itself would try for two minutes to open a database

    def ask() -> tuple[MlflowClient, str]:
        client = MlflowClient(tracking_uri=uri)
        if found := client.get_experiment_by_name(name):
            place = str(found.artifact_location)
            if artifacts and place != artifacts and place.endswith("/mlartifacts"):
                raise InputError(f"MLflow at {uri}: a copy, its files are in {place}; move it away")
            return client, found.experiment_id
        # its pages are those of trainings, and not of GenAI
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return client, client.create_experiment(name, artifact_location=artifacts, tags=kind)

    with tracking_errors(uri, Exception):  # an address or an answer may raise anything
        return within(LONGEST, ask)


@contextmanager
def tracking_errors(uri: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn such errors of a server or database into one line, an InputError."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        cure = BROKEN if uri.startswith("sqlite:") else ""
        line = without_password(f"MLflow at {uri}: cannot be used: {reason}{cure}")
        raise InputError(line) from error


def without_password(text: str) -> str:
    """Hide the password of an address that stands in a text."""
    return re.sub(r"(://[^\s:@/]*):\S*@", r"\1:***@", text)


def make_experiment() -> None:
    """Make what the trainings log to, before they start: several at once get in each other's way.

    Where it cannot be used, one line says so, and no process that this one starts logs anything.
    """
    if uri := os.environ.get(URI):
        try:
            connect(uri, EXPERIMENT)
        except InputError as error:
            del os.environ[URI]
            _go_on_without(error)


@contextmanager
def live_run(name: str, model: str) -> Iterator[Callable[[tuple[int, dict[str, float]]], Any]]:
    """Give a function that logs an epoch and its metrics, where ``MLFLOW_TRACKING_URI`` is set.

    ``model``, the digest of what it depends on, tags the run. Where logging fails, one line says
    so, and training goes on without it.
    """
    uri = os.environ.get(URI, "")

    def until_it_fails(ask: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal uri
        try:
            with tracking_errors(uri, Exception):
                return ask(*arguments) if uri else None
        except InputError as error:
            _go_on_without(f"{name}: {error}")
            uri = ""

    def begin() -> tuple[Any, str]:
        client, experiment = connect(uri, EXPERIMENT)
        run = client.create_run(experiment, tags={MODEL: model}, run_name=name)
        return client, run.info.run_id

    def log(epoch: tuple[int, dict[str, float]]) -> None:
        from mlflow.entities import Metric

        (step, metrics), now = epoch, int(time.time() * 1000)
        client.log_batch(run, [Metric(key, metrics[key], now, step) for key in metrics])

    client: Any
    client, run = until_it_fails(begin) or (None, "")
    status = "FAILED"
    try:
        yield partial(until_it_fails, log)
        status = "FINISHED"
    finally:
        until_it_fails(lambda: client.set_terminated(run, status))


def _go_on_without(reason: object) -> None:
    tqdm.write(str(InputError(f"{reason}; training goes on without it")), file=sys.stderr)
