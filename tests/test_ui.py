import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOON = 120  # seconds


@pytest.mark.usefixtures("interruptible")
def test_the_page_of_the_runs_is_named_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, ROOT / "pipeline" / "ui.py", str(port)],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            check(process, port)
        finally:
            process.terminate()  # where the check has failed, it would run on
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port))  # nobody listens any more


def check(process: "subprocess.Popen[str]", port: int) -> None:
    assert process.stdout
    said = next(line for line in process.stdout if line.startswith("MLflow: "))
    address = said.split()[1]
    assert address.startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?")
    page, deadline = "", time.monotonic() + SOON
    while not page:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
        with suppress(OSError), urllib.request.urlopen(address) as answer:
            page = answer.read().decode()
    assert "MLflow" in page
    process.send_signal(signal.SIGINT)
    process.wait(SOON)
