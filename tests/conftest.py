"""Several rooms' tests share these: one thread, servers of no use, the command."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from threading import Event, Thread
from typing import Any

import hypothesis
import pytest
import torch

from rnngrad.cli import main

# the same examples in every run, and no limit of time: the machine may be busy
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take minutes come first: then neither of two processes ends alone."""
    items.sort(key=lambda item: not item.path.name.startswith(("test_pipeline", "test_cluster")))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The problems are small, and threads that wait for a busy core cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Each test draws the same numbers, whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches child processes also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer of MLflow may take a second in place of four."""
    monkeypatch.setattr("rnngrad.live.SECONDS", 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.fixture
def listen() -> Iterator[Callable[..., str]]:
    """Give host:port of a new server: it says the same to every guest, then a byte at a time."""
    with ExitStack() as ends:

        def start(answer: bytes = b"", drip: bytes = b"") -> str:
            server, over = socket.create_server(("127.0.0.1", 0)), Event()
            guests: list[socket.socket] = []

            def serve() -> None:
                with suppress(OSError):  # the test is over
                    while True:
                        guests.append(server.accept()[0])
                        with suppress(OSError):  # the guest has left
                            guests[-1].sendall(answer)
                            while drip and not over.wait(0.05):
                                guests[-1].sendall(drip)

            def end() -> None:
                over.set()
                server.shutdown(socket.SHUT_RDWR)  # ends a wait for guests
                thread.join()
                for each in (server, *guests):
                    each.close()

            thread = Thread(target=serve)
            thread.start()
            ends.callback(end)
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield start


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of the command with these arguments."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status: Any
        status, end = 0, ""
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status, end = error.code, ""
        if isinstance(status, str):  # what Python makes of it
            status, end = 1, f"{status}\n"
        out, err = capsys.readouterr()
        return status, out, err + end

    return call


@pytest.fixture
def refusal(run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """The one line about bad input of the command with these arguments."""

    def call(*arguments: object) -> str:
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (1, "", 1)
        return err

    return call
