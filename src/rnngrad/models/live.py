"""Epochs in MLflow while training runs, where ``MLFLOW_TRACKING_URI`` says so."""

import os

from rnngrad.errors import InputError

EXPERIMENT = "rnngrad live training"
URI = "MLFLOW_TRACKING_URI"


def make_experiment() -> None:
    """Make what the trainings log to, before they start: several at once get in each other's way.

    Raises:
        InputError: the tracking server or database cannot be used.
    """
    uri = os.environ.get(URI)
    if not uri:
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            client.create_experiment(EXPERIMENT)
    except MlflowException as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{URI}={uri} cannot be used: {reason}") from error


def live_logger(run: str):
    """Lightning's logger of one training; False where nothing is to be logged."""
    uri = os.environ.get(URI)
    if not uri:
        return False
    from pytorch_lightning.loggers import MLFlowLogger

    return MLFlowLogger(EXPERIMENT, run_name=run, tracking_uri=uri)
