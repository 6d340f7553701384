"""Downloads: checked against their sha256, kept in a cache."""

import os
import sys
from pathlib import Path
from typing import Any

from rnngrad.errors import InputError, needs

with needs("study"):
    import pooch
    from platformdirs import user_cache_path

TIMEOUT = 30  # seconds to connect, and between two pieces


def cache_folder() -> Path:
    """Tell where downloads stay: ``RNNGRAD_CACHE``, or the user's cache folder of the system."""
    return Path(os.environ.get("RNNGRAD_CACHE") or user_cache_path("rnngrad"))


def fetch(url: str, sha256: str) -> Path:
    """The file of the web, from the cache where it is there already.

    The cache is the user's alone. Where there is no such download, an InputError says why, and
    where to put the file by hand.
    """
    name, folder = url.rpartition("/")[2], cache_folder()
    folder.mkdir(0o700, parents=True, exist_ok=True)
    web = pooch.create(folder, "", registry={name: sha256}, urls={name: url}, retry_if_failed=1)
    plain = {"Accept-Encoding": "identity"}  # a .gz file is to stay packed
    read: Any = pooch.HTTPDownloader(sys.stderr.isatty(), timeout=TIMEOUT, headers=plain)
    try:
        return Path(web.fetch(name, downloader=read))
    except (OSError, ValueError) as error:  # messages of requests have ports and nested causes
        answer = getattr(error, "response", None)
        why = getattr(error, "strerror", None) or type(error).__name__  # such as of a full disk
        reason = "wrong checksum" if isinstance(error, ValueError) else why
        reason = reason if answer is None else f"HTTP status {answer.status_code}"
        raise InputError(
            f"{name} cannot be downloaded from {url} ({reason}); try again, or put the file "
            f"(sha256 {sha256[:12]}…) at {folder / name}"
        ) from error
