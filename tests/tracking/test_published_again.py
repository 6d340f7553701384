"""Published again, by halves, or by several: a result is there once and whole."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from published import METRICS, MODELS, publish, runs_of, statuses

from rnngrad import live, tracking
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


def test_what_somebody_deleted_of_a_result_is_published_anew(
    results: Results, files: list[Path], tmp_path: Path
) -> None:
    uri = tracking.tracking_uri()
    assert publish(results, files, uri)
    (child,) = [run for run in runs_of(uri) if "mlflow.parentRunId" in run.data.tags]
    MlflowClient(uri).delete_run(child.info.run_id)
    assert publish(results, files, uri)
    shutil.rmtree(tmp_path / "mlartifacts")
    assert publish(results, files, uri)
    assert not publish(results, files, uri)
    assert statuses(uri) == ["FINISHED", "FINISHED"]


def test_what_was_published_by_halves_is_published_anew(
    results: Results, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tracking.tracking_uri()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifact", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(results, files, uri)
    assert statuses(uri) == ["FAILED", "FAILED"]
    files[0].write_text("<svg></svg>")  # another result
    assert publish(results, files, uri)
    assert statuses(uri) == ["FINISHED", "FINISHED"]


def test_what_a_killed_publisher_left_is_published_anew(
    results: Results, files: list[Path]
) -> None:
    uri = tracking.tracking_uri()
    process = multiprocessing.get_context("fork").Process(
        target=publish_and_die, args=(results, files, uri)
    )
    process.start()
    process.join()
    assert statuses(uri) == ["RUNNING"]
    assert publish(results, files, uri)
    assert statuses(uri) == ["FINISHED", "FINISHED"]


def publish_and_die(results: Results, files: list[Path], uri: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", lambda *_: os._exit(9))
        publish(results, files, uri)


def test_another_result_that_was_published_by_halves_is_cleared(
    results: Results, files: list[Path]
) -> None:
    """Its publisher may still be at work, but not for an hour."""
    client, experiment = live.connect(tracking.tracking_uri(), live.EXPERIMENT)
    now, tags = int(time.time() * 1000), {tracking.RESULT: "another"}
    for begun in (now, now - 7_200_000):
        parent = client.create_run(experiment, begun, tags).info.run_id
        of = tags | {"mlflow.parentRunId": parent}
        client.set_terminated(client.create_run(experiment, begun, of).info.run_id)
    assert publish(results, files, tracking.tracking_uri())
    found = [run.info.start_time for run in runs_of(tracking.tracking_uri())]
    assert (found.count(now), len(found)) == (2, 4)


def test_what_another_machine_is_publishing_is_left_to_it(
    results: Results, files: list[Path]
) -> None:
    uri = tracking.tracking_uri()
    assert publish(results, files, uri)
    client, experiment = live.connect(uri, live.EXPERIMENT)
    result = runs_of(uri)[0].data.tags[tracking.RESULT]
    for run in runs_of(uri):
        client.delete_run(run.info.run_id)
    tags = {tracking.RESULT: result, tracking.HOST: "elsewhere"}
    run = client.create_run(experiment, tags=tags).info.run_id
    assert not publish(results, files, uri)
    assert statuses(uri) == ["RUNNING"]
    client.delete_run(run)
    client.create_run(experiment, int(time.time() * 1000) - 7_200_000, tags)  # it was killed
    assert publish(results, files, uri)
    assert statuses(uri) == ["FINISHED", "FINISHED"]
