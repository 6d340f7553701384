"""Jobs in worker processes: order, errors, and nothing but one line on Ctrl-C."""

import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rnngrad import workers
from rnngrad.errors import InputError
from rnngrad.workers import run_jobs


def test_results_come_in_order_and_errors_reach_the_caller() -> None:
    assert list(run_jobs(operator.sub, [(5, k) for k in range(4)])) == [5, 4, 3, 2]
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(operator.floordiv, [(1, 1), (1, 0)]))


def test_an_error_says_where_in_the_worker_it_arose() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(run_jobs(divmod, [(1, 0)]))
    assert "function(*pickle.loads(job))" in caught.value.__notes__[0]


def test_a_lost_connection_of_a_job_is_not_the_end_of_its_worker() -> None:
    with pytest.raises(ConnectionError, match="refused"):
        list(run_jobs(lost_connection, [(), ()]))


def lost_connection() -> None:
    raise ConnectionRefusedError("refused")


def test_an_error_does_not_wait_for_what_other_workers_write() -> None:
    """Ended while it writes, a worker of `multiprocessing.Pool` left a lock behind."""
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            list(run_jobs(operator.call, [(divmod, 1, 0), (bytes, 100_000_000)]))


def test_a_worker_may_also_be_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "METHOD", "spawn")
    assert list(run_jobs(operator.sub, [(5, k) for k in range(4)])) == [5, 4, 3, 2]


def test_a_worker_that_is_ended_from_outside_is_an_error_and_not_waited_for() -> None:
    with pytest.raises(InputError, match="a worker process was ended from outside"):
        list(run_jobs(os._exit, [(9,), (9,)]))


@pytest.mark.parametrize(
    ("jobs", "cores", "shared"), [(5, 2, 3), (4, 2, 2), (1, 2, 1), (5, 4, 5), (3, 8, 3), (10, 4, 6)]
)
def test_cores_are_shared_where_some_would_have_no_job_in_the_end(
    jobs: int, cores: int, shared: int
) -> None:
    assert workers._at_a_time(jobs, cores, share_cores=True) == shared
    assert workers._at_a_time(jobs, cores, share_cores=False) == min(jobs, cores)


def interrupted(code: str, seconds: float, folder: Path) -> tuple[int, str]:
    """Exit status and stderr of a stage that is interrupted some time after it has started."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


CODE = """
import time
from rnngrad.stage import run_stage
from rnngrad.workers import run_jobs, start_workers
def main():
    {start}
    print('started', flush=True)
    list(run_jobs(time.sleep, [(60,), (60,)]))
if __name__ == '__main__':
    run_stage(main)
"""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.5, 1.2])
def test_ctrl_c_ends_the_workers_without_a_word_of_theirs(seconds: float, tmp_path: Path) -> None:
    found = interrupted(CODE.format(start=""), seconds, tmp_path)
    assert found == (130, "interrupted; make study or dvc repro goes on from here\n")


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.98, 1.02, 1.06])
def test_ctrl_c_is_answered_at_once_while_modules_are_imported(
    seconds: float, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1)\n")
    code = CODE.format(start="start_workers('slow')")
    found = interrupted(code, seconds, tmp_path)
    assert found == (130, "interrupted; make study or dvc repro goes on from here\n")


PRESSED = """
import os, signal
from multiprocessing.context import BaseContext
whole = BaseContext.Pipe
def pipe(self, *given):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(self, *given)
BaseContext.Pipe = pipe
"""


@pytest.mark.skipif(workers.METHOD != "forkserver", reason="elsewhere it is lost")
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_workers_start_is_not_lost() -> None:
    command = [sys.executable, "-c", PRESSED + CODE.format(start="")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130
    assert done.stderr == "interrupted; make study or dvc repro goes on from here\n"


def test_modules_are_imported_before_the_first_job(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text("import os\nwho = os.getpid()\n")
    code = (
        "import operator, sys\n"
        "from rnngrad.workers import run_jobs, start_workers\n"
        "def who(k):\n"
        "    return sys.modules['once'].who\n"
        "if __name__ == '__main__':\n"
        "    start_workers('once', 'no_such_module')\n"
        "    print(len({*run_jobs(who, [(0,), (1,)])}), 'once' in sys.modules)\n"
    )
    (tmp_path / "stage.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "stage.py"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1 False\n", "")


def test_who_starts_the_workers_needs_no_torch() -> None:
    """It would take seconds on the core where the workers' imports could go on."""
    modules = (
        "models.seeds",
        "models.results",
        "study.probed",
        "study.conditions.jobs",
        "study.conditions.table",
        "study.evidence.cell",
    )
    imports = "; ".join(f"import rnngrad.{module}" for module in modules)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
