"""Results that are kept as long as nothing changes that they depend on."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from tqdm import tqdm

import rnngrad
from rnngrad.errors import needs
from rnngrad.stage import DIGEST, read_output, remove, seal, seals, whole
from rnngrad.workers import pool, versions

with needs("study"):
    from pydantic_core import to_json

SEALED = re.compile(r"^[0-9a-f]{64}  ([^/\n]+)$", re.MULTILINE)


def run_kept(
    function: str,
    jobs: Mapping[str, tuple[Any, ...]],
    folder: Path,
    *,
    code: Sequence[str],
    doing: str | None = None,
    said: Mapping[str, str] | None = None,
) -> None:
    """Have ``function(path, *arguments)`` fill the folder ``folder/<name>`` of every job.

    A folder stays if the same code made it from the same arguments and its files have not changed.
    Whatever else lies in ``folder`` is deleted. An error, such as one of ``function``, or Ctrl-C
    leaves the folders that are whole by then.

    Args:
        function: by its name, such as "rnngrad.study.measures:measure_model": workers alone import
            it. When it begins, ``path`` holds nothing but ``digest.txt``, which is one line. For
            the same line it must always write the same bytes.
        jobs: by name, or path such as "pre/seed-1", the arguments: pydantic models, numbers,
            strings, tuples of them. A `Path` stands for the content of that file or folder.
        code: files and folders below ``rnngrad`` whose lines the results depend on.
        doing: what the progress bar says, or where there is no terminal a line per job; or None.
        said: the names that these lines give to jobs, if not their own.

    Raises:
        InputError: an input is missing, or a worker was ended from outside.
    """
    content = cache(_content)
    package = Path(rnngrad.__path__[0])
    # other versions, or threads of a worker, round otherwise
    same = versions(), function, {part: content(package / part, "*.py") for part in code}
    digests = {
        name: _digest(to_json((same, [content(p) if isinstance(p, Path) else p for p in job])))
        for name, job in jobs.items()
    }
    missing = [name for name in jobs if not _is_kept(folder / name, digests[name])]
    _delete_others(folder, jobs.keys() - missing)
    if not missing:
        return
    try:
        with pool(len(missing)) as executor:
            futures = {
                executor.submit(_make, function, folder / name, digests[name], jobs[name]): name
                for name in missing
            }
            done = tqdm(as_completed(futures), doing, len(futures), disable=None if doing else True)
            for number, future in enumerate(done, 1):
                future.result()
                if doing and done.disable:  # there is no terminal
                    name = (said or {}).get(futures[future], futures[future])
                    print(f"{doing}: {name}, {number} of {len(futures)}", flush=True)
    finally:
        _delete_others(folder, jobs)


def _make(function: str, path: Path, digest: str, arguments: tuple[Any, ...]) -> None:
    with whole(path) as folder:
        folder.mkdir()
        (folder / DIGEST).write_text(f"{digest}\n")
        resolve_name(function)(folder, *arguments)
        seal(folder, f"{digest}\n")


def _is_kept(folder: Path, digest: str) -> bool:
    mark = folder / DIGEST
    return mark.is_file() and mark.read_bytes() == f"{digest}\n{seals(folder.iterdir())}".encode()


def _delete_others(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {folder / name for name in names}
    above = {path.parent for path in kept}
    for place in {folder, *above}:
        for path in {*place.glob("*")} - kept - above:
            remove(path)


def _content(path: Path, pattern: str = "*") -> dict[str, str]:
    """Digest a file, or the files of a folder that the pattern fits, by their names.

    InputError where a file is missing that was sealed.
    """
    files = [file for file in path.rglob(pattern) if not file.is_dir()] if path.is_dir() else [path]
    marks = [file for file in files if file.name == DIGEST and file.is_file()]
    for mark in marks:
        names = SEALED.findall(mark.read_text(errors="replace"))
        files += map(mark.with_name, names)
    return {
        str(file.relative_to(path)): _digest(read_output(file, "dvc repro", Path.read_bytes))
        for file in sorted({*files} - {*marks})
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
