"""A tiny study in a folder of its own, and a local download server."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from study_folder import Study


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
