"""MLflow as a view of the result files: one parent run per result, one child per trained model.

A result that is already there, by the checksum of its numbers, is left alone. If its pages
changed, or it was published in part, it takes the old one's place. The parent is FINISHED once all
is there.
"""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from tempfile import gettempdir
from typing import Any, cast

import numpy as np
import pandas as pd

from rnngrad.errors import InputError, needs
from rnngrad.live import EXPERIMENT, MODEL, URI, connect, tracking_errors
from rnngrad.params import Params, check_params
from rnngrad.stage import DIGEST
from rnngrad.study import trained_weights
from rnngrad.study.results import Results

with needs("study"):
    from filelock import FileLock
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

Tags = dict[str, str]
Point = tuple[str, float, int]  # a metric's name, its value and the step

RESULT, PAGES = "rnngrad.result", "rnngrad.pages"
PARENT, NAME, NOTE = "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content"
POINTS = 320  # points of a curve that MLflow's page draws; reports/curves.csv has all steps
ENDS = 20  # first and last steps that the question looked at
SETTINGS = 3  # changed settings that a run's name holds
PATIENCE = 600  # seconds in which another publisher should end: a stopped one would hold all up


def tracking_uri() -> str:
    """Take ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the repository's root."""
    return os.environ.get(URI) or f"sqlite:///{_root() / 'mlflow.db'}"


def _root() -> Path:
    # an experiment may run in a copy of the repository: DVC names the one with the database
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def publish(
    results: Results,
    metrics: Mapping[str, Any],
    note: str,
    files: list[Path],
    artifacts: list[Path],
    models: Path,
    uri: str,
) -> bool:
    """Publish a result unless it is there already; say whether anything was published.

    Args:
        metrics: reports/metrics.json; nested, with null for what is no number.
        note: the answer, shown as the parent's description.
        files: the numbers; their checksum says whether two results are the same.
        artifacts: cards, figures and pages to attach.
        models: the folder of the trained models. One logged in its training keeps that run.
        uri: an MLflow tracking URI. InputError says where it cannot be used.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # epochs live wait for less
    # beside the default database, wherever the stage runs; a server knows its own place
    own = None if os.environ.get(URI) else (_root() / "mlartifacts").as_uri()
    result = {RESULT: _digest(files)}
    shown = {NOTE: note, PAGES: _digest(artifacts, json.dumps([metrics, note]))}
    same, pages = (f"tags.`{tag}` = '{(result | shown)[tag]}'" for tag in (RESULT, PAGES))
    lock = Path(gettempdir(), f"rnngrad-{os.getuid()}.lock")  # one publisher of a user at a time
    with tracking_errors(uri, MlflowException, SQLAlchemyError, OSError), FileLock(lock, PATIENCE):
        client, experiment = connect(uri, EXPERIMENT, own)
        if client.search_runs([experiment], f"{same} AND {pages} AND status = 'FINISHED'"):
            return False
        for run in client.search_runs([experiment], same):
            client.delete_run(run.info.run_id)
        changed = _changed_settings(results.params)
        made = _provenance()
        tags = result | shown | {NAME: _run_name(results.params, changed)} | made
        run = client.create_run(experiment, tags=tags).info
        parent = run.run_id
        _log_parent(client, parent, results, metrics)
        tags, others = result | {PARENT: parent}, "".join(f", {s}" for s in changed[:SETTINGS])
        _log_models(client, experiment, results, models, tags | made, others)
        for path in artifacts:
            client.log_artifact(parent, path, path.parent.as_posix())
        if os.path.exists("dvc.lock"):  # the checksums of all that the stages read and wrote
            client.log_artifact(parent, "dvc.lock")
        # the run took as long as the stages, which is not known, and not as long as publishing
        client.set_terminated(parent, end_time=run.start_time)
    return True


def _digest(paths: Iterable[Path], more: str = "") -> str:
    contents = (f"{path.as_posix()}\0".encode() + path.read_bytes() for path in sorted(paths))
    return hashlib.sha256(b"".join(contents) + more.encode()).hexdigest()


def _log_parent(client: MlflowClient, run: str, results: Results, metrics: Any) -> None:
    data, card = results.params.data, results.data_card
    source = json.dumps({"source": data.path or data.source})
    # a checksum of what the comments are counted by
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()[:8]
    profile = json.dumps(card.get("sample", {}))
    dataset = Dataset(data.source, digest, "local", source, None, profile)
    client.log_inputs(run, [DatasetInput(dataset)])
    flat = pd.json_normalize(results.params.model_dump(mode="json")).iloc[0]
    found = pd.json_normalize(dict(metrics)).dropna(axis=1).iloc[0]
    points = [(str(name), value, 0) for name, value in found.items()]
    curves = results.condition_curves
    names = curves["condition"] + "_" + curves["cell"] + "_log10"
    _log(client, run, flat.to_dict(), [*points, *_curve_points(curves, names, "log10")])


def _log_models(
    client: MlflowClient, experiment: str, results: Results, models: Path, tags: Tags, others: str
) -> None:
    """Log every trained model as a run with these tags; its name ends in changed settings."""
    params = results.params
    live: dict[str, Run] = {}
    for run in client.search_runs([experiment], f"tags.`{MODEL}` LIKE '%'"):  # the newest first
        # an older one is of a training that was killed, and then went on
        if RESULT not in run.data.tags and live.setdefault(run.data.tags[MODEL], run) is not run:
            client.delete_run(run.info.run_id)
    for cell, (padding, weights) in product(results.cells, trained_weights(params).items()):
        train = params.train_of(cell)
        for seed in train.seeds:
            file = models / cell / padding / f"seed-{seed}" / f"trained-{seed}.pt"
            model = file.with_name(DIGEST).read_text()[:16]
            # training begins by writing the initial weights, and ends by writing these
            ends = file.with_name(f"init-{seed}.pt"), file
            begun, ended = sorted(int(1000 * path.stat().st_mtime) for path in ends)
            own = live.pop(model, None) or client.create_run(experiment, begun)
            child, name = own.info.run_id, f"{cell} {padding} seed {seed}{others}"
            known = tags | {MODEL: model, NAME: name}
            known[NOTE] = f'`torch.load("{file.name}")` gives the weights'
            client.log_batch(child, tags=[RunTag(*tag) for tag in known.items()])
            own_settings = {"cell": cell, "seed": seed, "padding": padding}
            settings = train.model_dump(exclude={"seeds"}) | own_settings
            _log(client, child, settings, _points(results, cell, seed, weights))
            client.log_artifact(child, file)
            if own.info.status == "RUNNING":
                client.set_terminated(child, end_time=ended)


def _run_name(params: Params, changed: list[str]) -> str:
    if not changed:
        cells, paddings = "+".join(params.cells), "+".join(params.train.padding)
        parts = params.data.source, f"padding {paddings}", cells, _git("rev-parse --short HEAD")
        return ", ".join(filter(None, parts))
    more = len(changed) - SETTINGS
    return ", ".join(changed[:SETTINGS]) + (f" and {more} more" if more > 0 else "")


def _changed_settings(params: Params) -> list[str]:
    """Name settings that differ from the last commit, as ``dvc exp run -S`` would set them."""
    try:
        before = check_params(_git("show HEAD:./params.yaml"), "params.yaml")
    except InputError:
        return []  # there is none, or it has another version
    old, new = (dict(_leaves(p.model_dump(mode="json"))) for p in (before, params))
    changed = [f"{key}={new[key]}" for key in new if key not in old or old[key] != new[key]]
    return [*changed, *(f"~{key}" for key in old if key not in new)]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by their dotted names; a section may be empty, as a cell's, and is "on"."""
    yield name, "on" if isinstance(value, dict) else value
    for key, below in value.items() if isinstance(value, dict) else ():
        yield from _leaves(below, f"{name}.{key}".removeprefix("."))


def _log(client: MlflowClient, run: str, params: Any, points: Iterable[Point]) -> None:
    now = int(time.time() * 1000)
    found = [Metric(name, value, now, step) for name, value, step in points]
    client.log_batch(run, found, [Param(str(key), str(value)) for key, value in params.items()])


def _points(results: Results, cell: str, seed: int, weights: str) -> Iterator[Point]:
    """Yield a trained and its untrained model's points, by the same names for any padding."""
    own = "cell == @cell and seed == @seed"
    model = f"{own} and weights == @weights"
    for row in cast("Any", results.history.query(model).itertuples()):
        for name in ("loss", "accuracy"):
            yield f"{row.split}_{name}", getattr(row, name), row.epoch
    tests = results.tests.query(model).drop(columns=["cell", "weights", "seed"])
    for name, value in tests.iloc[0].items():
        yield f"test_{name}", value, 0
    curves = results.curves.query(f"{own} and weights in ('init', @weights)")
    when = curves["weights"].where(curves["weights"] == "init", "trained")
    yield from _curve_points(curves, when + "_" + curves["statistic"] + "_log10", "log10_mean")


def _curve_points(curves: pd.DataFrame, names: pd.Series, value: str) -> Iterator[Point]:
    """Yield as many points of each curve as MLflow's page draws, with all steps at either end.

    An exact zero has no logarithm that MLflow could keep: its points are left out.
    """
    for name, curve in curves[curves[value].notna()].groupby(names, sort=False):
        steps, place = curve["step"], np.arange(len(curve))
        thin = np.ceil(len(curve) / (POINTS - 2 * ENDS))
        shown = (steps <= ENDS) | (steps > steps.max() - ENDS) | (place % thin == 0)
        points: Any = curve.loc[shown & np.isfinite(curve[value]), [value, "step"]]
        for number, step in points.itertuples(index=False):
            yield str(name), number, step


def _provenance() -> dict[str, str]:
    """Say where the result is from: git, who made it, and DVC's experiment."""
    asked = {
        "mlflow.source.git.commit": _git("rev-parse HEAD"),
        "mlflow.source.git.branch": _git("rev-parse --abbrev-ref HEAD"),
        "mlflow.user": _git("config user.name"),
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
    }
    tags = {"mlflow.source.name": "dvc repro", "mlflow.source.type": "PROJECT"}
    # DVC runs an experiment on no branch
    return tags | {k: v for k, v in asked.items() if v not in ("", "HEAD")}


def _git(command: str) -> str:
    """Give a git command's output; nothing where there is no git, or no repository."""
    status, output = subprocess.getstatusoutput(f"git {command} 2>/dev/null")
    return "" if status else output
