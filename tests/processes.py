"""Processes of this Python, and waiting for what they do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SOON = 120  # seconds; long, since a process may take many of them to start on a busy machine


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """A process that imports what this one can; `env` adds to its environment."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)} | options.pop("env", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | environment, **(pipes | options))


def wait_until(done: Callable[[], object], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
