"""Jobs in worker processes: results, errors, and how all of them end."""

import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from processes import SOON, start, wait_until
from rnngrad.errors import InputError
from rnngrad.workers import cores, pool, worker_number

METHODS = ["forkserver", "spawn"] if sys.platform == "linux" else ["spawn"]
QUIET = "interrupted; make study or dvc repro goes on from here\n"
LONG = 300  # seconds: what should end at once is given SOON, and must not wait for this


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How processes start, here on any system."""
    monkeypatch.setattr("rnngrad.workers.METHOD", request.param)
    return request.param


def results(*jobs: tuple[Any, ...]) -> list[Any]:
    with pool(len(jobs)) as executor:
        futures = [executor.submit(*job) for job in jobs]
        return [future.result() for future in futures]


@pytest.mark.usefixtures("method")
def test_results_come_and_errors_reach_the_caller() -> None:
    assert results(*((operator.sub, 5, k) for k in range(4))) == [5, 4, 3, 2]
    with pytest.raises(ZeroDivisionError):
        results((divmod, 1, 1), (divmod, 1, 0))


@pytest.mark.usefixtures("method")
def test_an_error_waits_for_no_other_job() -> None:
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        results((divmod, 1, 0), (time.sleep, LONG))
    assert time.monotonic() < begun + SOON


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process has read")
@pytest.mark.usefixtures("method")
def test_an_error_does_not_wait_for_a_result_that_is_half_written() -> None:
    def wait_for_the_middle_of_a_result() -> None:
        with pool(1) as executor:
            before = bytes_read()
            executor.submit(bytes, 300_000_000)
            while bytes_read() < before + 10_000_000:
                time.sleep(0.001)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_for_the_middle_of_a_result()


def bytes_read() -> int:
    """The number that this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.usefixtures("method")
def test_a_worker_that_is_ended_from_outside_is_an_error_and_not_waited_for() -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match="a worker process was ended from outside"):
        results((time.sleep, LONG), (os._exit, 9))
    assert time.monotonic() < begun + SOON


@pytest.mark.parametrize(("jobs", "own"), [(5, 2), (1, 2), (3, 8), (0, 2)])
def test_there_are_as_many_workers_as_cores_and_no_more_than_jobs(
    jobs: int, own: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNGRAD_CORES", str(own))
    expected = max(min(jobs, own), 1)
    with pool(jobs) as executor:
        found = [executor.submit(meet, tmp_path, expected) for _ in range(20)]
        assert {future.result() for future in found} == {*range(expected)}


def meet(folder: Path, expected: int) -> int:
    """This worker's number, once so many workers are there."""
    (folder / str(worker_number())).touch()
    wait_until(lambda: len([*folder.iterdir()]) >= expected)
    return worker_number()


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RNNGRAD_CORES", raising=False)
    if hasattr(os, "sched_getaffinity"):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            assert cores() == 1
        finally:
            os.sched_setaffinity(0, before)
        assert cores() == len(before)
    monkeypatch.setenv("RNNGRAD_CORES", "37")
    assert cores() == 37


@pytest.mark.parametrize("given", ["two", "0", "-1", "1.5", "٣", "1" * 5000])
def test_a_bad_number_of_cores_is_one_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNGRAD_CORES", given)
    with pytest.raises(InputError, match=r"RNNGRAD_CORES is '.{1,40}; set it to a number") as error:
        cores()
    assert len(str(error.value)) < 100


STAGE = f"""
LONG = {LONG}
import os, sys, time
from rnngrad.stage import run_stage
from rnngrad import workers
def job():
    os.write(1, b'job\\n')  # print may write in parts, and two jobs then write into each other
    time.sleep(LONG)
def main(method, *modules):
    workers.METHOD = method
    workers.start_workers(*modules)
    print('started', flush=True)
    with workers.pool(2) as executor:
        futures = [executor.submit(job) for _ in range(2)]
        [future.result() for future in futures]
if __name__ == '__main__':
    run_stage(main, *sys.argv[1:])
"""


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A stage that has just said that it started, in a session of its own."""
    (folder / "stage.py").write_text(STAGE)
    for name, seconds in (("slow", 1), ("slower", LONG)):
        (folder / f"{name}.py").write_text(f"import time\ntime.sleep({seconds})\n")
    paths = {"PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])}
    process = start(folder / "stage.py", *arguments, env=paths, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def wait_for_jobs(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert all(process.stdout.readline().startswith("job") for _ in range(2))


def session(process: subprocess.Popen[str]) -> list[str]:
    """The processes that are left of a stage, its workers and what started them."""
    command = ["ps", "-o", "stat=,args=", "-s", str(process.pid)]
    left = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line for line in left.splitlines() if not line.startswith("Z")]


def assert_quiet_end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=SOON)
    assert (process.returncode, errors) == (130, QUIET)
    wait_for_the_end(process)


def assert_nobody_is_left(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    wait_for_the_end(process)
    process.communicate()


def wait_for_the_end(process: subprocess.Popen[str]) -> None:
    """All its processes end within some tenths of a second, where the machine is idle."""
    wait_until(lambda: not session(process))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.0, 0.15])
def test_ctrl_c_while_workers_start_is_one_line(
    method: str, seconds: float, tmp_path: Path
) -> None:
    process = started(tmp_path, method)
    time.sleep(seconds)
    assert_quiet_end(process)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_middle_of_jobs_is_one_line(method: str, tmp_path: Path) -> None:
    process = started(tmp_path, method)
    wait_for_jobs(process)
    assert_quiet_end(process)


@pytest.mark.skipif("forkserver" not in METHODS, reason="nothing is imported beforehand")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("module", "seconds"), [("slower", 0.05), ("slow", 0.98), ("slow", 1.03)])
def test_ctrl_c_is_answered_at_once_while_modules_are_imported(
    module: str, seconds: float, tmp_path: Path
) -> None:
    process = started(tmp_path, "forkserver", module)
    time.sleep(seconds)
    assert_quiet_end(process)


@pytest.mark.parametrize("seconds", [0.1, None])
def test_workers_end_with_a_main_process_that_is_killed(
    method: str, seconds: float | None, tmp_path: Path
) -> None:
    process = started(tmp_path, method)
    time.sleep(seconds) if seconds is not None else wait_for_jobs(process)
    assert_nobody_is_left(process)


@pytest.mark.skipif("forkserver" not in METHODS, reason="nothing is imported beforehand")
def test_imports_end_with_a_main_process_that_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path, "forkserver", "slower")
    time.sleep(0.5)
    assert_nobody_is_left(process)


def test_modules_are_imported_before_the_first_job(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text("import os\nwho = os.getpid()\n")
    code = (
        "import sys\n"
        "from rnngrad.workers import pool, start_workers\n"
        "def who():\n"
        "    return sys.modules['once'].who\n"
        "if __name__ == '__main__':\n"
        "    start_workers('once', 'no_such_module')\n"
        "    with pool(2) as executor:\n"
        "        found = {executor.submit(who).result() for _ in range(4)}\n"
        "    print(len(found), 'once' in sys.modules)\n"
    )
    (tmp_path / "stage.py").write_text(code)
    paths = {"PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    assert start(tmp_path / "stage.py", env=paths).communicate() == ("1 False\n", "")


def test_who_starts_the_workers_needs_no_torch() -> None:
    """It would take seconds on the core where the workers' imports could go on."""
    modules = ("models.seeds", "study.runs", "study.condition_tables")
    imports = "; ".join(f"import rnngrad.{module}" for module in modules)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
