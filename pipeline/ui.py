"""Serve MLflow on the results; the address that it prints is that of the runs. No stage.

    python pipeline/ui.py 5000

Ctrl-C ends the server.
"""

import os
import socket
import sys

from rnngrad.errors import InputError
from rnngrad.stage import run_stage

HOST = "127.0.0.1"  # this machine alone: MLflow asks nobody for a password


def main(port: str) -> None:
    from rnngrad.live import EXPERIMENT, connect
    from rnngrad.tracking import tracking_uri

    with socket.socket() as any_server:
        if not any_server.connect_ex((HOST, int(port))):
            raise InputError(f"port {port} is taken, by another MLflow? make ui PORT=5001")
    uri = tracking_uri()
    _, experiment = connect(uri, EXPERIMENT)
    address = f"http://{HOST}:{port}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    print(f"MLflow: {address}   (Ctrl-C ends it)", flush=True)
    # its jobs are processes more, and no page of a run needs them
    os.environ |= {"PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST]
    command += ["--port", port, "--workers", "1", "--uvicorn-opts=--log-level=warning"]
    # MLflow in place of this process: Ctrl-C and the exit status are its own
    os.execv(sys.executable, command)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
