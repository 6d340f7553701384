"""The driver's side of a competitor's process."""

import contextlib
import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class RefusedError(RuntimeError):
    """No time counts: a process failed, took too long or computed something else."""


def thread_environment(threads: int) -> dict[str, str]:
    """As many threads for everybody, whichever library makes them."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    return {name: str(threads) for name in names} | {"JAX_PLATFORMS": "cpu"}


class Process:
    """A worker that waits for requests; `python` is the interpreter of its environment."""

    def __init__(self, python: Path, name: str, log: Path, threads: int) -> None:
        with log.open("ab") as errors:
            self.popen = subprocess.Popen(
                [python, "-m", "benchmarks.worker", name],
                cwd=ROOT,
                env=os.environ | thread_environment(threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is the driver's to answer
            )

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """The worker's answer.

        Raises:
            RefusedError: none came within `limit` seconds; the process is ended.
        """
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        try:
            print(json.dumps(request), file=self.popen.stdin, flush=True)
        except BrokenPipeError:
            return {"error": "its process has ended"}
        ready, _, _ = select.select([self.popen.stdout], [], [], limit)
        if not ready:
            self.end()
            raise RefusedError(f"no answer within {limit:.0f} s")
        line = self.popen.stdout.readline()
        return json.loads(line) if line else {"error": "its process has ended"}

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]


def installed(python: Path, package: str) -> bool:
    """Can this interpreter import the package?"""
    if not python.exists():
        return False
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0
