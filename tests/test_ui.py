import signal
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from processes import SOON, start, wait_until

ROOT = Path(__file__).parent.parent


@pytest.mark.usefixtures("interruptible")
def test_the_page_of_the_runs_is_named_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"}
    script = ROOT / "pipeline" / "ui.py"
    with start(script, port, cwd=tmp_path, env=uri, stderr=None) as process:
        try:
            check(process, port)
        finally:
            process.terminate()  # where the check has failed, it would run on
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port))  # nobody listens any more


def check(process: Any, port: int) -> None:
    assert process.stdout
    said = next(line for line in process.stdout if line.startswith("MLflow: "))
    address = said.split()[1]
    assert address.startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?")

    def page() -> str:
        assert process.poll() is None
        with suppress(OSError), urllib.request.urlopen(address) as answer:
            return answer.read().decode()
        return ""

    wait_until(lambda: "MLflow" in page())
    process.send_signal(signal.SIGINT)
    process.wait(SOON)
