"""Downloads: checked against their sha256, from the first mirror that works, kept in a cache."""

import hashlib
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from rnngrad.errors import InputError, needs
from rnngrad.stage import alone, whole, within

with needs("study"):
    import requests
    from platformdirs import user_cache_path
    from urllib3.exceptions import HTTPError, ReadTimeoutError

ATTEMPTS, PAUSE = 3, 1.0  # seconds before the second attempt
TIMEOUT = 30  # seconds to connect, and between two pieces
ANSWER = 60  # seconds within which an answer's head must have come
SLOWEST = 20_000  # bytes a second, on average from the start
LARGEST = 1_000_000_000  # bytes of an archive
PIECE = 2**16
REASONS = {  # the first that fits
    (requests.Timeout, ReadTimeoutError, TimeoutError): "no answer in time",
    HTTPError: "cut short",
    requests.RequestException: "no connection",
}


@dataclass(frozen=True)
class Mirror:
    """One place to get a file from."""

    url: str
    name: str  # the file's name in the cache
    sha256: str
    size: int  # in bytes
    archive: str = ""  # name in the cache of the zip file that the URL serves, if it does


def cache_folder() -> Path:
    """Tell where downloads stay: ``RNNGRAD_CACHE``, or the user's cache folder of the system."""
    return Path(os.environ.get("RNNGRAD_CACHE") or user_cache_path("rnngrad"))


def fetch(mirrors: Sequence[Mirror], attempts: int = ATTEMPTS) -> Path:
    """The file of the first mirror that can give it, from the cache where it is there already.

    A download that fails, is too slow or too large is tried again, then the next mirror is. The
    cache is the user's alone. Where no mirror works, an InputError says why, and where to put the
    file by hand.
    """
    folder, reasons = cache_folder(), {}
    folder.mkdir(0o700, parents=True, exist_ok=True)
    with alone(str(folder)):
        for mirror in mirrors:
            path = folder / mirror.name
            if path.is_file() and _sha256(path) == mirror.sha256:
                return path
        for mirror in mirrors:
            for attempt in range(attempts):
                time.sleep(attempt * PAUSE)
                try:
                    return _from(mirror, folder)
                except (OSError, ValueError, HTTPError) as error:
                    # requests puts addresses, ports and nested causes into its messages
                    plain = (words for kind, words in REASONS.items() if isinstance(error, kind))
                    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    reasons[mirror.url] = next(plain, said)
    wanted, failed = mirrors[0], (f"{url} ({reason})" for url, reason in reasons.items())
    raise InputError(
        f"{wanted.name} cannot be downloaded from {' or '.join(failed)}; try again, or put the "
        f"file ({wanted.size:,} bytes, sha256 {wanted.sha256[:12]}…) at {folder / wanted.name}"
    )


def _from(mirror: Mirror, folder: Path) -> Path:
    path, archive = folder / mirror.name, folder / mirror.archive
    if not mirror.archive:
        return _keep(path, _download(mirror.url), mirror.size, mirror.sha256)
    if not archive.is_file():
        _keep(archive, _download(mirror.url), LARGEST)
    try:
        with zipfile.ZipFile(archive) as members, members.open(mirror.name) as member:
            pieces = iter(partial(member.read, PIECE), b"")
            return _keep(path, pieces, mirror.size, mirror.sha256)
    except Exception as error:  # the zip file may be none, broken or another one
        archive.unlink()
        raise ValueError(str(error)) from error


def _keep(path: Path, pieces: Iterable[bytes], largest: int, sha256: str = "") -> Path:
    """Write a file, if its size and its checksum, where there is one, are right."""
    with whole(path) as unfinished:
        with unfinished.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                if file.tell() > largest:
                    raise ValueError("too large")
        if sha256 and _sha256(unfinished) != sha256:
            raise ValueError("wrong checksum")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str) -> Iterator[bytes]:
    begun, plain = time.monotonic(), {"Accept-Encoding": "identity"}
    ask = partial(requests.get, url, stream=True, timeout=TIMEOUT, headers=plain)
    with within(ANSWER, ask) as answer:
        if not answer.ok:
            raise ValueError(f"HTTP status {answer.status_code}")
        total = int(answer.headers.get("Content-Length", 0)) or None
        with tqdm(None, url[-40:], total, unit="B", unit_scale=True, delay=2, disable=None) as bar:
            while piece := answer.raw.read1(PIECE):  # it takes what has come, however little
                yield piece
                bar.update(len(piece))
                seconds = time.monotonic() - begun
                if seconds > TIMEOUT and bar.n < seconds * SLOWEST:
                    raise ValueError("too slow")
