"""A published result as MLflow shows it."""

import json
import os
import subprocess
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from published import MODELS, ROOT, make_model, make_tests, publish, runs_of
from ruamel.yaml import YAML

from rnngrad import live, tracking
from rnngrad.params import Case, check_params
from rnngrad.study import TRAINED
from rnngrad.study.results import Results


def test_a_result_is_published_once_and_whole(results: Results, files: list[Path]) -> None:
    uri = tracking.tracking_uri()
    assert publish(results, files, uri)
    assert not publish(results, files, uri)
    runs = runs_of(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (child,) = [run for run in runs if run is not parent]
    client = MlflowClient(uri)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.run_name == "lstm none seed 5"
    (artifact,) = client.list_artifacts(child.info.run_id)
    assert artifact.path == "trained-5.pt"
    assert '`torch.load("trained-5.pt")`' in child.data.tags["mlflow.note.content"]
    assert parent.data.params["train.epochs"] == "4"
    numbers = {"lstm.trained.test.accuracy": 0.75, "question_lstm_log10": -2.5}
    assert parent.data.metrics == numbers
    curve = client.get_metric_history(parent.info.run_id, "question_lstm_log10")
    assert [(point.step, point.value) for point in curve] == [(1, -0.5), (2, -2.5)]
    assert parent.data.tags["mlflow.note.content"] == "an answer"
    assert parent.inputs
    (dataset,) = parent.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.profile) == ("demo", '{"comments": 3}')
    assert (child.data.params["cell"], child.data.params["padding"]) == ("lstm", "none")
    assert child.data.metrics["test_accuracy"] == 0.75
    curve = client.get_metric_history(child.info.run_id, "init_frobenius_log10")
    assert [(point.step, point.value) for point in curve] == [(1, -0.5), (2, -700.25)]
    assert child.data.metrics["trained_frobenius_log10"] == -0.75
    epochs = client.get_metric_history(child.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in epochs] == [(1, 0.5), (2, 0.25)]
    artifacts = client.list_artifacts(parent.info.run_id, "reports/figures")
    assert [artifact.path for artifact in artifacts] == ["reports/figures/jacobian.svg"]


def test_a_study_of_many_conditions_is_published(results: Results, files: list[Path]) -> None:
    """MLflow takes no more than a hundred parameters at once."""
    values = {f"case_{number}": {"factor": "some", "steps": number} for number in range(3, 80)}
    many = {name: Case.model_validate(own) for name, own in values.items()}
    conditions = results.params.conditions.model_copy(update={"cases": many})
    params = results.params.model_copy(update={"conditions": conditions})
    uri = tracking.tracking_uri()
    assert publish(replace(results, params=params), files, uri)
    runs = runs_of(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.params["conditions.cases.case_79.steps"] == "79"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "demo, padding pre+none, rnn+lstm+gru, COMMIT"),
        ({"train": {"padding": ["none"], "epochs": 3}},
         "train.padding=['none'], train.epochs=3"),
        ({"cells": {"lstm": {"forget_bias": 3.0}}}, "cells.lstm.forget_bias=3.0"),
        ({"cells": {"gru": None}}, "~cells.gru"),
        ({"sample": {"seed": 2}, "probe": {"seed": 2}, "train": {"hidden": 9, "epochs": 1}},
         "sample.seed=2, train.hidden=9, train.epochs=1 and 1 more"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_what_is_set_otherwise_than_in_the_last_commit(
    changes: dict, name: str, results: Results, files: list[Path]
) -> None:
    committed = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(committed)
    for command in ("init -q", "add params.yaml", "-c user.name=a -c user.email=b commit -qm c"):
        subprocess.run(["git", *command.split()], check=True)
    content = YAML(typ="safe", pure=True).load(committed)
    for section, values in changes.items():
        content[section] |= values
    content["cells"] = {
        cell: block for cell, block in content["cells"].items() if block is not None
    }
    ways = [make_tests(*content["cells"], weights=weights) for weights in TRAINED.values()]
    params = check_params(json.dumps(content), "params.yaml")
    changed = replace(results, params=params, tests=pd.concat(ways))
    for model in product(content["cells"], TRAINED, (1, 2, 3, 4, 5)):
        make_model(*model)
    uri = tracking.tracking_uri()
    assert publish(changed, files, uri)
    runs = runs_of(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    assert parent.info.run_name == name.replace("COMMIT", commit)
    if changes:
        children = [str(run.info.run_name) for run in runs if run is not parent]
        ways = len(content["train"]["padding"])
        assert len({*children}) == 5 * ways * len(content["cells"])
        assert all(run.endswith(name.removesuffix(" and 1 more")) for run in children)


def test_a_long_curve_has_as_many_points_as_are_drawn(results: Results, files: list[Path]) -> None:
    """Six curves, 300 points each: they go in several batches."""
    row = results.curves.iloc[0].to_dict()
    curves = pd.DataFrame(
        {**row, "statistic": statistic, "step": step, "log10_mean": -0.1 * step}
        for statistic in "abcdef"
        for step in range(1, 2501)
    )
    uri = tracking.tracking_uri()
    publish(replace(results, curves=curves), files, uri)
    (child,) = [run for run in runs_of(uri) if "cell" in run.data.params]
    for statistic in "abcdef":
        points = MlflowClient(uri).get_metric_history(child.info.run_id, f"init_{statistic}_log10")
        assert 300 <= len(points) <= 320
        steps = sorted(point.step for point in points)
        assert steps[:20] == list(range(1, 21))
        assert steps[-20:] == list(range(2481, 2501))
        assert all(point.value == pytest.approx(-0.1 * point.step) for point in points)


def test_a_curve_of_few_steps_is_drawn_whole(results: Results, files: list[Path]) -> None:
    steps = [*range(1, 21), 28, 51, 93, 310, 1375, 1403]
    row = results.condition_curves.iloc[0].to_dict()
    curves = pd.DataFrame({**row, "step": step, "log10": -0.1 * step} for step in steps)
    uri = tracking.tracking_uri()
    publish(replace(results, condition_curves=curves), files, uri)
    (parent,) = [run for run in runs_of(uri) if "cell" not in run.data.params]
    (name,) = {key for key in parent.data.metrics if key.endswith("_log10")}
    points = MlflowClient(uri).get_metric_history(parent.info.run_id, name)
    assert sorted(point.step for point in points) == steps


def test_a_run_lasts_as_long_as_its_training(results: Results, files: list[Path]) -> None:
    """The parent has no duration."""
    uri, folder = tracking.tracking_uri(), MODELS / "lstm" / "none" / "seed-5"
    os.utime(folder / "init-5.pt", (0, 1000.5))
    os.utime(folder / "trained-5.pt", (0, 1060.5))
    assert publish(results, files, uri)
    child, parent = sorted(runs_of(uri), key=lambda run: "cell" not in run.data.params)
    assert (child.info.start_time, child.info.end_time) == (1_000_500, 1_060_500)
    assert parent.info.start_time == parent.info.end_time


def test_a_training_that_was_watched_is_the_models_own_run(
    results: Results, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tracking.tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    live.make_experiment()
    client, experiment = live.connect(uri, live.EXPERIMENT)
    client.create_run(experiment, tags={live.MODEL: "0123456789abcdef"})  # was killed
    for model in ("0123456789abcdef", "another"):
        with live.live_run("training", model) as log:
            log((1, {"train_loss": 0.5}))
            time.sleep(0.1)
    assert publish(results, files, uri)
    runs = {run.info.run_name: run for run in runs_of(uri)}
    assert len(runs) == 3
    (own,) = [run for run in runs.values() if "mlflow.parentRunId" in run.data.tags]
    assert own.info.run_name == "lstm none seed 5"
    assert own.info.end_time
    assert own.info.end_time > own.info.start_time + 50
    assert own.data.metrics["train_loss"] == 0.25
    assert own.data.params["seed"] == "5"
