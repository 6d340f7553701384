"""A tiny study in a folder of its own, its stages as commands, and a local download server."""

import copy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rnngrad.params import Params, read_params

ROOT = Path(__file__).parents[2]


class Study:
    """A folder with a params.yaml, in which the stage scripts run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
        self.edit(data__demo__comments_per_class=20, embed__dimensions=4)

    def edit(self, **keys: object) -> None:
        """Set keys, written with two underscores for each dot, and write params.yaml."""
        params = copy.deepcopy(self.params)
        for key, value in keys.items():
            *sections, name = key.split("__")
            section = params
            for part in sections:
                section = section[part]
            section[name] = value
        self.params = params
        with (self.folder / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params, file)

    def read_params(self) -> Params:
        return read_params(self.folder / "params.yaml")

    def run(self, *stages: str) -> subprocess.CompletedProcess[str]:
        """Run stages one after the other, of which only the last may fail; its result."""
        *first, last = stages
        for stage in first:
            assert self._run(stage).returncode == 0
        return self._run(last)

    def _run(self, stage: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "pipeline" / f"{stage}.py")]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def outputs(self) -> dict[str, bytes]:
        """Name and content of each file below build/."""
        build = self.folder / "build"
        return {
            str(path.relative_to(build)): path.read_bytes()
            for path in sorted(build.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloads."""
    monkeypatch.setenv("RNNGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Server:
    """Serves files from memory on 127.0.0.1 and counts what it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.cut_short: set[str] = set()
        self.delay = 0.0
        self.requests: list[str] = []


def _handler(find: Callable[[], Server]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server = find()
            name = self.path.lstrip("/")
            server.requests.append(name)
            time.sleep(server.delay)
            if name not in server.files:
                self.send_error(404)
                return
            body = server.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if name in server.cut_short else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found: list[Server] = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: found[0]))
    found.append(Server(f"http://127.0.0.1:{http.server_port}/"))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found[0]
    http.shutdown()
    thread.join()
    http.server_close()
