import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from rnngrad.data import fetch as module
from rnngrad.data.fetch import cache_folder, fetch
from rnngrad.errors import InputError

CONTENT = b"id,comment_text,toxic\n1,hello,0\n" * 500
NOWHERE = "http://127.0.0.1:9/train.csv"

pytestmark = [
    pytest.mark.usefixtures("cache"),
    # pooch leaves the connections of failed downloads to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_good_download_is_kept_and_not_asked_for_again(server, cache):
    server.files["train.csv"] = CONTENT
    for _ in range(2):
        assert fetch(server.url + "train.csv", sha256(CONTENT)) == cache / "train.csv"
    assert (cache / "train.csv").read_bytes() == CONTENT
    assert server.requests == ["train.csv"]


def test_a_file_put_in_the_cache_by_hand_needs_no_network(cache):
    cache.mkdir()
    (cache / "train.csv").write_bytes(CONTENT)
    assert fetch(NOWHERE, sha256(CONTENT)) == cache / "train.csv"


def test_a_wrong_file_in_the_cache_is_replaced(server, cache):
    cache.mkdir()
    (cache / "train.csv").write_bytes(CONTENT[:100])
    server.files["train.csv"] = CONTENT
    assert fetch(server.url + "train.csv", sha256(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("served", "cut", "reason"),
    [
        (None, False, "HTTP status 404"),
        (CONTENT, True, "ChunkedEncodingError"),
        (b"something else", False, "wrong checksum"),
    ],
)
def test_one_line_says_why_and_what_to_do(server, cache, served, cut, reason):
    if served is not None:
        server.files["train.csv"] = served
    if cut:
        server.cut_short.add("train.csv")
    url = server.url + "train.csv"
    with pytest.raises(InputError) as caught:
        fetch(url, sha256(CONTENT))
    message = str(caught.value)
    assert f"from {url} ({reason}); try again" in message
    assert f"(sha256 {sha256(CONTENT)[:12]}…) at {cache / 'train.csv'}" in message
    assert "\n" not in message
    assert server.requests == ["train.csv"] * 2
    assert list(cache.iterdir()) == []


def test_a_server_that_does_not_answer_is_given_up(server, monkeypatch):
    server.delay = 0.3
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with pytest.raises(InputError, match="ReadTimeout"):
        fetch(server.url + "train.csv", sha256(CONTENT))


def test_a_server_that_is_down_is_named():
    with pytest.raises(InputError, match=r"train.csv \(ConnectionError\)"):
        fetch(NOWHERE, sha256(CONTENT))


def test_a_cache_that_cannot_be_written_is_named_with_the_systems_reason(server, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.HTTPDownloader", lambda *_, **__: full)
    with pytest.raises(InputError, match=r"\(No space left on device\)"):
        fetch(server.url + "train.csv", sha256(CONTENT))


def test_the_cache_is_outside_the_checkout_by_default(monkeypatch):
    monkeypatch.delenv("RNNGRAD_CACHE")
    assert cache_folder().name == "rnngrad"
    assert not cache_folder().is_relative_to(Path.cwd())


def test_the_cache_is_the_users_alone(server, cache):
    server.files["train.csv"] = CONTENT
    fetch(server.url + "train.csv", sha256(CONTENT))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
