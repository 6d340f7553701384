"""Downloads: checked against their sha256, from the first mirror that works, kept in a cache."""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
class Mirror:
    """One place to get a file from."""

    url: str
    name: str  # the file's name in the cache
    sha256: str
    archive: str = ""  # name in the cache of the zip file that the URL serves, if it does


def cache_folder() -> Path:
    """Tell where downloads stay: ``RNNGRAD_CACHE``, or the user's cache folder of the system."""
    return Path(os.environ.get("RNNGRAD_CACHE") or user_cache_path("rnngrad"))


def fetch(mirrors: Sequence[Mirror]) -> Path:
    """The file of the first mirror that can give it, from the cache where it is there already.

    The cache is the user's alone. Where no mirror works, an InputError says why, and where to put
    the file by hand.
    """
    folder, failed = cache_folder(), []
    folder.mkdir(0o700, parents=True, exist_ok=True)
    for mirror in mirrors:
        path = folder / mirror.name
        if path.is_file() and _sha256(path) == mirror.sha256:
            return path
    for mirror in mirrors:
        try:
            return _from(mirror, folder)
        except requests.RequestException as error:
            # its message has addresses, ports and nested causes
            failed.append(f"{mirror.url} ({type(error).__name__})")
        except (OSError, ValueError) as error:
            failed.append(f"{mirror.url} ({error})")
    wanted = mirrors[0]
    raise InputError(
        f"{wanted.name} cannot be downloaded from {' or '.join(failed)}; try again, or put the "
        f"file (sha256 {wanted.sha256[:12]}…) at {folder / wanted.name}"
    )


def _from(mirror: Mirror, folder: Path) -> Path:
    path, archive = folder / mirror.name, folder / mirror.archive
    if not mirror.archive:
        return _keep(path, _download(mirror.url), mirror.sha256)
    if not archive.is_file():
        _keep(archive, _download(mirror.url))
    try:
        with zipfile.ZipFile(archive) as members, members.open(mirror.name) as member:
            return _keep(path, iter(partial(member.read, PIECE), b""), mirror.sha256)
    except Exception as error:  # the zip file may be none, broken or another one
        archive.unlink()
        raise ValueError(str(error)) from error


def _keep(path: Path, pieces: Iterable[bytes], sha256: str = "") -> Path:
    """Write a file, if its checksum, where there is one, is right."""
    with whole(path) as unfinished:
        with unfinished.open("wb") as file:
            file.writelines(pieces)
        if sha256 and _sha256(unfinished) != sha256:
            raise ValueError("wrong checksum")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str) -> Iterator[bytes]:
    plain = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as answer:
        if not answer.ok:
            raise ValueError(f"HTTP status {answer.status_code}")
        total = int(answer.headers.get("Content-Length", 0)) or None
        with tqdm(None, url[-40:], total, unit="B", unit_scale=True, delay=2, disable=None) as bar:
            for piece in answer.iter_content(PIECE):
                yield piece
                bar.update(len(piece))
