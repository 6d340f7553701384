import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from rnngrad import tracking
from rnngrad.errors import InputError
from rnngrad.models import live
from rnngrad.params import check_params, read_params
from rnngrad.study import TRAINED
from rnngrad.study.results import Results

MODELS = Path("build/train")
ROOT = Path(__file__).parent.parent
METRICS = {"lstm": {"trained": {"test": {"accuracy": 0.75, "auroc": None}}}}


def make_tests(*cells: str, weights: str = "trained_without_padding") -> pd.DataFrame:
    rows = [(cell, weights, seed, 0.75) for cell in cells for seed in (1, 2, 3, 4, 5)]
    return pd.DataFrame(rows, columns=["cell", "weights", "seed", "accuracy"])


@pytest.fixture
def results() -> Results:
    params = read_params(ROOT / "params.yaml")
    train = params.train.model_copy(update={"padding": ["none"]})
    params = params.model_copy(update={"cells": {"lstm": {"seeds": [5]}}, "train": train})
    curves = pd.DataFrame(
        {
            "cell": "lstm",
            "seed": 5,
            "weights": ["init"] * 3 + ["trained_without_padding"],
            "statistic": "frobenius",
            "step": [1, 2, 3, 1],
            "log10_mean": [-0.5, -700.25, float("-inf"), -0.75],
        }
    )
    history = pd.DataFrame(
        {
            "cell": "lstm",
            "seed": 5,
            "weights": "trained_without_padding",
            "epoch": [1, 2],
            "split": "train",
            "loss": [0.5, 0.25],
            "accuracy": [0.5, 0.75],
        }
    )
    return Results(
        params=params,
        curves=curves,
        gates=pd.DataFrame(),
        history=history,
        tests=make_tests("lstm"),
        model_cards={},
        data_card={"sample": {"comments": 3}},
        embed_card={},
        conditions=pd.DataFrame(),
        condition_seeds=pd.DataFrame(),
        condition_curves=pd.DataFrame(
            {
                "condition": "question",
                "cell": "lstm",
                "step": [1, 2, 3],
                "log10": [-0.5, -2.5, float("-inf")],
            }
        ),
        evidence={},
        triangles={},
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    path = Path("reports/figures/jacobian.svg")
    path.parent.mkdir(parents=True)
    path.write_text("<svg/>")
    model = MODELS / "lstm" / "none" / "seed-5" / "digest.txt"
    model.parent.mkdir(parents=True)
    model.write_text("0123456789abcdef" * 4)
    model.with_name("trained-5.pt").write_bytes(b"weights")
    return [path]


def publish(results: Results, files: list[Path], uri: str) -> bool:
    return tracking.publish(results, METRICS, "an answer", files, files, MODELS, uri)


def runs_of(uri: str) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(live.EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def statuses(uri: str) -> list[str]:
    return [run.info.status for run in runs_of(uri)]


def test_a_result_is_published_once_and_whole(results: Results, files: list[Path]) -> None:
    uri = tracking.tracking_uri()
    assert publish(results, files, uri)
    assert not publish(results, files, uri)
    runs = runs_of(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (child,) = [run for run in runs if run is not parent]
    client = MlflowClient(uri)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.run_name == "lstm seed 5 padding none"
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
    many = {f"case_{number}": {"factor": "some", "steps": number} for number in range(3, 80)}
    conditions = results.params.conditions.model_copy(update={"cases": many})
    params = results.params.model_copy(update={"conditions": conditions})
    uri = tracking.tracking_uri()
    assert publish(Results(**{**vars(results), "params": params}), files, uri)
    runs = runs_of(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.params["conditions.cases.case_79.steps"] == "79"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "demo, padding pre+none, rnn+lstm+gru"),
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
    params = check_params(content, "params.yaml")
    changed = Results(**{**vars(results), "params": params, "tests": pd.concat(ways)})
    uri = tracking.tracking_uri()
    assert publish(changed, files, uri)
    runs = runs_of(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_name == name
    if changes:
        children = [str(run.info.run_name) for run in runs if run is not parent]
        ways = len(content["train"]["padding"])
        assert len({*children}) == 5 * ways * len(content["cells"])
        assert all(run.endswith(name.removesuffix(" and 1 more")) for run in children)


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


def publish_and_die(results: Results, files: list[Path], uri: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", lambda *_: os._exit(9))
        publish(results, files, uri)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a new PostgreSQL database, which runs as its own user: it refuses root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    user = "postgres" if os.getuid() == 0 else None
    with TemporaryDirectory() as name:  # root alone may enter tmp_path
        folder = Path(name)
        shutil.chown(folder, user or os.getuid())
        call = partial(subprocess.run, cwd=folder, user=user, group=user, check=True)
        control = [found[-1] / "pg_ctl", "--silent", "--pgdata=data"]
        call([*control, "initdb", "--options=--username=postgres --auth=trust --no-sync"])
        options = f"-F -k {folder} -c listen_addresses="
        call([*control, "--wait", "--log=log", f"--options={options}", "start"])
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            call([*control, "--wait", "--mode=immediate", "stop"])


@pytest.fixture
def server(postgresql: str, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a team's MLflow server, which keeps its runs in PostgreSQL."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = str(unused.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", postgresql]
    command += ["--artifacts-destination", "artifacts", "--workers", "1", "--port", port]
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    with Path("server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # cores are shared with other tests
    try:
        deadline = time.monotonic() + 120
        while not is_up(uri):
            assert process.poll() is None, Path("server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield uri
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_up(uri: str) -> bool:
    with suppress(OSError), urlopen(f"{uri}/health", timeout=5):
        return True
    return False


@pytest.fixture
def database(files: list[Path]) -> str:
    return tracking.tracking_uri()


@pytest.mark.parametrize("place", ["database", pytest.param("server", marks=pytest.mark.slow)])
def test_two_publishers_at_once_store_a_result_once(
    place: str, results: Results, files: list[Path], request: pytest.FixtureRequest
) -> None:
    """The place is new to both."""
    uri = request.getfixturevalue(place)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        both = [executor.submit(publish, results, files, uri) for _ in range(2)]
        assert sorted(future.result() for future in both) == [False, True]
    assert statuses(uri) == ["FINISHED", "FINISHED"]


@pytest.mark.parametrize("kind", ["http", "postgresql"])
def test_a_server_that_does_not_answer_is_one_line_within_seconds(
    kind: str, results: Results, files: list[Path], listen: Callable[..., str]
) -> None:
    uri = f"{kind}://{listen()}"
    begun = time.monotonic()
    with pytest.raises(InputError, match=f"^MLflow at {uri}: cannot be used") as caught:
        publish(results, files, uri)
    assert time.monotonic() < begun + 10
    assert len(str(caught.value)) <= 300


def test_a_long_curve_has_as_many_points_as_are_drawn(results: Results, files: list[Path]) -> None:
    """Six curves, 300 points each: they go in several batches."""
    row = results.curves.iloc[0].to_dict()
    curves = pd.DataFrame(
        {**row, "statistic": statistic, "step": step, "log10_mean": -0.1 * step}
        for statistic in "abcdef"
        for step in range(1, 2501)
    )
    uri = tracking.tracking_uri()
    publish(Results(**{**vars(results), "curves": curves}), files, uri)
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
    publish(Results(**{**vars(results), "condition_curves": curves}), files, uri)
    (parent,) = [run for run in runs_of(uri) if "cell" not in run.data.params]
    (name,) = {key for key in parent.data.metrics if key.endswith("_log10")}
    points = MlflowClient(uri).get_metric_history(parent.info.run_id, name)
    assert sorted(point.step for point in points) == steps


def test_a_run_lasts_as_long_as_its_training(results: Results, files: list[Path]) -> None:
    """The parent has no duration, nor has a model whose training nobody timed."""
    uri, times = tracking.tracking_uri(), MODELS.parent / "times" / "0123456789abcdef.json"
    times.parent.mkdir()
    for known, seconds in (("[1000.5, 1060.5]", 60), ("[1000.5", 0)):
        times.write_text(known)
        files[0].write_text(known)  # another result
        assert publish(results, files, uri)
        child, parent = sorted(runs_of(uri)[:2], key=lambda run: "cell" not in run.data.params)
        lasted = [(run.info.end_time or 0) - run.info.start_time for run in (child, parent)]
        assert lasted == [1000 * seconds, 0]


def test_who_made_the_experiment_does_not_matter(results: Results, files: list[Path]) -> None:
    """The page may be opened before anything is published."""
    uri = tracking.tracking_uri()
    live.connect(uri, live.EXPERIMENT)
    assert publish(results, files, uri)


def test_a_copied_database_is_refused(
    results: Results, files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names the folder that its artifacts would go to."""
    assert publish(results, files, tracking.tracking_uri())
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "mlflow.db", copy)
    monkeypatch.setenv("DVC_ROOT", str(copy))
    with pytest.raises(InputError, match=r"mlartifacts; move it away$"):
        publish(results, files, tracking.tracking_uri())


def test_the_environment_names_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere.db")
    assert tracking.tracking_uri() == "sqlite:////elsewhere.db"


@pytest.mark.parametrize(
    "uri",
    [
        "nowhere://x",
        "mysql://x",
        "postgresql://a:b@127.0.0.1:9/x",
        "http://[::1",
        "databricks",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///mlflow.db?mode=ro",
    ],
)
def test_an_unusable_place_is_one_line_at_once(
    uri: str, results: Results, files: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"(MLflow at |MLFLOW_TRACKING_URI=)") as caught:
        publish(results, files, uri)
    assert time.monotonic() < begun + 10
    assert capfd.readouterr().err == ""
    assert uri.replace(":b@", ":***@") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_training_that_was_watched_is_the_models_own_run(
    results: Results, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tracking.tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    live.make_experiment(MODELS)
    client, experiment = live.connect(uri, live.EXPERIMENT)
    client.create_run(experiment, tags={live.MODEL: "0123456789abcdef"})  # was killed
    for model in ("0123456789abcdef", "another"):
        with live.live_run("training", model, MODELS) as log:
            log((1, {"train_loss": 0.5}))
            time.sleep(0.1)
    assert publish(results, files, uri)
    runs = {run.info.run_name: run for run in runs_of(uri)}
    assert len(runs) == 3
    (own,) = [run for run in runs.values() if "mlflow.parentRunId" in run.data.tags]
    assert own.info.run_name == "lstm seed 5 padding none"
    assert own.info.end_time
    assert own.info.end_time > own.info.start_time + 50
    assert own.data.metrics["train_loss"] == 0.25
    assert own.data.params["seed"] == "5"
