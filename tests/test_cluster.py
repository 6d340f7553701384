"""Jobs on a Dask cluster: a scheduler and two workers on this machine's loopback."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from llvmlite.binding import get_host_cpu_name

import processes
from processes import SOON, wait_until
from rnngrad.errors import InputError
from rnngrad.kept import run_kept
from rnngrad.models.seeds import train_cell
from rnngrad.workers import pool
from tiny import make_sample, make_train_params

ROOT = Path(__file__).parents[1]


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.processes: list[subprocess.Popen[str]] = []
        self.start("dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-show")
        wait_until(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        self.workers = [self.start_worker(f"worker{number}") for number in (1, 2)]

    def start_worker(self, name: str, *options: str) -> subprocess.Popen[str]:
        nanny = options or ("--no-nanny",)
        return self.start("dask_worker", "--nthreads", "1", "--name", name, *nanny)

    def start(self, program: str, *options: str) -> subprocess.Popen[str]:
        command = ["-m", f"distributed.cli.{program}", "--scheduler-file", self.file]
        command += ["--no-dashboard", *options]
        paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
        nothing = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = processes.start(*command, cwd=self.folder, env=paths, **nothing)
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RNNGRAD_SCHEDULER", str(found.file))
    yield found
    found.end()


def who(seconds: float) -> tuple[int, str, str | None]:
    """The process that has started this one, its folder, and how many threads it shall take."""
    time.sleep(seconds)
    return os.getppid(), os.getcwd(), os.environ.get("OMP_NUM_THREADS")


def write_and_wait(path: Path, text: str, seconds: float) -> None:
    worker = multiprocessing.parent_process()
    assert worker is not None
    with Path("begun").open("a") as file:
        file.write(f"{worker.pid}\n")
    Path("own").write_text(str(os.getpid()))
    time.sleep(seconds)
    (path / "result.txt").write_text(text)


def test_jobs_run_on_every_worker_and_none_here(cluster: Cluster, tmp_path: Path) -> None:
    with pool(6) as executor:
        found = [future.result() for future in [executor.submit(who, 0.3) for _ in range(6)]]
    counts = Counter(parent for parent, *_ in found)
    assert len(counts) == 2
    assert min(counts.values()) > 1
    assert {(folder, threads) for _, folder, threads in found} == {(str(tmp_path), "1")}
    with pytest.raises(ZeroDivisionError), pool(1) as executor:
        executor.submit(divmod, 1, 0).result()


def test_a_training_gives_the_same_bytes_as_here(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    splits = ["train", "validation", "test", "train", "validation", "test"]
    sample, vectors = make_sample([9, 12, 7, 5, 8, 11, 6] * 4, splits, 4)
    Path("build/embed").mkdir(parents=True)
    sample.save("build/embed/tokens.npz")
    np.save("build/embed/vectors.npy", vectors)
    params = make_train_params(seeds=[1, 2])

    def trained() -> dict[str, str]:
        train_cell("lstm", params, 20, Path("build"))
        files = sorted(path for path in Path("build/train").rglob("*") if path.is_file())
        return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}

    there = trained()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == 2 * ["training the lstm"]
    shutil.rmtree("build/train")
    monkeypatch.delenv("RNNGRAD_SCHEDULER")
    assert trained() == there
    assert len(there) == 2 * 6 + 2


def test_an_address_stands_for_its_file(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    address = json.loads(cluster.file.read_text())["address"]
    monkeypatch.setenv("RNNGRAD_SCHEDULER", address)
    with pool(1) as executor:
        assert executor.submit(divmod, 7, 4).result() == (1, 3)


def test_the_job_of_a_worker_that_is_killed_runs_elsewhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    kill = (
        "import os, time\n"
        "while not os.path.exists('begun'): time.sleep(0.1)\n"
        "time.sleep(0.5)\n"
        "os.kill(int(open('begun').read()), 9)\n"
    )
    killer = subprocess.Popen([sys.executable, "-c", kill])
    function = f"{__name__}:write_and_wait"
    run_kept(function, {"a": ("one", 3.0)}, Path("results"), code=[])
    assert killer.wait() == 0
    assert (tmp_path / "results" / "a" / "result.txt").read_text() == "one"
    first, second = Path("begun").read_text().split()
    assert {int(first), int(second)} == {worker.pid for worker in cluster.workers}


def test_a_job_ends_when_nobody_waits_for_it(cluster: Cluster, tmp_path: Path) -> None:
    def interrupt() -> None:
        with pool(1) as executor:
            executor.submit(write_and_wait, tmp_path, "late", SOON)
            wait_until(lambda: Path("own").exists() and Path("own").read_text())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    wait_until(lambda: not Path("/proc", Path("own").read_text()).exists(), SOON / 2)
    assert not Path("result.txt").exists()


@pytest.mark.parametrize(
    "place",
    ["tcp://127.0.0.1:9", "no_such_file.json", "nonsense://x", "tls://127.0.0.1:9", "http://x"],
)
def test_a_scheduler_that_is_not_there_is_one_line(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(place, monkeypatch)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n<html></html>"])
def test_a_port_that_is_no_scheduler_is_one_line(
    answer: bytes, listen: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(f"tcp://{listen(answer)}", monkeypatch)


def refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNGRAD_SCHEDULER", place)
    monkeypatch.setattr("rnngrad.workers.SECONDS", 1)
    monkeypatch.setattr("rnngrad.workers.PATIENCE", 1)
    begun = time.monotonic()
    with pytest.raises(InputError, match=f"RNNGRAD_SCHEDULER={place}: ") as caught, pool(1):
        pass
    assert time.monotonic() < begun + 10
    assert len(str(caught.value)) <= 300


# as on another machine
WITHOUT_THE_FOLDER = """from os import path
path.exists = lambda at, exists=path.exists: ".unfinished-" not in str(at) and exists(at)
"""
ANOTHER_PROCESSOR = """from llvmlite import binding
binding.get_host_cpu_name = lambda: "another"
"""
ANOTHER_TORCH = """from importlib import metadata
metadata.version = lambda name, version=metadata.version: "0" if name == "torch" else version(name)
"""


def start_elsewhere(cluster: Cluster, code: str) -> None:
    """Start a worker on which this code has run."""
    preload = cluster.folder / "elsewhere.py"
    preload.write_text(code)
    cluster.start_worker("elsewhere", "--no-nanny", "--preload", str(preload))
    with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
        client.wait_for_workers(3, timeout=SOON)


def test_a_worker_without_the_folder_is_named(cluster: Cluster) -> None:
    start_elsewhere(cluster, WITHOUT_THE_FOLDER)
    with pytest.raises(InputError, match=r"a worker does not see .*share this folder"), pool(1):
        pass


def test_a_worker_with_other_code_is_named(cluster: Cluster) -> None:
    start_elsewhere(cluster, ANOTHER_TORCH)
    with pytest.raises(InputError, match="a worker has other code, torch or NumPy"), pool(1):
        pass


def test_processors_that_differ_are_named(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    start_elsewhere(cluster, ANOTHER_PROCESSOR)
    with pool(1) as executor:
        assert executor.submit(divmod, 7, 2).result() == (3, 1)
    (line,) = capsys.readouterr().err.splitlines()
    names = line.removeprefix("results depend on the processor: ").split(" | ")
    assert sorted(names) == sorted({"another", get_host_cpu_name()})


def test_workers_that_cannot_start_processes_are_named(cluster: Cluster, tmp_path: Path) -> None:
    for worker in cluster.workers:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    cluster.start_worker("nanny", "--nanny")
    with pytest.raises(InputError, match=r"a worker .* runs without --no-nanny"), pool(1):
        pass
