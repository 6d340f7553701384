"""Downloads: checked against their sha256, kept in a cache."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rnngrad.errors import InputError, needs
from rnngrad.stage import whole

with needs("study"):
    import requests
    from platformdirs import user_cache_path

TIMEOUT = 30  # seconds to connect, and between two pieces
PIECE = 2**16


@dataclass(frozen=True)
class Download:
    """A file of the web."""

    url: str
    name: str  # in the cache
    sha256: str


def cache_folder() -> Path:
    """Tell where downloads stay: ``RNNGRAD_CACHE``, or the user's cache folder of the system."""
    return Path(os.environ.get("RNNGRAD_CACHE") or user_cache_path("rnngrad"))


def fetch(wanted: Download) -> Path:
    """The file of the web, from the cache where it is there already.

    The cache is the user's alone. Where there is no such download, an InputError says why, and
    where to put the file by hand.
    """
    path = cache_folder() / wanted.name
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    if path.is_file() and _sha256(path) == wanted.sha256:
        return path
    try:
        with whole(path) as unfinished:
            _download(wanted, unfinished)
    except (OSError, ValueError) as error:
        # a message of requests has addresses, ports and nested causes
        reason = type(error).__name__ if isinstance(error, requests.RequestException) else error
        raise InputError(
            f"{wanted.name} cannot be downloaded from {wanted.url} ({reason}); try again, or put "
            f"the file (sha256 {wanted.sha256[:12]}…) at {path}"
        ) from error
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wanted: Download, path: Path) -> None:
    url, plain = wanted.url, {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as answer:
        if not answer.ok:
            raise ValueError(f"HTTP status {answer.status_code}")
        total = int(answer.headers.get("Content-Length", 0)) or None
        with (
            path.open("wb") as file,
            tqdm(None, url[-40:], total, unit="B", unit_scale=True, delay=2, disable=None) as bar,
        ):
            for piece in answer.iter_content(PIECE):
                file.write(piece)
                bar.update(len(piece))
    if _sha256(path) != wanted.sha256:
        raise ValueError("wrong checksum")
