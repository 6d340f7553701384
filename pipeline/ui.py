"""Open MLflow's page on the results, at the runs and not at its overview. No stage.

    python pipeline/ui.py 5000

BROWSER, where it is set, names what opens the address. Ctrl-C ends the server.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from contextlib import suppress
from urllib.error import URLError

from rnngrad.errors import InputError
from rnngrad.stage import run_stage

HOST = "127.0.0.1"  # this machine alone: MLflow asks nobody for a password
SECONDS = 60  # until the server must have answered


def main(port: str) -> None:
    from rnngrad.live import EXPERIMENT, connect
    from rnngrad.tracking import tracking_uri

    with socket.socket() as any_server:
        if not any_server.connect_ex((HOST, int(port))):
            raise InputError(f"port {port} is taken, by another MLflow? make ui PORT=5001")
    uri = tracking_uri()
    _, experiment = connect(uri, EXPERIMENT)
    server = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST]
    process = subprocess.Popen(
        [*command, "--port", port, "--workers", "1", "--uvicorn-opts=--log-level=warning"],
        # its jobs are processes more, and no page of a run needs them
        env=os.environ
        | {"PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,  # Ctrl-C ends this process, and this one the server
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _wait(process, server)
        address = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        with suppress(KeyboardInterrupt):
            print(f"MLflow: {address}   (Ctrl-C ends it)", flush=True)
            if os.environ.get("BROWSER"):
                webbrowser.open(address)
            process.wait()
    finally:
        for end in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, end)  # it has started others
                process.wait(5)


def _wait(process: subprocess.Popen, server: str) -> None:
    for _ in range(SECONDS * 10):
        if process.poll() is not None:
            raise InputError("MLflow did not start, see above")
        with suppress(URLError, ConnectionError), urllib.request.urlopen(server, timeout=5):
            return
        time.sleep(0.1)
    raise InputError(f"MLflow did not answer at {server} within {SECONDS} s")


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
