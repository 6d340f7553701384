"""Published again, by halves, or by several: a result is there once and whole."""

import multiprocessing
import os
from pathlib import Path

import pytest
from mlflow import MlflowClient
from published import METRICS, MODELS, publish, runs_of, statuses

from rnngrad import tracking
from rnngrad.study.results import Results


def test_another_result_is_another_run(results: Results, files: list[Path]) -> None:
    uri = tracking.tracking_uri()
    assert publish(results, files, uri)
    files[0].write_text("<svg></svg>")
    assert publish(results, files, uri)


def test_the_same_numbers_on_another_page_are_the_same_result(
    results: Results, files: list[Path], tmp_path: Path
) -> None:
    uri = tracking.tracking_uri()
    (numbers,) = files
    assert tracking.publish(results, METRICS, "an answer", files, [numbers], MODELS, uri)
    page = numbers.with_name("page.html")
    page.write_text("<p>")
    metrics = {"claims": {"holds": 3}}
    for published in (True, False):
        asked = results, metrics, "another answer", files, [numbers, page], MODELS, uri
        assert tracking.publish(*asked) == published
    (parent,) = [run for run in runs_of(uri) if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.metrics["claims.holds"] == 3
    assert parent.data.tags["mlflow.note.content"] == "another answer"
    artifacts = MlflowClient(uri).list_artifacts(parent.info.run_id, "reports/figures")
    assert {Path(artifact.path).name for artifact in artifacts} == {"jacobian.svg", "page.html"}
    assert len(runs_of(uri)) == 2
    assert "lstm.trained.test.accuracy" not in parent.data.metrics


def test_what_a_killed_publisher_left_is_published_anew(
    results: Results, files: list[Path]
) -> None:
    uri = tracking.tracking_uri()
    process = multiprocessing.get_context("fork").Process(
        target=publish_and_die, args=(results, files, uri)
    )
    process.start()
    process.join()
    assert statuses(uri) == ["RUNNING", "RUNNING"]
    assert publish(results, files, uri)
    assert statuses(uri) == ["FINISHED", "FINISHED"]


def publish_and_die(results: Results, files: list[Path], uri: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", lambda *_: os._exit(9))
        publish(results, files, uri)
