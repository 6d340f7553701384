"""Downloads: checked against their sha256, from the first mirror that works, kept in a cache."""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from pooch.hashes import hash_matches

from rnngrad.errors import InputError
from rnngrad.stage import whole

ATTEMPTS = 3
TIMEOUT = 30  # seconds to connect, and between two pieces
REASONS = {  # the first that fits
    requests.Timeout: "no answer in time",
    requests.exceptions.ChunkedEncodingError: "cut short",
    requests.RequestException: "no connection",
    zipfile.BadZipFile: "not a zip file",
    KeyError: "the zip file has no such member",
    ValueError: "wrong checksum",
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
    return Path(os.environ.get("RNNGRAD_CACHE") or pooch.os_cache("rnngrad"))


def fetch(mirrors: Sequence[Mirror], attempts: int = ATTEMPTS) -> Path:
    """The file of the first mirror that can give it, from the cache where it is there already.

    A broken or corrupt download is tried again, then the next mirror is. Nothing that is not
    whole and right stays in the cache.

    Raises:
        InputError: no mirror works. It names each with its reason, and where to put the file by
            hand.
    """
    folder = cache_folder()
    for mirror in mirrors:
        path = folder / mirror.name
        if path.is_file() and hash_matches(str(path), mirror.sha256):
            return path
    # its announcements repeat the progress bar
    pooch.get_logger().setLevel("WARNING")
    reasons = []
    for mirror in mirrors:
        try:
            return _from(mirror, folder, attempts)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            reasons.append(f"{mirror.url} ({_reason(error)})")
    wanted = mirrors[0]
    raise InputError(
        f"{wanted.name} cannot be downloaded from {' or '.join(reasons)}; try again, or put the "
        f"file ({wanted.size:,} bytes, sha256 {wanted.sha256[:12]}…) at {folder / wanted.name}"
    )


def _from(mirror: Mirror, folder: Path, attempts: int) -> Path:
    name, sha256 = mirror.name, mirror.sha256
    if mirror.archive:
        name, sha256 = mirror.archive, mirror.archive_sha256
    # pooch writes beside the target and renames when the hash is right
    store = pooch.create(
        folder,
        base_url="",
        registry={name: sha256},
        urls={name: mirror.url},
        retry_if_failed=attempts - 1,
    )
    bar = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT, chunk_size=2**16)
    path = Path(store.fetch(name, downloader=bar))  # type: ignore[arg-type]
    if not mirror.archive:
        return path
    try:
        with whole(folder / mirror.name) as member, zipfile.ZipFile(path) as members:
            member.write_bytes(members.read(mirror.name))
            hash_matches(str(member), mirror.sha256, strict=True)  # or it raises a ValueError
    except (ValueError, KeyError, zipfile.BadZipFile):
        # without a known hash only its content shows that it is wrong; it must not be kept
        path.unlink()
        raise
    return folder / mirror.name


def _reason(error: Exception) -> str:
    # requests puts addresses, ports and nested causes into its messages
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    plain = (words for kind, words in REASONS.items() if isinstance(error, kind))
    return next(plain, getattr(error, "strerror", None) or type(error).__name__)
