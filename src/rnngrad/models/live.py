"""MLflow: a client of a server or a database, and epochs logged there while training runs."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rnngrad.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "rnngrad live training"
URI = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
BROKEN = (
    "; if the database is broken, move it away and run the same command again: every result is in "
    "build/ and reports/"
)

# what it logs it raises as well
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def connect(uri: str, name: str, artifacts: str | None = None) -> tuple["MlflowClient", str]:
    """A client of a server or database, and the id of an experiment; both are made where missing.

    Args:
        uri: an MLflow tracking URI.
        name: of the experiment.
        artifacts: where a new experiment keeps its files; None leaves it to MLflow.

    Raises:
        InputError: the server or database cannot be used.
    """
    from alembic.util.exc import CommandError
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if uri.startswith(SQLITE):
            _make_database(Path(uri.removeprefix(SQLITE)))
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(name)
        if found:
            return client, found.experiment_id
        return client, client.create_experiment(name, artifact_location=artifacts)
    except (MlflowException, SQLAlchemyError, CommandError, OSError) as error:
        cure = BROKEN if uri.startswith(SQLITE) else ""
        reason = str(error).partition("\n")[0]
        raise InputError(f"MLflow at {uri}: cannot be used: {reason}{cure}") from error


def _make_database(path: Path) -> None:
    """Make it under another name: ended on its way, MLflow leaves one that it can never open."""
    from mlflow import MlflowClient

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        MlflowClient(tracking_uri=f"{SQLITE}{unfinished}").get_experiment_by_name(EXPERIMENT)
        with suppress(FileExistsError):  # another process was faster
            os.link(unfinished, path)


def make_experiment() -> None:
    """Make what the trainings log to, before they start: several at once get in each other's way.

    Raises:
        InputError: the tracking server or database cannot be used.
    """
    uri = os.environ.get(URI)
    if uri:
        connect(uri, EXPERIMENT)


def live_logger(run: str):
    """Lightning's logger of one training; False where nothing is to be logged."""
    uri = os.environ.get(URI)
    if not uri:
        return False
    from pytorch_lightning.loggers import MLFlowLogger

    return MLFlowLogger(EXPERIMENT, run_name=run, tracking_uri=uri)
