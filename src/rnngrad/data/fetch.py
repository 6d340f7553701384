"""Downloads: checked against their sha256, from the first mirror that works, kept in a cache."""

import hashlib
import os
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests
from platformdirs import user_cache_path
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ReadTimeoutError

from rnngrad.errors import InputError
from rnngrad.stage import alone, whole

ATTEMPTS, PAUSE = 3, 1.0  # seconds before the second attempt
TIMEOUT = 30  # seconds to connect, and between two pieces
SLOWEST = 20_000  # bytes a second, on average from the start: two hours for the largest file
LARGEST = 1_000_000_000  # bytes of an archive
PIECE = 2**16
REASONS = {  # the first that fits
    requests.Timeout: "no answer in time",
    ReadTimeoutError: "no answer in time",
    HTTPError: "cut short",
    requests.RequestException: "no connection",
    zipfile.BadZipFile: "not a zip file",
    zlib.error: "not a zip file",
    RuntimeError: "not a zip file that can be unpacked",
    KeyError: "the zip file has no such member",
}


@dataclass(frozen=True)
class Mirror:
    """One place to get a file from.

    Attributes:
        url: what to download.
        name, sha256, size: of the file in the cache, its size in bytes.
        archive: name in the cache of the zip file that ``url`` serves; ``name`` is its member.
        archive_sha256: of the zip file, where it is known.
    """

    url: str
    name: str
    sha256: str
    size: int
    archive: str | None = None
    archive_sha256: str | None = None


def cache_folder() -> Path:
    """Tell where downloads stay: ``RNNGRAD_CACHE``, or the user's cache folder of the system."""
    return Path(os.environ.get("RNNGRAD_CACHE") or user_cache_path("rnngrad"))


def fetch(mirrors: Sequence[Mirror], attempts: int = ATTEMPTS) -> Path:
    """The file of the first mirror that can give it, from the cache where it is there already.

    A download that is broken, corrupt, too slow or too large is tried again, then the next mirror
    is. Nothing that is not whole and right stays in the cache, which is the user's alone.

    Raises:
        InputError: no mirror works. It names each with its reason, and where to put the file by
            hand.
    """
    folder, reasons, reason = cache_folder(), [], ""
    folder.mkdir(0o700, parents=True, exist_ok=True)
    with alone(str(folder)):
        for mirror in mirrors:
            path = folder / mirror.name
            if path.is_file():
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == mirror.sha256:
                        return path
        for mirror in mirrors:
            for attempt in range(attempts):
                time.sleep(attempt * PAUSE)
                try:
                    return _from(mirror, folder)
                except (OSError, ValueError, HTTPError, *REASONS) as error:
                    reason = _reason(error)
            reasons.append(f"{mirror.url} ({reason})")
    wanted = mirrors[0]
    raise InputError(
        f"{wanted.name} cannot be downloaded from {' or '.join(reasons)}; try again, or put the "
        f"file ({wanted.size:,} bytes, sha256 {wanted.sha256[:12]}…) at {folder / wanted.name}"
    )


def _from(mirror: Mirror, folder: Path) -> Path:
    path, archive = folder / mirror.name, folder / (mirror.archive or "")
    if not mirror.archive:
        _keep(path, _download(mirror.url), mirror.size, mirror.sha256)
        return path
    if not archive.is_file():
        _keep(archive, _download(mirror.url), LARGEST, mirror.archive_sha256)
    try:
        with zipfile.ZipFile(archive) as members, members.open(mirror.name) as member:
            _keep(path, iter(partial(member.read, PIECE), b""), mirror.size, mirror.sha256)
    except BaseException:
        archive.unlink()  # only its content shows whether it is right
        raise
    return path


def _keep(path: Path, pieces: Iterable[bytes], largest: int, sha256: str | None) -> None:
    """Write a file, if its size and its checksum are right."""
    size, digest = 0, hashlib.sha256()
    with whole(path) as unfinished, unfinished.open("wb") as file:
        for piece in pieces:
            size += len(piece)
            if size > largest:
                raise ValueError("too large")
            digest.update(piece)
            file.write(piece)
        if sha256 not in (None, digest.hexdigest()):
            raise ValueError("wrong checksum")


def _download(url: str) -> Iterator[bytes]:
    begun, size, plain = time.monotonic(), 0, {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as answer:
        answer.raise_for_status()
        total = int(answer.headers.get("Content-Length", 0)) or None
        with tqdm(desc=url[-40:], total=total, unit="B", unit_scale=True, delay=2) as bar:
            while piece := answer.raw.read1(PIECE):  # what has come, however little
                yield piece
                size += len(piece)
                bar.update(len(piece))
                seconds = time.monotonic() - begun
                if seconds > TIMEOUT and size < seconds * SLOWEST:
                    raise ValueError("too slow")


def _reason(error: Exception) -> str:
    # requests puts addresses, ports and nested causes into its messages
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    plain = (words for kind, words in REASONS.items() if isinstance(error, kind))
    return next(plain, getattr(error, "strerror", None) or str(error) or type(error).__name__)
