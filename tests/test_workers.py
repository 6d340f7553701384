"""Jobs in worker processes: order, errors, and nothing but one line on Ctrl-C."""

import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from rnngrad.workers import run_jobs


def test_results_come_in_order_and_errors_reach_the_caller() -> None:
    assert list(run_jobs(operator.sub, [(5, k) for k in range(4)])) == [5, 4, 3, 2]
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(operator.floordiv, [(1, 1), (1, 0)]))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 1.0])
def test_ctrl_c_ends_the_workers_without_a_word_of_theirs(seconds: float) -> None:
    code = (
        "import time\n"
        "from rnngrad.stage import run_stage\n"
        "from rnngrad.workers import run_jobs\n"
        "def main():\n"
        "    print('started', flush=True)\n"
        "    list(run_jobs(time.sleep, [(60,), (60,)]))\n"
        "if __name__ == '__main__':\n"
        "    run_stage(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2 + seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted; run the same command again to go on\n"
