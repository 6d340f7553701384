"""Servers and databases that results are published to, and those that are none."""

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

import pytest
from published import publish, statuses

from processes import wait_until
from rnngrad import live, tracking
from rnngrad.errors import InputError
from rnngrad.study.results import Results


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
        wait_until(lambda: is_up(uri) or process.poll() is not None)
        assert process.poll() is None, Path("server.log").read_text()
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
    Path("mlflow.db").unlink()
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


@pytest.mark.usefixtures("impatient")
def test_a_server_that_does_not_answer_is_one_line_within_seconds(
    results: Results, files: list[Path], listen: Callable[..., str]
) -> None:
    uri = f"http://{listen()}"
    begun = time.monotonic()
    with pytest.raises(InputError, match=f"^MLflow at {uri}: cannot be used") as caught:
        publish(results, files, uri)
    assert time.monotonic() < begun + 10
    assert len(str(caught.value)) <= 300


def test_who_made_the_experiment_does_not_matter(results: Results, files: list[Path]) -> None:
    """The page may be opened before anything is published."""
    uri = tracking.tracking_uri()
    live.connect(uri, live.EXPERIMENT)
    assert publish(results, files, uri)


def test_the_environment_names_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere.db")
    assert tracking.tracking_uri() == "sqlite:////elsewhere.db"


@pytest.mark.parametrize(
    "uri",
    ["nowhere://x", "mysql://x", "postgresql://a:b@127.0.0.1:9/x", "http://[::1", "databricks"],
)
def test_an_unusable_place_is_one_line_at_once(
    uri: str, results: Results, files: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"^MLflow at ") as caught:
        publish(results, files, uri)
    assert time.monotonic() < begun + 10
    assert capfd.readouterr().err == ""
    assert uri.replace(":b@", ":***@") in str(caught.value)
    assert "\n" not in str(caught.value)
