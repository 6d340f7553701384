import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.usefixtures("interruptible")
def test_the_page_of_the_runs_is_named_opened_and_ended(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, ROOT / "pipeline" / "ui.py", str(port)],
        cwd=tmp_path,
        env=os.environ
        | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db", "BROWSER": "echo %s"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            check(process, port)
        finally:
            process.terminate()  # where the check has failed, it would run on
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port))  # nobody listens any more


def test_a_port_that_is_taken_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, ROOT / "pipeline" / "ui.py", port], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr


def check(process: "subprocess.Popen[str]", port: int) -> None:
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    said = next(line for line in lines if line.startswith("MLflow: "))
    address = said.split()[1]
    assert address.startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?")
    assert next(lines).strip() == address  # the browser's own output
    with urllib.request.urlopen(address) as page:
        assert "MLflow" in page.read().decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
