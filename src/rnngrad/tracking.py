"""MLflow as a view of the result files: one parent run per result, one child per cell and seed.

The files are the truth (DVC's), so publishing is idempotent: a result that is already there, by the
checksum of its files, is left alone; one that was published by halves is published anew.
"""

import hashlib
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML, YAMLError

from rnngrad.errors import InputError
from rnngrad.models.live import connect
from rnngrad.params import Params, check_params
from rnngrad.study.results import Results

EXPERIMENT = "rnngrad"
RESULT = "rnngrad.result"
BATCH, PARAMS = 1000, 100  # metrics and parameters that one log_batch call may carry
POINTS = 320  # of a curve that MLflow's page draws; reports/curves.csv has all steps
ENDS = 20  # first and last steps that the question looked at
SETTINGS = 3  # of those changed, in a run's name

for noisy in ("alembic", "mlflow"):
    logging.getLogger(noisy).setLevel(logging.WARNING)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_root() / 'mlflow.db'}"


def _root() -> Path:
    # DVC names the root: stages of an experiment may run in a copy of the repository elsewhere, and
    # their results belong into the same database
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def publish(results: Results, files: list[Path], artifacts: list[Path], uri: str) -> bool:
    """Publish a result unless it is there already, and tell whether anything was published.

    The checksum of ``files``, the numbers, says whether two results are the same. ``artifacts``,
    cards, figures and pages to attach, may be drawn anew without making another result.

    Raises:
        InputError: the tracking server or database cannot be used.
    """
    # beside the default database, wherever the stage runs; a server knows its own place
    own = None if os.environ.get("MLFLOW_TRACKING_URI") else (_root() / "mlartifacts").as_uri()
    client, experiment = connect(uri, EXPERIMENT, own)
    try:
        contents = (f"{path.as_posix()}\0".encode() + path.read_bytes() for path in sorted(files))
        checksum = hashlib.sha256(b"".join(contents)).hexdigest()
        known = client.search_runs([experiment], f"tags.`{RESULT}` = '{checksum}'")
        parents = [run.info for run in known if "mlflow.parentRunId" not in run.data.tags]
        if any(parent.status == "FINISHED" for parent in parents):
            return False
        for run in known:
            client.delete_run(run.info.run_id)
        _publish(client, experiment, results, artifacts, checksum)
    except MlflowException as error:
        raise InputError(f"MLflow at {uri}: {' '.join(str(error).split())}") from error
    return True


def _publish(
    client: MlflowClient, experiment: str, results: Results, artifacts: list[Path], checksum: str
) -> None:
    params = results.params
    tags = {RESULT: checksum, "mlflow.runName": _run_name(results)} | _provenance()
    parent = client.create_run(experiment, tags=tags).info.run_id
    flat = pd.json_normalize(params.model_dump(mode="json")).iloc[0]
    tests = [
        (f"{cell}_test_{name}", interval["mean"], 0)
        for cell in results.cells
        for name, interval in results.metrics[cell].items()
    ]
    _log(client, parent, flat.to_dict(), tests)
    for path in artifacts:
        client.log_artifact(parent, path, path.parent.as_posix())
    for cell in results.cells:
        train = params.train_of(cell)
        for seed in train.seeds:
            names = {"mlflow.parentRunId": parent, "mlflow.runName": f"{cell} seed {seed}"}
            child = client.create_run(experiment, tags={RESULT: checksum} | names).info.run_id
            settings = train.model_dump(exclude={"seeds"}) | {"cell": cell, "seed": seed}
            _log(client, child, settings, _points(results, cell, seed))
            client.set_terminated(child)
    client.set_terminated(parent)


def _run_name(results: Results) -> str:
    params, changed = results.params, _changed_settings(results.params)
    if not changed:
        return f"{params.data.source}, {params.embed.padding} padding, {'+'.join(results.cells)}"
    more = len(changed) - SETTINGS
    return ", ".join(changed[:SETTINGS]) + (f" and {more} more" if more > 0 else "")


def _changed_settings(params: Params) -> list[str]:
    """Name those that differ from the last commit, as ``dvc exp run -S`` would set them."""
    committed = _git("show", "HEAD:./params.yaml")
    try:
        before = check_params(YAML(typ="safe", pure=True).load(committed), "params.yaml")
    except (YAMLError, InputError):
        return []  # none, or of another version
    old, new = (_leaves(p.model_dump(mode="json")) for p in (before, params))
    changed = [f"{key}={new[key]}" for key in new if key not in old or old[key] != new[key]]
    return [*changed, *(f"~{key}" for key in old if key not in new)]


def _leaves(section: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Every setting by its dotted name; a section that may be empty, as a cell's block, as "on"."""
    found = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= {f"{above}{key}": "on"} | _leaves(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def _log(client: MlflowClient, run: str, params: Mapping[Any, Any], points: Iterable[Any]) -> None:
    """Log parameters by name, and points: a metric's name, its value and the step."""
    named = [Param(str(key), str(value)) for key, value in params.items()]
    for start in range(0, len(named), PARAMS):
        client.log_batch(run, params=named[start : start + PARAMS])
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, value, step in points]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH], synchronous=True)


def _points(results: Results, cell: str, seed: int) -> Iterator[tuple[str, float, int]]:
    own = "cell == @cell and seed == @seed"
    for row in cast("Any", results.history.query(own).itertuples()):
        for name in ("loss", "accuracy"):
            yield f"{row.split}_{name}", getattr(row, name), row.epoch
    place = results.params.train_of(cell).seeds.index(seed)
    for name, values in results.model_cards[cell]["test"]["per_seed"].items():
        yield f"test_{name}", values[place], 0
    curves = results.curves.query(own)
    shown = curves["step"].isin(_shown_steps(curves["step"].max()))
    # an exact zero has no logarithm that MLflow could keep: its points are left out
    for row in cast("Any", curves[shown & np.isfinite(curves["log10_mean"])].itertuples()):
        yield f"{row.weights}_{row.statistic}_log10", row.log10_mean, row.step


def _shown_steps(last: int) -> set[int]:
    """The steps at either end, and as many in between as MLflow's page draws of a curve."""
    ends = {*range(1, ENDS + 1), *range(last - ENDS + 1, last + 1)}
    return {*ends, *range(1, last + 1, math.ceil(last / (POINTS - len(ends))))}


def _provenance() -> dict[str, str]:
    """The git commit, and DVC's checksum of every output so far, where there are such."""
    tags = {}
    commit = _git("rev-parse", "HEAD").strip()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    lock = Path("dvc.lock")
    if lock.exists():
        for stage in YAML(typ="safe").load(lock)["stages"].values():
            tags |= {f"dvc.{out['path']}": out["md5"] for out in stage.get("outs", [])}
    return tags


def _git(*command: str) -> str:
    """The output of a git command; empty where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""
